"""Masks from arrays: the document ids of a packed sequence, or a boolean array of all pairs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from attn_jax._base import checks
from attn_jax._base.distance import to_int32
from attn_jax._base.grid import Grid, Kinds
from attn_jax._base.tables import Table
from attn_jax.masks._evaluate import Position
from attn_jax.masks._mask import Mask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _Segments(Mask):
    query_ids: Any
    key_ids: Any
    name = "segments"

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        one = self.query_ids(query_position, key_position)
        other = self.key_ids(query_position, key_position)
        return (one == other) & (one >= 0)

    def tile_kinds(self, grid: Grid) -> Kinds:
        """Classifies tiles by their least and greatest ids; exact where ids never decrease."""
        queries, keys = grid.by_query(self.query_ids.values), grid.by_key(self.key_ids.values)
        queries, keys = queries[:, None, :], keys[None, :, :]
        overlap = (_least_real(queries) <= keys.max(-1)) & (_least_real(keys) <= queries.max(-1))
        same = (queries.min(-1) == keys.max(-1)) & (queries.max(-1) == keys.min(-1))
        one_each = (queries.min(-1) == queries.max(-1)) & (queries.min(-1) >= 0)
        every = same & one_each
        return Kinds(jnp.broadcast_to(overlap, grid.tiles), jnp.broadcast_to(every, grid.tiles))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _FromArray(Mask):
    mask: Any
    name = "from_array"

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        return self.mask(query_position, key_position)


def segments(
    query_ids: Int[Array | np.ndarray, "... P"],
    key_ids: Int[Array | np.ndarray, "... Q"] | None = None,
) -> Mask:
    """A query may attend to the keys of its own document, in a sequence of packed documents.

    Krell et al., "Efficient Sequence Packing without Cross-contamination" (2021), section 3.2,
    https://arxiv.org/abs/2107.02027.

      query_ids[query_row] == key_ids[key_row] >= 0

    Args:
      query_ids: the document id of each query. A negative id is padding: all its pairs are masked.
        Rows past the end of the array are padding, too.
      key_ids: the document id of each key; None where queries and keys are one sequence.

    Returns:
      The mask. It looks ids up by row (index in the whole sequence), not by position, so positions
      may restart in each document. A call with a part of the rows passes `query_row` and `key_row`,
      see `attend`.

    Raises:
      TypeError: ids are not integers.
      ValueError: ids are a scalar, or one is beyond int32.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.segments(jnp.array([4, 4, 7, 7, -1])), 5, 5))
      ■■···
      ■■···
      ··■■·
      ··■■·
      ·····
    """
    key_ids = query_ids if key_ids is None else key_ids
    for name, ids in (("query_ids", query_ids), ("key_ids", key_ids)):
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"{name} must be integers; got {ids.dtype}")
        if ids.ndim == 0:
            raise ValueError(f"{name} must have one entry for each row; got a scalar")
    query_ids, key_ids = to_int32("query_ids", query_ids), to_int32("key_ids", key_ids)
    return _Segments(Table(query_ids, "query"), Table(key_ids, "key"))


def from_array(mask: Bool[Array | np.ndarray, "... P Q"]) -> Mask:
    """Turns a boolean array into a mask that composes with other masks.

    The mask array of Vaswani et al., "Attention Is All You Need" (2017), section 3.2.3,
    https://arxiv.org/abs/1706.03762. The array is indexed by row (index in the whole sequence): a
    call with a part of the rows, such as a decode step, passes `query_row` and `key_row`, see
    `attend`. By contrast, an array passed directly as `attend(mask=)` covers the rows of that call.

      mask[query_row, key_row]

    Args:
      mask: True where a query may attend to a key. An axis of size 1 is broadcast.

    Returns:
      The mask; pairs with a row past the end of the array are masked.

    Raises:
      TypeError: the array is not boolean.
      ValueError: the array has fewer than two axes.

    Cost:
      O(1) for one pair of positions; finding the empty tiles evaluates all pairs.

    Example:
      >>> odd = attn_jax.masks.from_array(jnp.array([[False, True, False, True]]))
      >>> print(attn_jax.masks.draw(odd & attn_jax.masks.causal(), 4, 4))
      ····
      ·■··
      ·■··
      ·■·■
    """
    checks.check_boolean("mask", mask, additive="score_mod=attn_jax.score_mods.dense_bias(mask)")
    if mask.ndim < 2:
        raise ValueError(
            f"mask must have an axis of queries and one of keys; got shape {mask.shape}; write "
            f"mask[None, :] to use one row for all queries"
        )
    return _FromArray(Table(jnp.asarray(mask), "pair"))


def _least_real(ids: Int[Array, "... L"]) -> Int[Array, "..."]:
    """Returns the least id that is not padding; the greatest integer if all are padding."""
    return jnp.where(ids >= 0, ids, jnp.iinfo(ids.dtype).max).min(-1)
