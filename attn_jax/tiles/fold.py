"""Visits the tiles of a T×S problem that a mask leaves, one row of tiles after another.

Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867, made softmax such a walk, Rabe &
Staats (2021), https://arxiv.org/abs/2112.05682, in linear memory, Dao et al. (2022),
https://arxiv.org/abs/2205.14135, forward and backward. What is carried along is the caller's.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax import _tables
from attn_jax._grid import Grid, TileShape
from attn_jax.block_mask import TileLists, classify
from attn_jax.masks import evaluate

type Readable = Bool[Array, "t s"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides which pairs are read: a mask, its tables in the order of the call.

    Positions are [T] and [S] (and no types here: JAX maps trees to trees of shapes or of None).
    """

    mask: Any
    query_position: Any
    key_position: Any
    lists: TileLists | None = None


class Place(NamedTuple):
    """Row and column of a tile in the grid of tiles."""

    row: Int[Array, ""]
    column: Int[Array, ""]


type Step = Callable[[Any, Any, Place, Any, Readable], tuple[Any, Any]]


def fold(
    step: Step, plan: Plan, operands: Any, row: Any, whole: Any, shape: TileShape
) -> tuple[Any, Any]:
    """`row, whole = step(row, whole, place, tile, readable)` on every tile that is not empty.

    `row` starts afresh in each row of tiles, `whole` goes on. Tables among the operands come cut to
    the tile, all else as it is. `readable` is None where every pair of the tile may be read.
    Returns what each row of tiles ended with, put together to [T …], and the last `whole`.
    """
    T, S = plan.query_position.size, plan.key_position.size
    if T == 0 or S == 0:
        return jax.tree.map(lambda x: jnp.repeat(x[:1], T, axis=0), row), whole
    grid = Grid.of(plan.query_position, plan.key_position, shape)
    lists = classify(plan.mask, grid) if plan.lists is None else plan.lists
    has_partial_tiles = plan.mask is not None or not grid.is_even
    tables = _fill_up((plan.mask, operands), grid)

    def visit(i, n, carry, *, is_full):
        place = Place(i, lists.order[i, n])
        mask, tile = cut(tables, place, shape)
        readable = None if is_full else _readable(mask, grid, place)
        row, whole = carry
        return step(row, whole, place, tile, readable)

    def visit_row(whole, i):
        full, partial = lists.full[i], lists.partial[i]
        carry = jax.lax.fori_loop(0, full, lambda n, c: visit(i, n, c, is_full=True), (row, whole))
        if has_partial_tiles:
            carry = jax.lax.fori_loop(
                full, full + partial, lambda n, c: visit(i, n, c, is_full=False), carry
            )
        done, whole = carry
        return whole, done

    rows = jnp.arange(grid.tiles[0], dtype=jnp.int32)
    whole, done = jax.lax.scan(visit_row, whole, rows)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:T], done), whole


def cut(operands: Any, place: Place, shape: TileShape) -> Any:
    """A tree with every table cut to the part that belongs to one tile."""

    def part(node):
        if not _tables.is_table(node):
            return node
        values = node.values
        for axis, side in tiled_axes(node):
            size = shape[side]
            values = jax.lax.dynamic_slice_in_dim(values, place[side] * size, size, axis)
        return dataclasses.replace(node, values=values)

    return jax.tree.map(part, operands, is_leaf=_tables.is_table)


def add_at(total: Any, contribution: Any, place: Place, shape: TileShape) -> Any:
    """Adds a tile's part where `cut` would find it; what is no table is added as a whole."""

    def add(node, more):
        if not _tables.is_table(node):
            return node + more
        start = [jnp.int32(0)] * node.values.ndim
        for axis, side in tiled_axes(node):
            start[axis] = place[side] * shape[side]
        old = jax.lax.dynamic_slice(node.values, start, more.values.shape)
        new = jax.lax.dynamic_update_slice(node.values, old + more.values, start)
        return dataclasses.replace(node, values=new)

    return jax.tree.map(add, total, contribution, is_leaf=_tables.is_table)


def tiled_axes(table: _tables.Table) -> list[tuple[int, int]]:
    """The axes of a table that tiles cut, each with its side: 0 for queries, 1 for keys."""
    if table.over == "pair":
        return [(axis, axis) for axis in (0, 1) if table.values.shape[axis] > 1]
    return [(0, 0 if table.over == "query" else 1)]


def _fill_up(operands: Any, grid: Grid) -> Any:
    """Tables padded with zeros to whole tiles."""
    full = grid.query_position.size, grid.key_position.size

    def pad(node):
        if not _tables.is_table(node):
            return node
        widths = [(0, 0)] * node.values.ndim
        for axis, side in tiled_axes(node):
            widths[axis] = (0, full[side] - node.values.shape[axis])
        return dataclasses.replace(node, values=jnp.pad(node.values, widths))

    return jax.tree.map(pad, operands, is_leaf=_tables.is_table)


def _readable(mask: Any, grid: Grid, place: Place) -> Bool[Array, "t s"]:
    """Who may read whom inside one tile; the padding of the last tiles may not."""
    i, j = grid.query_position[place.row], grid.key_position[place.column]
    readable = jnp.ones(grid.shape, bool) if mask is None else evaluate(mask, i, j)
    if grid.is_even:
        return readable
    t, s = grid.shape
    query_is_real = place.row * t + jnp.arange(t, dtype=jnp.int32) < grid.T
    key_is_real = place.column * s + jnp.arange(s, dtype=jnp.int32) < grid.S
    return readable & query_is_real[:, None] & key_is_real[None, :]
