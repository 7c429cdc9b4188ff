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
from jaxtyping import Array, Bool

from attn_jax._base import numerics, tables, young_jax
from attn_jax._base.axes import Layout, fit
from attn_jax._base.grid import TileShape
from attn_jax._base.sharding import vary_alike
from attn_jax._engine.fold import Plan, Walk, fold
from attn_jax._engine.tile_op import TileOp

type TileFunction = Callable[[Any, Bool[Array, "t s"] | None], Any]


@dataclasses.dataclass(frozen=True)
class Pushed:
    """The directional derivative of a tile function, on pairs (operands, tangents of floats)."""

    function: TileFunction

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        # Only the tile is widened, never a whole array of rows.
        primals, tangents = operands
        floats, rest = split(primals)
        primals, tangents = (numerics.wide(floats),), (numerics.wide(tangents),)
        _, out = jax.jvp(lambda f: self.function(join(f, rest), readable), primals, tangents)
        return out


@dataclasses.dataclass(frozen=True)
class Pulled:
    """The transposed derivative of a tile function, on pairs (operands, cotangents of its sums)."""

    function: TileFunction

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        primals, cotangents = operands
        floats, rest = split(primals)
        _, pull = jax.vjp(lambda f: self.function(join(f, rest), readable), numerics.wide(floats))
        (gradients,) = pull(cotangents)
        return gradients


def tile_sum(
    function: TileFunction, plan: Plan, operands: Any, layout: Layout, shape: TileShape | None
) -> Any:
    """Σ function(tile, readable) over the tiles that the plan leaves, with the axes of the layout.

    What a result shares with no head of its own, by the layout, is summed over the heads.
    """
    both = vary_alike((plan, operands))
    op = _TileSum.of(both, layout.inputs, sizes=layout.sizes, function=function, shape=shape)
    return fit(op(*both), op.layout.outputs, layout.outputs)


def is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def split(tree: Any) -> tuple[Any, Any]:
    """What has derivatives, and the rest; each with None in the other's place."""
    return floats_of(tree, tree), jax.tree.map(lambda leaf: None if is_float(leaf) else leaf, tree)


def floats_of(tree: Any, values: Any) -> Any:
    """The values that belong to what has derivatives in a tree, and None for the rest."""
    return jax.tree.map(lambda leaf, value: value if is_float(leaf) else None, tree, values)


def join(floats: Any, rest: Any) -> Any:
    """The tree that was split."""
    return jax.tree.map(
        lambda first, second: second if first is None else first,
        floats,
        rest,
        is_leaf=lambda leaf: leaf is None,
    )


def narrow(tree: Any, gradients: Any) -> Any:
    """Gradients in the dtypes of what they belong to."""
    return jax.tree.map(lambda x, g: None if g is None else g.astype(x.dtype), tree, gradients)


def float_or_none(like: Any, change: Any) -> Any:
    """A tangent or cotangent written out, and None for what has none."""
    if not is_float(like):
        return None
    return jnp.zeros(like.shape, like.dtype) if isinstance(change, young_jax.Zero) else change


class _TileSum(TileOp):
    function: Any

    def of_one_head(self, operands):
        return jax.eval_shape(self.function, operands, None)

    def expand(self, *args):
        plan, operands = args
        rows, sums = _by_query(self.results)
        t = self.tile.queries
        start = jax.tree.map(lambda x: jnp.zeros((t, *x.shape[1:]), x.dtype), rows)

        def step(row, tile, readable):
            by_query, shares = _by_query(self.function(tile, readable))
            return jax.tree.map(jnp.add, row, by_query), shares

        walk = Walk(start, step, finish=lambda row: row)
        inside = self.layout._replace(outputs=_by_query(self.layout.outputs))
        return _merge(*fold(walk, plan, operands, (rows, sums), inside, self.tile))

    def jvp(self, primals, tangents):
        (plan, operands), (_, moved) = primals, tangents
        plan_axes, axes = self.layout.inputs
        both = (operands, jax.tree.map(float_or_none, operands, moved))
        inputs = plan_axes, (axes, floats_of(operands, axes))
        layout = Layout(inputs, self.layout.outputs, self.sizes)
        return self(plan, operands), tile_sum(Pushed(self.function), plan, both, layout, self.shape)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), args

    def vjp_bwd_retval(self, res, outgrad, /):
        plan, operands = res
        plan_axes, axes = self.layout.inputs
        both = (operands, jax.tree.map(float_or_none, self.out_aval, outgrad))
        inputs = plan_axes, (axes, self.layout.outputs)
        layout = Layout(inputs, floats_of(operands, axes), self.sizes)
        gradients = tile_sum(Pulled(self.function), plan, both, layout, self.shape)
        return jax.tree.map(lambda _: None, plan), narrow(operands, gradients)

    def transpose(self, out_ct, *maybe_accums):
        """A push is linear in its tangents, a pull in its cotangents; each transposes the other."""
        plan, (primals, linear) = maybe_accums
        plan_axes, (axes, linear_axes) = self.layout.inputs
        cotangents = jax.tree.map(float_or_none, self.out_aval, out_ct)
        opposite = Pulled if isinstance(self.function, Pushed) else Pushed
        function = opposite(self.function.function)
        layout = Layout((plan_axes, (axes, self.layout.outputs)), linear_axes, self.sizes)
        moved = tile_sum(function, plan, (primals, cotangents), layout, self.shape)
        moved = narrow(self.in_avals[1][1], moved)
        for accumulator, value in zip(jax.tree.leaves(linear), jax.tree.leaves(moved), strict=True):
            if isinstance(accumulator, young_jax.GradAccum):
                accumulator.accum(value)


def _by_query(tree: Any) -> tuple[Any, Any]:
    """The tables of queries, and all else; each with None in the other's place."""

    def is_row(node):
        return tables.is_table(node) and node.over == "query"

    rows = jax.tree.map(lambda x: x if is_row(x) else None, tree, is_leaf=tables.is_table)
    return rows, jax.tree.map(lambda x: None if is_row(x) else x, tree, is_leaf=tables.is_table)


def _merge(rows: Any, others: Any) -> Any:
    """The tree that `_by_query` took apart."""

    def is_end(node):
        return node is None or tables.is_table(node)

    return jax.tree.map(lambda x, y: y if x is None else x, rows, others, is_leaf=is_end)
