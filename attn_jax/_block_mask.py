"""Block masks: which tiles of the T×S pairs are fully masked or unmasked, so kernels skip work.

Dong et al., "Flex Attention" (2024), section 4.2, https://arxiv.org/abs/2412.05496.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax import masks
from attn_jax._base import checks, notebook, tables
from attn_jax._base.describe import read_array
from attn_jax._base.grid import Grid, Kinds, TileShape, positions_or_default, rows_of
from attn_jax._base.value import Rule, Value, describe_part

EMPTY, PARTIAL, FULL = (np.int8(kind) for kind in range(3))
MARKS = np.array(["·", "▒", "■"])
DRAWN = 64  # most rows and columns of a drawing
NOT_DRAWN = "Tiles are drawn outside of jit, for one batch example and head."


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TileLists(Value):
    """For each row of tiles, the columns of the tiles to compute: first full, then partial ones.

    A full tile has no masked pair; a partial one may have masked and unmasked pairs. `order` [I J]
    has all columns, the empty tiles last; `full` [I] and `partial` [I] count the tiles of a kind.
    """

    order: Any = dataclasses.field(metadata={"core_rank": 2})
    full: Any = dataclasses.field(metadata={"core_rank": 1})
    partial: Any = dataclasses.field(metadata={"core_rank": 1})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class BlockMask(Rule):
    """A mask with its tile lists: computed once by `block_mask`, used by many layers and steps.

    Dong et al., "Flex Attention" (2024), section 4.2, https://arxiv.org/abs/2412.05496. It is a
    pytree: its arrays can be traced and mapped, its sizes are static. It holds for one mask, one
    length of queries and keys, and their positions.

    Example:
      >>> block = attn_jax.block_mask(attn_jax.masks.causal(), 6, 6, tile=(2, 2))
      >>> block.lists.full.tolist(), block.lists.partial.tolist()   # for each row of tiles
      ([0, 1, 2], [1, 1, 1])
    """

    mask: Any
    lists: Any
    query_position: Any = dataclasses.field(metadata={"core_rank": 1})
    key_position: Any = dataclasses.field(metadata={"core_rank": 1})
    query_row: Any = dataclasses.field(metadata={"core_rank": 1})
    key_row: Any = dataclasses.field(metadata={"core_rank": 1})
    tile: TileShape = dataclasses.field(metadata={"static": True})
    query_length: int = dataclasses.field(metadata={"static": True})
    key_length: int = dataclasses.field(metadata={"static": True})

    no_truth = (
        "a block mask has no truth value: combine masks with &, | and ~ before you call "
        "block_mask, and write `mask is None` to test whether there is one"
    )

    @property
    def sparsity(self) -> Float[Array, "..."]:
        """The fraction of tiles that are empty, and so skipped."""
        I, J = self.lists.order.shape[-2:]
        visited = jnp.sum(self.lists.full + self.lists.partial, axis=-1)
        return 1 - visited.astype(jnp.float32) / (I * J)

    def __repr__(self) -> str:
        t, s = self.tile
        mask = describe_part(self.mask)
        return f"BlockMask({mask}, {self.query_length}, {self.key_length}, tile=({t}, {s}))"

    def __str__(self) -> str:
        """Draws the tiles: ■ full, ▒ partial, · empty; of many tiles, a group as one character."""
        kinds = self._kinds()
        if kinds is None:
            return repr(self)
        drawn, group = _draw(kinds)
        tiles = "" if group == 1 else f"; {group}×{group} tiles a character"
        return "\n".join([f"{self!r}: {np.mean(kinds == EMPTY):.0%} empty{tiles}", *drawn])

    def _repr_html_(self) -> str:
        kinds = self._kinds()
        if kinds is None:
            return notebook.sentence(repr(self), NOT_DRAWN)
        drawn, group = _draw(kinds)
        legend = f"Tiles: ■ full, ▒ partial, · empty; {np.mean(kinds == EMPTY):.0%} are empty"
        more = "" if group == 1 else f"; a character is {group}×{group} tiles, ▒ if they differ"
        return notebook.drawing(repr(self), drawn, legend + more)

    def _kinds(self) -> np.ndarray | None:
        """EMPTY, PARTIAL or FULL for each tile [I J]; None if traced, or of many batch examples."""
        read = [
            read_array(getattr(self.lists, name, None)) for name in ("order", "full", "partial")
        ]
        order, full, partial = read
        if order is None or full is None or partial is None or order.ndim > 2:
            return None
        place, visited = np.arange(order.shape[1]), full + partial
        ranked = np.where(
            place < full[:, None], FULL, np.where(place < visited[:, None], PARTIAL, EMPTY)
        )
        kinds = np.empty_like(ranked)
        np.put_along_axis(kinds, order, ranked, axis=1)
        return kinds


def block_mask(
    mask: masks.MaskFunction,
    query_length: int,
    key_length: int,
    *,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
    tile: tuple[int, int] = (256, 256),
) -> BlockMask:
    """Computes the tile lists of a mask: which tiles of the T×S pairs are full, partial or empty.

    Dong et al., "Flex Attention" (2024), section 4.2, https://arxiv.org/abs/2412.05496. Without it,
    `attend` computes the tile lists in each call; for a mask that is the same in many layers and
    steps, compute them once.

      a tile is empty if all its pairs are masked, full if none is, partial otherwise

    Args:
      mask: a mask of `attn_jax.masks`, or any callable `(query_position, key_position) -> bool` on
        scalars.
      query_length: how many queries, T.
      key_length: how many keys, S.
      query_position: the position of each query in its sequence; by default 0, 1, 2, … if T = S.
      key_position: the position of each key; give both or neither.
      query_row: the index of each query in the whole sequence, see `attend`; by default 0, 1, 2, …
      key_row: the index of each key in the whole sequence; by default 0, 1, 2, …
      tile: how many queries and keys a tile has.

    Returns:
      The mask with its tile lists, for these lengths and positions. `print` draws it.

    Raises:
      ValueError: a size is not an integer >= 1; positions or rows have other lengths; the mask
        compares positions, and only one side's are given, or none and T ≠ S; the mask looks up an
        array of another size, and no rows are given.
      TypeError: the mask is not callable, or does not return a boolean scalar.

    Cost:
      O(T S / (t s)) for tiles of t×s, for masks that classify a tile by its least and greatest
      positions: all of `attn_jax.masks` but `from_array`. O(T S) time and O(t S) memory for others.

    Example:
      >>> rule = attn_jax.masks.causal() & attn_jax.masks.sliding_window(11, 0)
      >>> print(attn_jax.block_mask(rule, 20, 20, tile=(4, 4)))
      BlockMask((causal() & sliding_window(left=11, right=0)), 20, 20, tile=(4, 4)): 44% empty
      ▒····
      ■▒···
      ■■▒··
      ▒■■▒·
      ·▒■■▒
    """
    T, S = query_length, key_length
    sizes = {"query_length": T, "key_length": S, "tile[0]": tile[0], "tile[1]": tile[1]}
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be an int >= 1; got {size!r}")
    if masks.is_aligned(mask):
        checks.check_aligned("mask", query_position, key_position, T, S)
    rows = rows_of(T, S, query_row, key_row)
    i = positions_or_default("query_position", query_position, T)
    j = positions_or_default("key_position", key_position, S)
    ordered = tables.order(masks.as_pytree(mask), rows)
    return _build(ordered, i, j, rows.query_row, rows.key_row, shape=TileShape(*tile))


def lists_of_mask(mask: Any, grid: Grid) -> TileLists:
    """Returns the tile lists of a mask whose arrays are in the order of the call; None: no mask."""
    return tile_lists(*without_padded(classify(mask, grid), grid))


def tile_lists(some: Bool[Array, "I J"], every: Bool[Array, "I J"]) -> TileLists:
    """Makes tile lists from two flags for each tile: some pair, or every pair, is unmasked."""
    rank = jnp.where(every, 0, jnp.where(some, 1, 2))
    order = jnp.argsort(rank, axis=1, stable=True).astype(jnp.int32)
    full, partial = (jnp.sum(rank == kind, axis=1, dtype=jnp.int32) for kind in (0, 1))
    return TileLists(order, full, partial)


def kinds_of_lists(lists: TileLists) -> Kinds:
    """Returns the tile kinds of tile lists: the inverse of `tile_lists`."""
    place = jnp.argsort(lists.order, axis=1)
    visited = lists.full + lists.partial
    return Kinds(*(place < counts[:, None] for counts in (visited, lists.full)))


def classify(mask: Any, grid: Grid) -> Kinds:
    """Classifies tiles: by the mask's `tile_kinds` if it has one, otherwise by evaluating pairs."""
    if mask is None:
        everything = jnp.ones(grid.tiles, bool)
        return Kinds(everything, everything)
    return mask.tile_kinds(grid) if isinstance(mask, masks.Mask) else grid.evaluate(mask)


