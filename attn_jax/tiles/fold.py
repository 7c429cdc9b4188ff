"""Visits the tiles of a T×S problem that a mask leaves, one row of tiles after another.

Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867, made softmax such a walk, Rabe &
Staats (2021), https://arxiv.org/abs/2112.05682, in linear memory, Dao et al. (2022),
https://arxiv.org/abs/2205.14135, forward and backward. What is carried along is the caller's.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from attn_jax import _tables
from attn_jax._axes import Axes, Layout, fit, in_front, map_levels, unmapped
from attn_jax._grid import Grid, TileShape
from attn_jax._sharding import vary_alike
from attn_jax.block_mask import TileLists, classify
from attn_jax.masks import evaluate

type Readable = Bool[Array, "t s"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides which pairs are read: a mask, its tables in the order of the call.

    Positions are [T] and [S] (and no types here: JAX maps trees to trees of shapes or of None).
    `is_wide` says that a pair takes a vector on its way to a number, as additive scores do, so that
    tiles must be small.
    """

    mask: Any
    query_position: Any
    key_position: Any
    lists: TileLists | None = None
    is_wide: bool = dataclasses.field(default=False, metadata={"static": True})


class Place(NamedTuple):
    """Row and column of a tile in the grid of tiles."""

    row: Int[Array, ""]
    column: Int[Array, ""]


class Walk(NamedTuple):
    """What one head does on its way: functions of one tile.

    `step(row, tile, readable)` gives the next `row` and the tile's share of tables over keys or
    pairs and of whole arrays, which are summed; `readable` is None where every pair of the tile may
    be read. `row` begins as `start` in each row of tiles, and `finish(row)` gives its part of
    tables over queries.
    """

    start: Any
    step: Callable[[Any, Any, Readable], tuple[Any, Any]]
    finish: Callable[[Any], Any]


def fold(
    walk: Walk, plan: Plan, operands: Any, results: Any, layout: Layout, shape: TileShape
) -> Any:
    """Walks over every tile that is not empty and returns (tables over queries, sums).

    Tables among the operands come cut to the tile, all else as it is. `results` are the shapes of
    what one head returns; `layout` tells where operands and results have their mapped axes.
    """
    T, S = plan.query_position.size, plan.key_position.size
    if T == 0 or S == 0:
        return _zeros(results, layout)
    plan, operands, start, empty = vary_alike((plan, operands, walk.start, _zeros(results, layout)))
    if shape == (T, S):
        return _one_tile(walk, plan, operands, start, layout)
    ground = _Ground.of(plan, shape)
    by_key = _to_front("key", layout.inputs, operands)
    operands = _filled_up(fit(operands, layout.inputs, by_key), by_key, ground.full)
    in_order = _to_front("query", by_key, operands)
    row_axes = jax.tree.map(lambda _: in_front(len(layout.sizes)), walk.start)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (*layout.sizes[::-1], *x.shape)), start)
    row_outputs, sum_axes = layout.outputs

    def visit(operands, place, is_full, carry):
        row, sums = carry
        readable = ground.readable(place, is_full)
        step = map_levels(
            lambda row, tile: walk.step(row, tile, readable),
            (row_axes, in_order),
            (row_axes, sum_axes),
        )
        row, shares = step(row, cut(operands, in_order, place, shape, ("key", "pair")))
        return row, _add_at(sums, shares, sum_axes, place, shape)

    def visit_row(i, carry):
        rows, sums = carry
        first = Place(i, jnp.int32(0))
        here = fit(cut(operands, by_key, first, shape, ("query",)), by_key, in_order)
        row, sums = ground.walk(i, functools.partial(visit, here), (start, sums))
        done = map_levels(walk.finish, (row_axes,), row_outputs)(row)
        return _put_at(rows, done, row_outputs, first, shape), sums

    empty = _filled_up(empty, layout.outputs, ground.full)
    rows = jnp.int32(ground.grid.tiles[0])
    done = jax.lax.fori_loop(jnp.int32(0), rows, visit_row, empty)
    return _cut_down(done, layout.outputs, (T, S))


def _one_tile(walk: Walk, plan: Plan, operands: Any, start: Any, layout: Layout) -> Any:
    """`fold` where one tile is all that there is, which needs no loop."""
    readable = None
    if plan.mask is not None:
        readable = evaluate(plan.mask, plan.query_position, plan.key_position)

    def visit(operands):
        row, shares = walk.step(start, operands, readable)
        return walk.finish(row), shares

    return map_levels(visit, (layout.inputs,), layout.outputs)(operands)


