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
from attn_jax._base.sharding import vary_alike
from attn_jax._engine.call import Pairs
from attn_jax._engine.fold import Walk, fold
from attn_jax._engine.operation import Operation

type TileFunction = Callable[[Any, Bool[Array, "t s"] | None], Any]


@dataclasses.dataclass(frozen=True)
class Pushed:
    """The directional derivative of a tile function, on pairs (operands, tangents).

    A tangent is None where an operand does not move.
    """

    function: TileFunction

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        # Only the tile is widened, never a whole array of rows.
        primals, tangents = operands
        moving, rest = split(primals, tangents)
        primals, tangents = (numerics.wide(moving),), (numerics.wide(tangents),)
        _, out = jax.jvp(lambda f: self.function(join(f, rest), readable), primals, tangents)
        return out


@dataclasses.dataclass(frozen=True)
class Pulled:
    """The transposed derivative of a tile function, on pairs (operands, cotangents of its sums).

    `wanted` tells of each leaf of the operands whether its gradient is; it is None where not.
    """

    function: TileFunction
    wanted: tuple[bool, ...]

    def __call__(self, operands: Any, readable: Bool[Array, "t s"] | None) -> Any:
        primals, cotangents = operands
        moving, rest = split(primals, only(self.wanted, primals))
        _, pull = jax.vjp(lambda f: self.function(join(f, rest), readable), numerics.wide(moving))
        (gradients,) = pull(cotangents)
        return gradients


def tile_sum(function: TileFunction, pairs: Pairs, operands: Any, layout: Layout) -> Any:
    """Σ function(tile, readable) over the tiles that are read, with the axes of the layout.

    What a result shares with no head of its own, by the layout, is summed over the heads.
    """
    both = vary_alike((pairs, operands))
    op = _TileSum.of(both, layout.inputs, sizes=layout.sizes, function=function)
    return fit(op(*both), op.layout.outputs, layout.outputs)


def only(wanted: tuple[bool, ...], tree: Any) -> Any:
    """A tree with None in the place of every leaf that is not wanted."""
    leaves, structure = jax.tree.flatten(tree)
    kept = [leaf if is_wanted else None for leaf, is_wanted in zip(leaves, wanted, strict=True)]
    return jax.tree.unflatten(structure, kept)


def of_those(present: Any, tree: Any) -> Any:
    """A tree with None wherever another one has None."""
    return jax.tree.map(lambda x, y: None if x is None else y, present, tree, is_leaf=_is_none)


def split(tree: Any, present: Any) -> tuple[Any, Any]:
    """The leaves that another tree has too, and the rest; each with None in the other's place."""
    own = of_those(present, tree)
    rest = jax.tree.map(lambda x, y: y if x is None else None, present, tree, is_leaf=_is_none)
    return own, rest


def join(one: Any, other: Any) -> Any:
    """The tree that was split."""
    return jax.tree.map(lambda x, y: y if x is None else x, one, other, is_leaf=_is_none)


def narrow(tree: Any, gradients: Any) -> Any:
    """Gradients in the dtypes of what they belong to; None where there is none."""
    return jax.tree.map(
        lambda g, x: None if g is None else g.astype(x.dtype), gradients, tree, is_leaf=_is_none
    )


def moved(tangents: Any) -> Any:
    """Tangents with None for those that are known to be zero, as those of integers are."""

    def one(tangent):
        return None if _is_zero(tangent) or tangent.dtype == jax.dtypes.float0 else tangent

    return jax.tree.map(one, tangents, is_leaf=_is_zero)


def written_out(cotangents: Any) -> Any:
    """Cotangents with arrays of zeros for those that are known to be zero."""
    return jax.tree.map(
        lambda c: young_jax.instantiate_zeros(c) if _is_zero(c) else c, cotangents, is_leaf=_is_zero
    )


def gradients_wanted(nonzero: Any, operands: Any) -> tuple[bool, ...]:
    """Which leaves have a gradient that somebody asks for, from what `vjp_fwd` is told."""
    flags = jax.tree.leaves(nonzero)
    return tuple(
        bool(flag) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        for flag, leaf in zip(flags, jax.tree.leaves(operands), strict=True)
    )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wanted:
    """`gradients_wanted` among residuals, which are a tree."""

    leaves: tuple[bool, ...]


class _TileSum(Operation):
    function: Any

    def of_one_head(self):
        return jax.eval_shape(self.function, self.operands, None)

    def on(self, platform, *args):
        pairs, operands = args
        tile = self.tile(platform)
        rows, sums = _by_query(self.results)
        start = jax.tree.map(lambda x: jnp.zeros((tile.queries, *x.shape[1:]), x.dtype), rows)

        def step(row, part, readable):
            by_query, shares = _by_query(self.function(part, readable))
            return jax.tree.map(jax.lax.add, row, by_query), shares

        walk = Walk(start, step, finish=lambda row: row)
        inside = self.layout._replace(outputs=_by_query(self.layout.outputs))
        return _merge(*fold(walk, pairs, operands, (rows, sums), inside, tile))

    def jvp(self, primals, tangents):
        (pairs, operands), changes = primals, moved(tangents[1])
        pair_axes, axes = self.layout.inputs
        inputs = pair_axes, (axes, of_those(changes, axes))
        layout = self.layout._replace(inputs=inputs)
        return self(*primals), tile_sum(Pushed(self.function), pairs, (operands, changes), layout)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), (args, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        (pairs, operands), wanted = res
        pair_axes, axes = self.layout.inputs
        inputs = pair_axes, (axes, self.layout.outputs)
        layout = Layout(inputs, only(wanted.leaves, axes), self.sizes)
        pull = Pulled(self.function, wanted.leaves)
        gradients = tile_sum(pull, pairs, (operands, written_out(outgrad)), layout)
        return jax.tree.map(lambda _: None, pairs), narrow(operands, gradients)

    def transpose(self, out_ct, *maybe_accums):
        """A push is linear in its tangents, a pull in its cotangents; each transposes the other."""
        pairs, (primals, linear) = maybe_accums
        pair_axes, (axes, linear_axes) = self.layout.inputs
        if isinstance(self.function, Pushed):
            changes = written_out(out_ct)
            wanted = jax.tree.map(lambda _, axis: axis is not None, axes, linear_axes)
            function = Pulled(self.function.function, tuple(jax.tree.leaves(wanted)))
        else:
            changes, function = moved(out_ct), Pushed(self.function.function)
        inputs = pair_axes, (axes, of_those(changes, self.layout.outputs))
        layout = Layout(inputs, linear_axes, self.sizes)
        change = tile_sum(function, pairs, (primals, changes), layout)
        change = narrow(self.in_avals[1][1], change)
        accumulate(linear, change)


def accumulate(accumulators: Any, values: Any) -> None:
    """Adds cotangents of what an operation is linear in, as JAX asks when it transposes."""
    leaves = zip(jax.tree.leaves(accumulators), jax.tree.leaves(values), strict=True)
    for accumulator, value in leaves:
        if isinstance(accumulator, young_jax.GradAccum):
            accumulator.accum(value)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _is_zero(leaf: Any) -> bool:
    return isinstance(leaf, young_jax.Zero)


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
