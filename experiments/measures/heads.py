"""What the heads of a GPT read: their weights, computed beside the model from its parameters."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax import attention_weights, masks
from attn_jax.models import GPT
from attn_jax.modules import MultiHeadAttention


def head_weights(model: GPT, tokens: Int[Array, " T"]) -> Float[Array, "L N T T"]:
    """The weights of every layer's heads on one sequence.

    Args:
      model: with learned positions, and blocks that read all tokens before.
      tokens: ids.

    Returns:
      Row t of a head says how much it reads of each token for what it makes of token t.

    Raises:
      ValueError: the model has rotary positions.
    """
    if model.position is None:
        raise ValueError("model has rotary positions; the heads' weights need learned ones")
    x = model.embedding(tokens) + model.position(jnp.arange(tokens.size, dtype=jnp.int32))
    layers = []
    for block in model.blocks:
        layers.append(_weights(block.attention, block.attention_residual.enter(x)))
        x = block(x)
    return jnp.stack(layers)


def _weights(attention: MultiHeadAttention, x: Float[Array, "T D"]) -> Float[Array, "N T T"]:
    query = jnp.einsum("TD,DNH->NTH", x, attention.w_query[...])
    key = jnp.einsum("TD,DKH->KTH", x, attention.w_key[...])
    if attention.b_query is not None and attention.b_key is not None:
        query = query + attention.b_query[...][:, None]
        key = key + attention.b_key[...][:, None]
    return jax.vmap(partial(attention_weights, mask=masks.causal()))(query, key)


def head_names(model: GPT) -> list[str]:
    """The heads in the order of `head_weights`."""
    layers, heads = range(len(model.blocks)), range(model.config.num_heads)
    return [f"layer {layer + 1}, head {head + 1}" for layer in layers for head in heads]


@dataclasses.dataclass(frozen=True)
class HeadReading:
    """What one head reads while an answer is written, in the mean over steps and inputs.

    Attributes:
      name: of the head.
      entropy: bits; 2^entropy is how many tokens it reads, in effect.
      next_letter: share of its weight on the question's letters that are like the one to write.
      last_letter: on those that are like the one just written, where the two differ.
      other_letters: on the rest of the question.
      answer: on what has been written of the answer.
    """

    name: str
    entropy: float
    next_letter: float
    last_letter: float
    other_letters: float
    answer: float


def reading(
    name: str, weights: Float[np.ndarray, "B T T"], tokens: Int[np.ndarray, "B S"]
) -> HeadReading:
    """Sums up one head's weights on questions with their answers, each half of the tokens.

    Args:
      name: of the head.
      weights: of the head, on all tokens but the last.
      tokens: question and answer, side by side.

    Example:
      >>> weights = np.array([[[1, 0, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25]]])
      >>> found = reading("even", weights, np.array([[1, 0, 0, 1]]))   # 1 0, sorted: 0 1
      >>> found.next_letter, found.last_letter, found.other_letters, found.answer
      (0.5, 0.125, 0.25, 0.125)
    """
    length = tokens.shape[1] // 2
    rows = weights[:, length - 1 :].astype(np.float64)
    question, answer = tokens[:, None, :length], tokens[:, length:, None]
    of_question = rows[:, :, :length]
    is_next = question == answer
    is_last = np.zeros_like(is_next)
    is_last[:, 1:] = (question == answer[:, :-1]) & ~is_next[:, 1:]

    def share(chosen: Bool[np.ndarray, "B T S"]) -> float:
        return float((of_question * chosen).sum(axis=2).mean())

    logs = np.log2(rows, where=rows > 0, out=np.zeros_like(rows))
    return HeadReading(
        name,
        entropy=float(-(rows * logs).sum(axis=2).mean()),
        next_letter=share(is_next),
        last_letter=share(is_last),
        other_letters=share(~is_next & ~is_last),
        answer=float(rows[:, :, length:].sum(axis=2).mean()),
    )


def readings(model: GPT, tokens: Int[np.ndarray, "B S"]) -> list[HeadReading]:
    """What each head reads, and last one that reads all tokens up to its own alike.

    Args:
      model: as `head_weights`.
      tokens: questions and answers, side by side.
    """
    of_all = jax.jit(jax.vmap(lambda row: head_weights(model, row)))(tokens[:, :-1])
    weights = np.asarray(of_all)
    rows = np.tril(np.ones(weights.shape[3:]))
    even = np.broadcast_to(rows / rows.sum(axis=1, keepdims=True), (len(tokens), *rows.shape))
    by_head = [*weights.reshape(len(tokens), -1, *rows.shape).swapaxes(0, 1), even]
    names = [*head_names(model), "all alike"]
    return [reading(*named, tokens) for named in zip(names, by_head, strict=True)]
