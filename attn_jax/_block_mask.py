"""Which tiles of a T×S problem a mask leaves empty and which full: what a kernel may skip.

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
from attn_jax._base import checks, tables
from attn_jax._base.grid import Grid, Kinds, TileShape, positions_or_default, rows_of
from attn_jax._base.value import Rule, Value
from attn_jax.masks._describe import describe_part


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TileLists(Value):
    """For each row of tiles the columns to visit: the full ones first, then the partial ones.

    `order` [I J] has all columns, `full` [I] and `partial` [I] tell how many of either kind.
    """

    order: Any = dataclasses.field(metadata={"core_rank": 2})
    full: Any = dataclasses.field(metadata={"core_rank": 1})
    partial: Any = dataclasses.field(metadata={"core_rank": 1})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class BlockMask(Rule):
    """A mask with the tiles that it leaves, found once and used by many layers and steps.

    Dong et al., "Flex Attention" (2024), section 4.2, https://arxiv.org/abs/2412.05496. It comes
    from `block_mask`, and is a pytree: its arrays can be traced and mapped, its sizes are static.

    Example:
      >>> block = attn_jax.block_mask(attn_jax.masks.causal(), 6, 6, tile=(2, 2))
      >>> block.lists.full.tolist(), block.lists.partial.tolist()   # in each row of tiles
      ([0, 1, 2], [1, 1, 1])
    """

    mask: Any
    lists: Any
    query_position: Any = dataclasses.field(metadata={"core_rank": 1})
    key_position: Any = dataclasses.field(metadata={"core_rank": 1})
    query_row: Any = dataclasses.field(metadata={"core_rank": 1})
    key_row: Any = dataclasses.field(metadata={"core_rank": 1})
    tile: TileShape = dataclasses.field(metadata={"static": True})
    T: int = dataclasses.field(metadata={"static": True})
    S: int = dataclasses.field(metadata={"static": True})

    no_truth = (
        "a block mask has no truth value: combine rules with &, | and ~ before block_mask is "
        "called, and write `mask is None` to ask whether there is one"
    )

    @property
    def sparsity(self) -> Float[Array, "..."]:
        """The fraction of tiles that are empty, and cost nothing."""
        I, J = self.lists.order.shape[-2:]
        visited = jnp.sum(self.lists.full + self.lists.partial, axis=-1)
        return 1 - visited.astype(jnp.float32) / (I * J)

    def __repr__(self) -> str:
        t, s = self.tile
        mask = describe_part(self.mask, masks.Mask)
        return f"BlockMask({mask}, T={self.T}, S={self.S}, tile=({t}, {s}))"

    def __str__(self) -> str:
        """Draws the tiles: ■ full, ▒ partial, · empty."""
        order = self.lists.order
        if isinstance(order, jax.core.Tracer) or order.ndim > 2:
            return repr(self)
        lines = [f"{self!r}: {float(self.sparsity):.0%} empty"]
        for columns, full, partial in zip(*map(np.asarray, self._lists()), strict=True):
            line = np.full(columns.shape, "·")
            line[columns[:full]] = "■"
            line[columns[full : full + partial]] = "▒"
            lines.append("".join(line))
        return "\n".join(lines)

    def _lists(self) -> tuple[Array, Array, Array]:
        return self.lists.order, self.lists.full, self.lists.partial


def block_mask(
    mask: masks.MaskFunction,
    T: int,
    S: int,
    *,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
    tile: tuple[int, int] = (256, 256),
) -> BlockMask:
    """Finds out which tiles of T queries and S keys a mask leaves empty, and which full.

    Dong et al., "Flex Attention" (2024), section 4.2, https://arxiv.org/abs/2412.05496. `attend`
    does so in each call; a mask that stays the same over layers and steps can be looked at once.

      tile (I, J) is empty where no pair of it may be read, full where every pair may

    Args:
      mask: a mask of `attn_jax.masks`, or any callable `(query_position, key_position) -> bool` on
        scalars.
      T: how many queries.
      S: how many keys.
      query_position: where each query stands in its sequence; from 0 on where T = S.
      key_position: where each key stands; given where `query_position` is.
      query_row: the number of each query in the whole sequence, see `attend`; from 0 on.
      key_row: the number of each key; from 0 on.
      tile: how many queries and keys a tile has.

    Returns:
      The mask for these positions with its lists of tiles. `print` draws it.

    Raises:
      ValueError: a size is not an integer >= 1; positions or rows do not fit T or S; the mask
        compares positions, and one side's are given alone, or none and T ≠ S; it looks rows up in
        an array of another size, and none are given.
      TypeError: the mask is no callable, or does not return a boolean scalar.

    Cost:
      O(T S / (t s)) for tiles of t×s where the mask answers from bounds of positions: all rules of
      `attn_jax.masks` but `from_array`. O(T S) time and O(t S) memory for any other callable.

    Example:
      >>> rule = attn_jax.masks.causal() & attn_jax.masks.sliding_window(11, 0)
      >>> print(attn_jax.block_mask(rule, 20, 20, tile=(4, 4)))
      BlockMask((causal() & sliding_window(left=11, right=0)), T=20, S=20, tile=(4, 4)): 44% empty
      ▒····
      ■▒···
      ■■▒··
      ▒■■▒·
      ·▒■■▒
    """
    sizes = {"T": T, "S": S, "tile[0]": tile[0], "tile[1]": tile[1]}
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


def classify(mask: Any, grid: Grid) -> TileLists:
    """Lists the tiles that a mask (in the order of the call; None for all pairs) leaves."""
    return listed(*only_whole(kinds(mask, grid), grid))


def listed(some: Bool[Array, "I J"], every: Bool[Array, "I J"]) -> TileLists:
    """Lists of the tiles of which some pair, or every pair, may be read."""
    rank = jnp.where(every, 0, jnp.where(some, 1, 2))
    order = jnp.argsort(rank, axis=1, stable=True).astype(jnp.int32)
    full, partial = (jnp.sum(rank == kind, axis=1, dtype=jnp.int32) for kind in (0, 1))
    return TileLists(order, full, partial)


def kinds_listed(lists: TileLists) -> Kinds:
    """The kinds of tiles from which such lists are made."""
    place = jnp.argsort(lists.order, axis=1)
    visited = lists.full + lists.partial
    return Kinds(*(place < counts[:, None] for counts in (visited, lists.full)))


def kinds(mask: Any, grid: Grid) -> Kinds:
    """By arithmetic on bounds of positions where the mask knows how, else by looking."""
    if mask is None:
        everything = jnp.ones(grid.tiles, bool)
        return Kinds(everything, everything)
    return mask.tile_kinds(grid) if isinstance(mask, masks.Mask) else grid.evaluate(mask)


def only_whole(kinds: Kinds, grid: Grid) -> Kinds:
    """A tile that is filled up is not full: its filling may not be read."""
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
    lists = classify(mask, Grid.of(query_position, key_position, shape))
    T, S = query_position.size, key_position.size
    return BlockMask(mask, lists, query_position, key_position, query_row, key_row, shape, T, S)


def _whole(grid: Grid):
    """Which tiles have no padding."""
    (rows, columns), (t, s) = grid.tiles, grid.shape
    return ((jnp.arange(rows) + 1) * t <= grid.T)[:, None] & (
        (jnp.arange(columns) + 1) * s <= grid.S
    )[None, :]
