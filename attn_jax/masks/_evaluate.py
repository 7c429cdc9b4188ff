"""A rule on two positions, written out for many: as a boolean array or as a drawing."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base import tables
from attn_jax._base.grid import rows_of

type Position = Int[Array, ""]
type MaskFunction = Callable[[Position, Position], Bool[Array, ""]]


def evaluate(
    mask: MaskFunction,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
    *,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
) -> Bool[Array, "T S"]:
    """Writes a rule out as a boolean array: one entry for each pair of positions.

    The definition that FlexAttention's dense fallback uses too (https://arxiv.org/abs/2412.05496,
    section 3).

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      query_position: where each query stands in its sequence, in positions.
      key_position: where each key stands, in positions.
      query_row: the number of each query in the whole sequence, by which `segments` and
        `from_array` look it up; from 0 on.
      key_row: the number of each key; from 0 on.

    Returns:
      True where the query may read the key.

    Raises:
      ValueError: rows do not fit positions; or the mask looks them up in an array of another size,
        and none are given.

    Cost:
      O(T S) time and memory: for looking and for the reference backend, not for long sequences.

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


def draw(mask: MaskFunction, T: int, S: int) -> str:
    """Draws a rule for the first T queries and S keys, from position 0 on: ■ may read, · may not.

    The picture of Figure 2 in Child et al. (2019), https://arxiv.org/abs/1904.10509, in characters.

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      T: how many queries, in positions.
      S: how many keys, in positions.

    Returns:
      T lines of S characters: a query a line, a key a column.

    Cost:
      O(T S).

    Example:
      >>> print(attn_jax.masks.draw(lambda i, j: (i + j) % 2 == 0, 2, 5))
      ■·■·■
      ·■·■·
    """
    i, j = (jnp.arange(n, dtype=jnp.int32) for n in (T, S))
    return drawing(evaluate(mask, i, j, query_row=i, key_row=j))


def drawing(readable: Bool[Array, "T S"]) -> str:
    """A query a line, a key a column: ■ may read, · may not."""
    return "\n".join("".join("■" if cell else "·" for cell in row) for row in readable.tolist())
