"""Attention weights of the heads of a GPT, computed from its parameters, and their statistics."""

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
    """The attention weights of every layer's heads on one sequence.

    Args:
      model: with learned positions and causal attention.
      tokens: ids.

    Returns:
      The weights; row t of a head has the weights of query t over the tokens.

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
class HeadStatistics:
    """Statistics of one head's weights, means over output positions and inputs.

    Attributes:
      name: of the head.
      entropy: of the weights in bits; 2^entropy is the effective number of tokens attended to.
      next_letter: share of the weight on letters of the question equal to the next output.
      last_letter: on letters equal to the last output, where that differs from the next.
      other_letters: on the rest of the question.
      answer: on the answer so far.
    """

    name: str
    entropy: float
    next_letter: float
    last_letter: float
    other_letters: float
    answer: float


def head_statistics(
    name: str, weights: Float[np.ndarray, "B T T"], tokens: Int[np.ndarray, "B S"]
) -> HeadStatistics:
    """The statistics of one head on questions with their answers.

    Args:
      name: of the head.
      weights: of the head, on all tokens but the last.
      tokens: the question, then the answer of the same length.

    Example:
      >>> weights = np.array([[[1, 0, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25]]])
      >>> found = head_statistics("even", weights, np.array([[1, 0, 0, 1]]))   # 1 0, sorted: 0 1
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
    return HeadStatistics(
        name,
        entropy=float(-(rows * logs).sum(axis=2).mean()),
        next_letter=share(is_next),
        last_letter=share(is_last),
        other_letters=share(~is_next & ~is_last),
        answer=float(rows[:, :, length:].sum(axis=2).mean()),
    )


def all_head_statistics(model: GPT, tokens: Int[np.ndarray, "B S"]) -> list[HeadStatistics]:
    """The statistics of each head, and last those of uniform weights over the tokens so far.

    Args:
      model: as `head_weights`.
      tokens: the question, then the answer, of each input.
    """
    of_all = jax.jit(jax.vmap(lambda row: head_weights(model, row)))(tokens[:, :-1])
    weights = np.asarray(of_all)
    rows = np.tril(np.ones(weights.shape[3:]))
    even = np.broadcast_to(rows / rows.sum(axis=1, keepdims=True), (len(tokens), *rows.shape))
    by_head = [*weights.reshape(len(tokens), -1, *rows.shape).swapaxes(0, 1), even]
    names = [*head_names(model), "uniform"]
    return [head_statistics(*named, tokens) for named in zip(names, by_head, strict=True)]