@dataclasses.dataclass(frozen=True)
class _Ground:
    """The tiles that there are, and who may read whom in each."""

    grid: Grid
    mask: Any
    lists: TileLists

    @classmethod
    def of(cls, plan: Plan, shape: TileShape) -> "_Ground":
        grid = Grid.of(plan.query_position, plan.key_position, shape)
        full = grid.query_position.size, grid.key_position.size
        lists = classify(plan.mask, grid) if plan.lists is None else plan.lists
        return cls(grid, _filled_up(plan.mask, unmapped(plan.mask), full), lists)

    @property
    def full(self) -> tuple[int, int]:
        """T and S filled up to whole tiles."""
        return self.grid.query_position.size, self.grid.key_position.size

    def walk(self, i: Int[Array, ""], visit: Callable, carry: Any) -> Any:
        """`carry = visit(place, is_full, carry)` along one row: full tiles, then partial ones."""
        columns, full, partial = (_entry(of, i) for of in jax.tree.leaves(self.lists))

        def at(is_full):
            return lambda n, carry: visit(Place(i, _entry(columns, n)), is_full, carry)

        carry = jax.lax.fori_loop(0, full, at(True), carry)
        if self.mask is None and self.grid.is_even:
            return carry
        return jax.lax.fori_loop(full, full + partial, at(False), carry)

    def readable(self, place: Place, is_full: bool) -> Readable:
        """None for a full tile; the padding of the last tiles may not be read."""
        if is_full:
            return None
        grid, (t, s) = self.grid, self.grid.shape
        mask = cut(self.mask, unmapped(self.mask), place, grid.shape)
        i, j = _entry(grid.query_position, place.row), _entry(grid.key_position, place.column)
        readable = jnp.ones(grid.shape, bool) if mask is None else evaluate(mask, i, j)
        if grid.is_even:
            return readable
        query_is_real = place.row * t + jnp.arange(t, dtype=jnp.int32) < grid.T
        key_is_real = place.column * s + jnp.arange(s, dtype=jnp.int32) < grid.S
        return readable & query_is_real[:, None] & key_is_real[None, :]


def cut(
    tables: Any, axes: Any, place: Place, shape: TileShape, kinds: tuple[str, ...] = _tables.KINDS
) -> Any:
    """A tree with every table of these kinds cut to the part that belongs to one tile."""

    def part(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values) if node.over in kinds else ():
            size = shape[side]
            values = jax.lax.dynamic_slice_in_dim(
                values, place[side] * size, size, axis, allow_negative_indices=False
            )
        return dataclasses.replace(node, values=values)

    return _map_tables(part, tables, axes)


def _entry(values: Array, n: Int[Array, ""]) -> Array:
    """`values[n]`, where n is known to be in range."""
    return jax.lax.dynamic_index_in_dim(values, n, keepdims=False, allow_negative_indices=False)


def _to_front(kind: str, axes: Any, tables: Any) -> Any:
    """Axes of tables of one kind with the mapped ones in front, where products want them."""

    def front(node, axes):
        is_kind = _tables.is_table(node) and node.over == kind
        return dataclasses.replace(axes, values=axes.values.in_front()) if is_kind else axes

    return jax.tree.map(front, tables, axes, is_leaf=_tables.is_table)


def _add_at(totals: Any, shares: Any, axes: Any, place: Place, shape: TileShape) -> Any:
    """Adds a tile's share where `cut` would find it; what is no table is added as a whole."""
    old = cut(totals, axes, place, shape)
    return _put_at(totals, jax.tree.map(jnp.add, old, shares), axes, place, shape)


def _put_at(totals: Any, parts: Any, axes: Any, place: Place, shape: TileShape) -> Any:
    """Replaces what belongs to one tile."""

    def put(node, part, axes):
        if not _tables.is_table(node):
            return part
        start = [np.int32(0)] * node.values.ndim
        for axis, side in _tiled_axes(node, axes.values):
            start[axis] = place[side] * shape[side]
        values = jax.lax.dynamic_update_slice(
            node.values, part.values, start, allow_negative_indices=False
        )
        return dataclasses.replace(node, values=values)

    return jax.tree.map(put, totals, parts, axes, is_leaf=_tables.is_table)


def _tiled_axes(table: _tables.Table, axes: Axes) -> list[tuple[int, int]]:
    """The axes of a table that tiles cut, each with its side: 0 for queries, 1 for keys."""
    core = axes.core(table.values.ndim)
    if table.over == "pair":
        return [(core[side], side) for side in (0, 1) if table.values.shape[core[side]] != 1]
    return [(core[0], 0 if table.over == "query" else 1)]


def _filled_up(tables: Any, axes: Any, sizes: tuple[int, int]) -> Any:
    """Tables filled up with zeros to so many queries and keys."""

    def fill_up(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values):
            missing = sizes[side] - values.shape[axis]
            if missing != 0:
                widths = [(0, missing if a == axis else 0) for a in range(values.ndim)]
                values = jnp.pad(values, widths)
        return dataclasses.replace(node, values=values)

    return _map_tables(fill_up, tables, axes)


def _cut_down(tables: Any, axes: Any, sizes: tuple[int, int]) -> Any:
    """Tables cut to so many queries and keys."""

    def cut_down(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values):
            if values.shape[axis] != sizes[side]:
                values = jax.lax.slice_in_dim(values, 0, sizes[side], axis=axis)
        return dataclasses.replace(node, values=values)

    return _map_tables(cut_down, tables, axes)


def _zeros(results: Any, layout: Layout) -> Any:
    def zeros(leaf, axes):
        return jnp.zeros(axes.full_shape(leaf.shape, layout.sizes), leaf.dtype)

    return jax.tree.map(zeros, results, layout.outputs)


def _map_tables(function: Callable, tables: Any, axes: Any) -> Any:
    """Applies a function to each table and its axes, and leaves all else as it is."""

    def one(node, axes):
        return function(node, axes) if _tables.is_table(node) else node

    return jax.tree.map(one, tables, axes, is_leaf=_tables.is_table)
