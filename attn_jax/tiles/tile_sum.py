"""Sums of a function over all readable tiles: the family that differentiation never leaves.

A tile function takes a tree cut to one tile and gives contributions: a table of them belongs to the
tile's queries, keys or pairs, an array to the whole. Its total derivative is again a sum of such a
function over the same tiles, forward (`Pushed`) and backward (`Pulled`), so every order of
derivative takes linear memory and skips the same tiles.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import hijax
from jaxtyping import Array, Bool

from attn_jax import _tables
from attn_jax._grid import TileShape
from attn_jax.tiles.fold import Plan, add_at, fold, tiled_axes
from attn_jax.tiles.tile_op import TileOp, sum_shared

type TileFunction = Callable[[Any, Bool[Array, "t s"] | None], Any]


@dataclasses.dataclass(frozen=True)
class Pushed:
    """The directional derivative of a tile function, on pairs (operands, tangents of floats)."""

    function: TileFunction

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        primals, tangents = operands
        floats, rest = split(primals)
        _, out = jax.jvp(lambda f: self.function(join(f, rest), readable), (floats,), (tangents,))
        return out


@dataclasses.dataclass(frozen=True)
class Pulled:
    """The transposed derivative of a tile function, on pairs (operands, cotangents of its sums)."""

    function: TileFunction

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        primals, cotangents = operands
        floats, rest = split(primals)
        _, pull = jax.vjp(lambda f: self.function(join(f, rest), readable), floats)
        (gradients,) = pull(cotangents)
        return gradients


def tile_sum(
    function: TileFunction, plan: Plan, operands: Any, shape: TileShape | None, depth: int
):
    """Σ function(tile, readable) over the tiles that the plan leaves."""
    return _TileSum.on(plan, operands, depth=depth, function=function, shape=shape)


def is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def split(tree: Any) -> tuple[Any, Any]:
    """What has derivatives, and the rest; each with None in the other's place."""
    floats = jax.tree.map(lambda leaf: leaf if is_float(leaf) else None, tree)
    return floats, jax.tree.map(lambda leaf: None if is_float(leaf) else leaf, tree)


def join(floats: Any, rest: Any) -> Any:
    """The tree that was split."""
    return jax.tree.map(
        lambda first, second: second if first is None else first,
        floats,
        rest,
        is_leaf=lambda leaf: leaf is None,
    )


def float_or_none(like: Any, change: Any) -> Any:
    """A tangent or cotangent written out, and None for what has none."""
    if not is_float(like):
        return None
    return jnp.zeros(like.shape, like.dtype) if isinstance(change, hijax.Zero) else change


class _TileSum(TileOp):
    function: Any

    def one(self, shape, *args):
        plan, operands = args
        T, S = plan.query_position.size, plan.key_position.size
        tile = jax.eval_shape(self.function, first_tile(operands, shape), None)
        by_query, others = _by_query(tile)
        row = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), by_query)
        whole = _zeros(others, (-(-T // shape.queries), -(-S // shape.keys)))

        def step(row, whole, place, tile, readable):
            by_query, others = _by_query(self.function(tile, readable))
            row = jax.tree.map(jnp.add, row, by_query)
            return row, add_at(whole, others, place, shape)

        rows, whole = fold(step, plan, operands, row, whole, shape)
        return _merge(rows, _trim(whole, T, S))

    def jvp(self, primals, tangents):
        (plan, operands), (_, moved) = primals, tangents
        both = (operands, jax.tree.map(float_or_none, operands, moved))
        out = tile_sum(Pushed(self.function), plan, both, self.shape, self.depth)
        return self(plan, operands), out

    lin, linearized = hijax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), args

    def vjp_bwd_retval(self, res, outgrad, /):
        plan, operands = res
        both = (operands, jax.tree.map(float_or_none, self.out_aval, outgrad))
        gradients = tile_sum(Pulled(self.function), plan, both, self.shape, self.depth)
        return jax.tree.map(lambda _: None, plan), sum_shared(gradients, operands, self.depth)

    def transpose(self, out_ct, *maybe_accums):
        """A push is linear in its tangents, a pull in its cotangents; each transposes the other."""
        plan, (primals, linear) = maybe_accums
        cotangents = jax.tree.map(float_or_none, self.out_aval, out_ct)
        opposite = Pulled if isinstance(self.function, Pushed) else Pushed
        function = opposite(self.function.function)
        moved = tile_sum(function, plan, (primals, cotangents), self.shape, self.depth)
        moved = sum_shared(moved, self.in_avals[1][1], self.depth)
        for accumulator, value in zip(jax.tree.leaves(linear), jax.tree.leaves(moved), strict=True):
            if isinstance(accumulator, hijax.GradAccum):
                accumulator.accum(value)


def first_tile(operands: Any, shape: TileShape) -> Any:
    """The shapes of what a tile function receives."""

    def part(node):
        if not _tables.is_table(node):
            return node
        sizes = list(node.values.shape)
        for axis, side in tiled_axes(node):
            sizes[axis] = shape[side]
        return dataclasses.replace(
            node, values=jax.ShapeDtypeStruct(tuple(sizes), node.values.dtype)
        )

    return jax.tree.map(part, operands, is_leaf=_tables.is_table)


def _by_query(tree: Any) -> tuple[Any, Any]:
    """The tables of queries, and all else; each with None in the other's place."""

    def is_row(node):
        return _tables.is_table(node) and node.over == "query"

    rows = jax.tree.map(lambda x: x if is_row(x) else None, tree, is_leaf=_tables.is_table)
    return rows, jax.tree.map(lambda x: None if is_row(x) else x, tree, is_leaf=_tables.is_table)


def _merge(rows: Any, others: Any) -> Any:
    """The tree that `_by_query` took apart."""

    def is_end(node):
        return node is None or _tables.is_table(node)

    return jax.tree.map(lambda x, y: y if x is None else x, rows, others, is_leaf=is_end)


def _zeros(tile: Any, tiles: tuple[int, int]) -> Any:
    """Zeros for the whole of what `tile` is one of so many tiles of."""

    def zeros(node):
        if not _tables.is_table(node):
            return jnp.zeros(node.shape, node.dtype)
        sizes = list(node.values.shape)
        for axis, side in tiled_axes(node):
            sizes[axis] *= tiles[side]
        return dataclasses.replace(node, values=jnp.zeros(sizes, node.values.dtype))

    return jax.tree.map(zeros, tile, is_leaf=_tables.is_table)


def _trim(whole: Any, T: int, S: int) -> Any:
    """Without the padding of the last tiles."""

    def trim(node):
        if not _tables.is_table(node):
            return node
        values = node.values[:S] if node.over == "key" else node.values[:T, :S]
        return dataclasses.replace(node, values=values)

    return jax.tree.map(trim, whole, is_leaf=_tables.is_table)
