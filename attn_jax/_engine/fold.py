"""A loop over the tiles of T×S pairs that a mask leaves, one row of tiles after another.

Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867, compute softmax by such a loop, Rabe
& Staats (2021), https://arxiv.org/abs/2112.05682, attention in linear memory, Dao et al. (2022),
https://arxiv.org/abs/2205.14135, its gradient too. The caller gives the function of one tile.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base.axes import Layout, fit, in_front, level, map_levels
from attn_jax._base.concrete import are_numbers
from attn_jax._base.grid import Grid, Kinds, TileShape
from attn_jax._base.sharding import vary_alike
from attn_jax._base.tables import is_table
from attn_jax._block_mask import TileLists, classify, kinds_of_lists, tile_lists, without_padded
from attn_jax._engine.call import Pairs
from attn_jax._engine.cut import Place, add_at, cut, entry, padded, put_at, unpadded
from attn_jax.masks import evaluate

_FEW_TILES = 16  # compiling one more loop takes as long as running hundreds of tiles

type Unmasked = Bool[Array, "t s"] | None


class Walk(NamedTuple):
    """The start value and the two functions of one head for the loop.

    `step(row, tile, unmasked)` returns the next `row`, and what the tile adds to tables over keys
    or pairs and to whole arrays. `unmasked` is None where every pair of the tile is unmasked. `row`
    is `start` at the beginning of each row of tiles, and `finish(row)` returns its part of tables
    over queries.
    """

    start: Any
    step: Callable[[Any, Any, Unmasked], tuple[Any, Any]]
    finish: Callable[[Any], Any]


def fold(
    walk: Walk, pairs: Pairs, operands: Any, results: Any, layout: Layout, shape: TileShape
) -> Any:
    """Visits every tile that is not empty and returns (rows, sums).

    Rows are tables over queries, made by `finish`. Sums are tables over keys or pairs and whole
    arrays, added over all tiles: dk and dv in the backward pass. `step` receives the operands with
    their tables cut to the tile. `results` has the shapes of rows and sums for one head, `layout`
    the mapped axes of pairs, operands and results, and `shape` the size of a tile.
    """
    pair_axes, axes = layout.inputs
    T, S = sizes = _sizes(pairs, pair_axes)
    empty = _zeros(results, layout)
    if T == 0 or S == 0:
        return empty
    pairs, operands, start, empty = vary_alike((pairs, operands, walk.start, empty))
    tiles = _Tiles.of(pairs, pair_axes, shape, sizes)
    if shape == sizes:
        return _one_tile(walk, tiles, operands, start, layout)
    by_key = _to_front("key", axes, operands)
    operands = padded(fit(operands, axes, by_key), by_key, tiles.padded_sizes)
    in_order = _to_front("query", by_key, operands)
    row_axes = jax.tree.map(lambda _: in_front(len(layout.sizes)), walk.start)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (*layout.sizes[::-1], *x.shape)), start)
    row_outputs, sum_axes = layout.outputs

    def visit(operands, place, is_full, carry):
        row, sums = carry
        here, own = (None, None) if is_full else tiles.at(place)
        step = map_levels(
            lambda row, tile, pairs: walk.step(row, tile, tiles.unmasked(place, pairs)),
            (row_axes, in_order, own),
            (row_axes, sum_axes),
        )
        tile = cut(operands, in_order, place, shape, ("key", "pair"))
        row, shares = step(row, tile, here)
        return row, add_at(sums, shares, sum_axes, place, shape)

    def visit_row(i, carry):
        rows, sums = carry
        first = Place(i, jnp.int32(0))
        here = fit(cut(operands, by_key, first, shape, ("query",)), by_key, in_order)
        row, sums = tiles.walk(i, functools.partial(visit, here), (start, sums))
        done = map_levels(walk.finish, (row_axes,), row_outputs)(row)
        return put_at(rows, done, row_outputs, first, shape), sums

    empty = padded(empty, layout.outputs, tiles.padded_sizes)
    rows = jnp.int32(tiles.counts[0])
    done = jax.lax.fori_loop(jnp.int32(0), rows, visit_row, empty)
    return unpadded(done, layout.outputs, sizes)


def _one_tile(walk: Walk, tiles: "_Tiles", operands: Any, start: Any, layout: Layout) -> Any:
    """`fold` for a single tile, without a loop."""
    here = Place(jnp.int32(0), jnp.int32(0))

    def visit(operands, pairs):
        row, shares = walk.step(start, operands, tiles.unmasked(here, pairs))
        return walk.finish(row), shares

    inputs = layout.inputs[1], tiles.axes
    return map_levels(visit, inputs, layout.outputs, layout.sizes)(operands, tiles.pairs)


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """The tiles of a call: which are visited, and which of their pairs are unmasked."""

    pairs: Pairs
    axes: Pairs
    lists: Any
    shape: TileShape
    sizes: tuple[int, int]

    @classmethod
    def of(cls, pairs: Pairs, axes: Pairs, shape: TileShape, sizes: tuple[int, int]) -> "_Tiles":
        lists = None if shape == sizes else _lists(pairs, axes, shape)
        pairs, axes = (dataclasses.replace(of, lists=None) for of in (pairs, axes))
        tiles = cls(pairs, axes, lists, shape, sizes)
        return dataclasses.replace(tiles, pairs=padded(pairs, axes, tiles.padded_sizes))

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows and columns of tiles."""
        (T, S), (t, s) = self.sizes, self.shape
        return -(-T // t), -(-S // s)

    @property
    def padded_sizes(self) -> tuple[int, int]:
        """T and S padded to whole tiles."""
        return self.counts[0] * self.shape.queries, self.counts[1] * self.shape.keys

    def walk(self, i: Int[Array, ""], visit: Callable, carry: Any) -> Any:
        """`carry = visit(place, is_full, carry)` along one row: full tiles, then partial ones.

        Where there are few tiles, full ones are visited as partial ones, to compile one loop less.
        """
        columns, full, partial = (entry(of, i) for of in jax.tree.leaves(self.lists))
        visited = jax.lax.add(full, partial)

        def loop(first, last, carry, *, is_full: bool):
            def one(n, carry):
                return visit(Place(i, entry(columns, n)), is_full, carry)

            return jax.lax.fori_loop(first, last, one, carry)

        if self.pairs.mask is None and self.padded_sizes == self.sizes:
            return loop(0, full, carry, is_full=True)
        if are_numbers(*self.counts) and math.prod(self.counts) <= _FEW_TILES:
            return loop(0, visited, carry, is_full=False)
        carry = loop(0, full, carry, is_full=True)
        return loop(full, visited, carry, is_full=False)

    def at(self, place: Place) -> tuple[Pairs, Pairs]:
        """The pairs of one tile, and their axes."""
        return cut(self.pairs, self.axes, place, self.shape), self.axes

    def unmasked(self, place: Place, pairs: Pairs | None) -> Unmasked:
        """Which pairs of a tile are unmasked in one head; None where all are, or `pairs` is None.

        The padding of the last tiles is masked.
        """
        if pairs is None:
            return None
        unmasked = None
        if pairs.mask is not None:
            i, j = pairs.query_position.values, pairs.key_position.values
            unmasked = evaluate(pairs.mask, i, j)
        if self.padded_sizes == self.sizes:
            return unmasked
        (T, S), (t, s) = self.sizes, self.shape
        query_is_real = place.row * t + jnp.arange(t, dtype=jnp.int32) < T
        key_is_real = place.column * s + jnp.arange(s, dtype=jnp.int32) < S
        is_real = query_is_real[:, None] & key_is_real[None, :]
        return is_real if unmasked is None else unmasked & is_real


def _lists(pairs: Pairs, axes: Pairs, shape: TileShape) -> TileLists:
    """One tile list for all heads and batch examples: the tiles that any of them needs.

    With a list for each head, every tile would have to be gathered, and the loop would take as many
    steps as the longest list has tiles.
    """
    is_mapped = any(at is not None for own in jax.tree.leaves(axes.lists) for at in own.at)
    if pairs.lists is not None and not is_mapped:
        return pairs.lists
    return tile_lists(*_kinds_for_all(pairs, axes, shape))


def _kinds_for_all(pairs: Pairs, axes: Pairs, shape: TileShape) -> Kinds:
    """Which tiles some head needs, and which of them are full in every head."""
    for n in range(len(axes.query_position.values.at)):
        if any(own.at[n] is not None for own in jax.tree.leaves(axes)):
            in_axes, inside = level(axes, n)
            of_each = functools.partial(_kinds_for_all, axes=inside, shape=shape)
            some, every = jax.vmap(of_each, in_axes=(in_axes,))(pairs)
            return Kinds(some.any(axis=0), every.all(axis=0))
    return kinds_of_tiles(pairs, shape)


def kinds_of_tiles(pairs: Pairs, shape: TileShape) -> Kinds:
    """Which tiles one head needs, and which of them are full."""
    if pairs.lists is not None:
        return kinds_of_lists(pairs.lists)
    grid = Grid.of(pairs.query_position.values, pairs.key_position.values, shape)
    return without_padded(classify(pairs.mask, grid), grid)


def _to_front(kind: str, axes: Any, tables: Any) -> Any:
    """Axes in which tables of one kind have mapped axes in front, as matmuls need them."""

    def front(node, axes):
        is_kind = is_table(node) and node.over == kind
        return dataclasses.replace(axes, values=axes.values.in_front()) if is_kind else axes

    return jax.tree.map(front, tables, axes, is_leaf=is_table)


def _sizes(pairs: Pairs, axes: Pairs) -> tuple[int, int]:
    """T and S."""
    sides = zip(
        (pairs.query_position, pairs.key_position),
        (axes.query_position, axes.key_position),
        strict=True,
    )
    T, S = (own.values.core_shape(side.values.shape)[0] for side, own in sides)
    return T, S


def _zeros(results: Any, layout: Layout) -> Any:
    def zeros(leaf, axes):
        return jnp.zeros(axes.full_shape(leaf.shape, layout.sizes), leaf.dtype)

    return jax.tree.map(zeros, results, layout.outputs)
