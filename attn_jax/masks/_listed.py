"""Masks that look queries and keys up: in the documents of a packed sequence, or in an array."""

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
        """From the bounds of the ids in a tile: exact where ids never fall along a row."""
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
    """A query may read the keys of its own document, where several were packed into one sequence.

    Krell et al., "Efficient Sequence Packing without Cross-contamination" (2021), section 3.2,
    https://arxiv.org/abs/2107.02027.

      query_ids[query_row] == key_ids[key_row] >= 0

    Args:
      query_ids: the document of each query. A negative one is padding: it reads nothing, and is
        read by nobody. A row past the end is padding, too.
      key_ids: the document of each key; None where queries and keys are one sequence.

    Returns:
      The mask. It goes by the rows of the call, whatever their positions, which may restart in each
      document; a call with a part of the rows says which, by `query_row` and `key_row` of `attend`.

    Raises:
      TypeError: ids are not integers.
      ValueError: ids have no axis of rows, or one is beyond int32.

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
            raise ValueError(f"{name} must have one entry a row; got a scalar")
    query_ids, key_ids = to_int32("query_ids", query_ids), to_int32("key_ids", key_ids)
    return _Segments(Table(query_ids, "query"), Table(key_ids, "key"))


def from_array(mask: Bool[Array | np.ndarray, "... P Q"]) -> Mask:
    """A rule that is written out: who may read whom, by row.

    The mask array of Vaswani et al., "Attention Is All You Need" (2017), section 3.2.3,
    https://arxiv.org/abs/1706.03762, made to compose with rules. It goes by the rows of the whole
    sequence: a call with a part of them says which, by `query_row` and `key_row` of `attend`, and
    so a step of a decoder finds its row. An array given to `attend` itself is that of the call.

      mask[query_row, key_row]

    Args:
      mask: True where a query may read a key. An axis of size 1 is shared by all rows.

    Returns:
      The mask; a row past the end of the array may not read or be read.

    Raises:
      TypeError: the array is not boolean.
      ValueError: the array has fewer than two axes.

    Cost:
      O(1) for one pair of positions; all pairs are looked at to find out which tiles are empty.

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
            f"mask[None, :] for one row that all queries share"
        )
    return _FromArray(Table(jnp.asarray(mask), "pair"))


def _least_real(ids: Int[Array, "... L"]) -> Int[Array, "..."]:
    """The least id that is not padding; the greatest integer where all is padding."""
    return jnp.where(ids >= 0, ids, jnp.iinfo(ids.dtype).max).min(-1)
