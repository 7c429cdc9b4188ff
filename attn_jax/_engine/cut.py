"""The part of a table that belongs to one tile: cut out, added to or replaced."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from attn_jax._base.axes import Axes
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import KINDS, Table, is_table


class Place(NamedTuple):
    """Row and column of a tile in the grid of tiles."""

    row: Int[Array, ""]
    column: Int[Array, ""]

    def first(self, side: int, shape: TileShape) -> Int[Array, ""]:
        """The first query (side 0) or key (side 1) of the tile."""
        return jax.lax.mul(self[side], np.int32(shape[side]))


def cut(
    tables: Any, axes: Any, place: Place, shape: TileShape, kinds: tuple[str, ...] = KINDS
) -> Any:
    """A tree with every table of these kinds cut to the part that belongs to one tile."""

    def part(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values) if node.over in kinds else ():
            first = place.first(side, shape)
            values = jax.lax.dynamic_slice_in_dim(
                values, first, shape[side], axis, allow_negative_indices=False
            )
        return dataclasses.replace(node, values=values)

    return _map_tables(part, tables, axes)


def entry(values: Array, n: Int[Array, ""]) -> Array:
    """`values[n]`, where n is known to be in range."""
    one = jax.lax.dynamic_slice_in_dim(values, n, 1, allow_negative_indices=False)
    return jax.lax.squeeze(one, (0,))


def add_at(totals: Any, shares: Any, axes: Any, place: Place, shape: TileShape) -> Any:
    """Adds the values of a tile to its part of each table, and plain arrays to plain arrays."""
    old = cut(totals, axes, place, shape)
    return put_at(totals, jax.tree.map(jax.lax.add, old, shares), axes, place, shape)


def put_at(totals: Any, parts: Any, axes: Any, place: Place, shape: TileShape) -> Any:
    """Replaces the part that belongs to one tile."""

    def put(node, part, axes):
        if not is_table(node):
            return part
        start = [np.int32(0)] * node.values.ndim
        for axis, side in _tiled_axes(node, axes.values):
            start[axis] = place.first(side, shape)
        values = jax.lax.dynamic_update_slice(
            node.values, part.values, start, allow_negative_indices=False
        )
        return dataclasses.replace(node, values=values)

    return jax.tree.map(put, totals, parts, axes, is_leaf=is_table)


def _tiled_axes(table: Table, axes: Axes) -> list[tuple[int, int]]:
    """The axes of a table that tiles cut, each with its side: 0 for queries, 1 for keys."""
    core = axes.core(table.values.ndim)
    if table.over == "pair":
        return [(core[side], side) for side in (0, 1) if table.values.shape[core[side]] != 1]
    return [(core[0], 0 if table.over == "query" else 1)]


def padded(tables: Any, axes: Any, sizes: tuple[int, int]) -> Any:
    """Tables padded with zeros to so many queries and keys."""

    def pad(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values):
            missing = sizes[side] - values.shape[axis]
            if missing != 0:
                widths = [(0, missing if a == axis else 0) for a in range(values.ndim)]
                values = jnp.pad(values, widths)
        return dataclasses.replace(node, values=values)

    return _map_tables(pad, tables, axes)


def unpadded(tables: Any, axes: Any, sizes: tuple[int, int]) -> Any:
    """Tables cut to so many queries and keys."""

    def unpad(node, axes):
        values = node.values
        for axis, side in _tiled_axes(node, axes.values):
            if values.shape[axis] != sizes[side]:
                values = jax.lax.slice_in_dim(values, 0, sizes[side], axis=axis)
        return dataclasses.replace(node, values=values)

    return _map_tables(unpad, tables, axes)


def _map_tables(function: Callable, tables: Any, axes: Any) -> Any:
    """Applies a function to each table and its axes, and leaves all else as it is."""

    def one(node, axes):
        return function(node, axes) if is_table(node) else node

    return jax.tree.map(one, tables, axes, is_leaf=is_table)
