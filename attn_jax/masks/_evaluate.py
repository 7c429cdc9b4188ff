"""Evaluates a mask for many positions: as a boolean array, or as a drawing in text."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base import tables
from attn_jax._base.grid import rows_of

type Position = Int[Array, ""]
"""The position of one query or one key in its sequence."""

type MaskFunction = Callable[[Position, Position], Bool[Array, ""]]
"""A function of a query position and a key position; True means that the query may attend."""


def evaluate(
    mask: MaskFunction,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
    *,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
) -> Bool[Array, "T S"]:
    """Evaluates a mask for each pair of a query and a key.

    This is the dense form of a mask function in FlexAttention (https://arxiv.org/abs/2412.05496,
    section 3).

      out[t, s] = mask(query_position[t], key_position[s])

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      query_position: the position of each query in its sequence.
      key_position: the position of each key in its sequence.
      query_row: the index of each query in the whole sequence, which `segments` and `from_array`
        use to look it up; by default 0, 1, 2, …
      key_row: the index of each key in the whole sequence; by default 0, 1, 2, …

    Returns:
      True where the query may attend to the key.

    Raises:
      ValueError: the lengths of rows and positions differ; or no rows are given, and the mask looks
        up an array of another size.

    Cost:
      O(T S) time and memory: for inspection, not for long sequences.

    Example:
      >>> evaluate = attn_jax.masks.evaluate
      >>> evaluate(attn_jax.masks.causal(), jnp.array([5]), jnp.arange(4, 8)).tolist()
      [[True, True, False, False]]
    """
    T, S = query_position.size, key_position.size
    if T == 0 or S == 0:
        return jnp.zeros((T, S), bool)
    ordered = tables.order(mask, rows_of(T, S, query_row, key_row))
    return tables.on_pairs(ordered, query_position[:, None], key_position[None, :])


def draw(mask: MaskFunction, query_length: int, key_length: int) -> str:
    """Draws a mask as text, for positions from 0 on: ■ unmasked, · masked.

    As figure 2 of Child et al. (2019), https://arxiv.org/abs/1904.10509, in characters.

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      query_length: how many queries, T.
      key_length: how many keys, S.

    Returns:
      T lines of S characters: one line for each query, one column for each key.

    Cost:
      O(T S).

    Example:
      >>> print(attn_jax.masks.draw(lambda i, j: (i + j) % 2 == 0, 2, 5))
      ■·■·■
      ·■·■·
    """
    i, j = (jnp.arange(n, dtype=jnp.int32) for n in (query_length, key_length))
    return as_text(evaluate(mask, i, j, query_row=i, key_row=j))


def as_text(unmasked: Bool[Array, "T S"]) -> str:
    """Draws a boolean array: one line for each query, one column for each key."""
    return "\n".join("".join("■" if cell else "·" for cell in row) for row in unmasked.tolist())
