"""The loss of a language model in several units, and that of a bigram model for comparison."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Score:
    """The loss of one model on the validation split.

    Attributes:
      name: of the model.
      loss: nats a token.
      perplexity: exp(loss).
      bits_per_character: comparable between tokenizers.

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
        """The score of a loss in nats a token."""
        return cls(name, loss, math.exp(loss), loss * tokens_per_character / math.log(2))


def bigram_loss(
    train: Int[np.ndarray, " S"], validation: Int[np.ndarray, " T"], vocab_size: int
) -> float:
    """Nats a token of a bigram model with add-one smoothing.

    Example:
      >>> loss = bigram_loss(np.array([0, 1, 0, 1]), np.array([0, 1]), 2)
      >>> print(f"{np.exp(-loss):.2f}")   # 1 followed 0 twice: (2 + 1) / (2 + 2)
      0.75
    """
    counts = np.ones((vocab_size, vocab_size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(shares[validation[:-1], validation[1:]]).mean())