def without_padded(kinds: Kinds, grid: Grid) -> Kinds:
    """Marks tiles with padding as not full, because the padding is masked."""
    return kinds if grid.is_even else kinds._replace(every=kinds.every & _whole(grid))


@functools.partial(jax.jit, static_argnames="shape")
def _build(
    mask: Any,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
    query_row: Int[Array, " T"] | None,
    key_row: Int[Array, " S"] | None,
    *,
    shape: TileShape,
) -> BlockMask:
    lists = lists_of_mask(mask, Grid.of(query_position, key_position, shape))
    T, S = query_position.size, key_position.size
    return BlockMask(mask, lists, query_position, key_position, query_row, key_row, shape, T, S)


def _draw(kinds: np.ndarray) -> tuple[list[str], int]:
    """The lines of a drawing, and the number of tiles along each side of a character."""
    group = -(-max(kinds.shape) // DRAWN)
    starts = [np.arange(0, size, group) for size in kinds.shape]

    def pooled(function: np.ufunc) -> np.ndarray:
        rows = function.reduceat(kinds, starts[0], axis=0)
        return function.reduceat(rows, starts[1], axis=1)

    least, greatest = pooled(np.minimum), pooled(np.maximum)
    marks = MARKS[np.where(least == greatest, least, PARTIAL)]
    return ["".join(line) for line in marks], group


def _whole(grid: Grid):
    """Returns True for each tile without padding."""
    (rows, columns), (t, s) = grid.tiles, grid.shape
    return ((jnp.arange(rows) + 1) * t <= grid.T)[:, None] & (
        (jnp.arange(columns) + 1) * s <= grid.S
    )[None, :]
