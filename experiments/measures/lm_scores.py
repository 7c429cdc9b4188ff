"""How well a language model predicts a text, beside a model that only counts pairs of tokens."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Score:
    """How well the validation split is predicted.

    Attributes:
      name: of what predicts it.
      loss: nats a token.
      perplexity: the number of equally likely tokens that are as hard to guess among.
      bits_per_character: the same whatever the tokens are, so that characters and byte pairs
        compare.

    Example:
      >>> score = Score.of("one bit a token", math.log(2), tokens_per_character=0.25)
      >>> score.perplexity, score.bits_per_character
      (2.0, 0.25)
    """

    name: str
    loss: float
    perplexity: float
    bits_per_character: float

    @classmethod
    def of(cls, name: str, loss: float, tokens_per_character: float) -> "Score":
        """What a loss in nats a token means."""
        return cls(name, loss, math.exp(loss), loss * tokens_per_character / math.log(2))


def following_counts_loss(
    train: Int[np.ndarray, " S"], validation: Int[np.ndarray, " T"], vocab_size: int
) -> float:
    """Nats a token of a model that only counts which token follows which, each pair once more.

    Example:
      >>> loss = following_counts_loss(np.array([0, 1, 0, 1]), np.array([0, 1]), 2)
      >>> print(f"{np.exp(-loss):.2f}")   # 1 followed 0 twice: (2 + 1) / (2 + 2)
      0.75
    """
    counts = np.ones((vocab_size, vocab_size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(shares[validation[:-1], validation[1:]]).mean())
