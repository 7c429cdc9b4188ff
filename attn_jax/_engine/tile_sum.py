"""Sums of a function over all tiles that are not empty, with derivatives of every order.

A tile function takes operands cut to one tile. It returns tables (entries of the tile's queries,
keys or pairs) and plain arrays (added over all tiles, as the gradient of the scale is). The JVP
(`TileJvp`) and VJP (`TileVjp`) of such a sum are again such sums, so derivatives of any order take
linear memory and skip the same tiles.
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
class TileJvp:
    """The JVP of a tile function, on (operands, tangents).

    A tangent is None where it is known to be zero.
    """

    function: TileFunction

    def __call__(self, operands: Any, unmasked: Bool[Array, "t s"] | None) -> Any:
        # Only the tile is converted to a wider dtype, never a whole array.
        primals, tangents = operands
        variables, rest = split(primals, tangents)
        primals, tangents = (numerics.wide(variables),), (numerics.wide(tangents),)
        _, out = jax.jvp(lambda f: self.function(join(f, rest), unmasked), primals, tangents)
        return out


@dataclasses.dataclass(frozen=True)
class TileVjp:
    """The VJP of a tile function, on (operands, cotangents of its sums).

    `wanted` says for each leaf of the operands whether its gradient is wanted; others are None.
    """

    function: TileFunction
    wanted: tuple[bool, ...]

    def __call__(self, operands: Any, unmasked: Bool[Array, "t s"] | None) -> Any:
        primals, cotangents = operands
        variables, rest = split(primals, where_wanted(self.wanted, primals))
        _, pull = jax.vjp(
            lambda f: self.function(join(f, rest), unmasked), numerics.wide(variables)
        )
        (gradients,) = pull(cotangents)
        return gradients


def tile_sum(function: TileFunction, pairs: Pairs, operands: Any, layout: Layout) -> Any:
    """Σ function(tile, unmasked) over the tiles that are not empty, with the axes of the layout.

    A result is summed over the vmapped axes that it lacks in the layout.
    """
    both = vary_alike((pairs, operands))
    op = _TileSum.of(both, layout.inputs, sizes=layout.sizes, function=function)
    return fit(op(*both), op.layout.outputs, layout.outputs)


def where_wanted(wanted: tuple[bool, ...], tree: Any) -> Any:
    """A tree with None in the place of every leaf that is not wanted."""
    leaves, structure = jax.tree.flatten(tree)
    kept = [leaf if is_wanted else None for leaf, is_wanted in zip(leaves, wanted, strict=True)]
    return jax.tree.unflatten(structure, kept)


def where_present(present: Any, tree: Any) -> Any:
    """A tree with None wherever another one has None."""
    return jax.tree.map(lambda x, y: None if x is None else y, present, tree, is_leaf=_is_none)


def split(tree: Any, present: Any) -> tuple[Any, Any]:
    """The leaves that another tree has too, and the rest; each with None in the other's place."""
    own = where_present(present, tree)
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


def without_zeros(tangents: Any) -> Any:
    """Tangents with None for those that are known to be zero, such as those of integers."""

    def one(tangent):
        return None if _is_zero(tangent) or tangent.dtype == jax.dtypes.float0 else tangent

    return jax.tree.map(one, tangents, is_leaf=_is_zero)


def with_zeros(cotangents: Any) -> Any:
    """Cotangents with arrays of zeros for those that are known to be zero."""
    return jax.tree.map(
        lambda c: young_jax.instantiate_zeros(c) if _is_zero(c) else c, cotangents, is_leaf=_is_zero
    )


def gradients_wanted(nonzero: Any, operands: Any) -> tuple[bool, ...]:
    """Which leaves have a gradient that is wanted, from the argument `nzs_in` of `vjp_fwd`."""
    flags = jax.tree.leaves(nonzero)
    return tuple(
        bool(flag) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        for flag, leaf in zip(flags, jax.tree.leaves(operands), strict=True)
    )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wanted:
    """`gradients_wanted` as a static node of the residuals, which are a pytree."""

    leaves: tuple[bool, ...]


class _TileSum(Operation):
    function: Any

    def results_of_one_head(self):
        return jax.eval_shape(self.function, self.arguments, None)

    def on(self, target, *args):
        pairs, operands = args
        tile = self.tile(target.platform)
        rows, sums = _by_query(self.results)
        start = jax.tree.map(lambda x: jnp.zeros((tile.queries, *x.shape[1:]), x.dtype), rows)

        def step(row, part, unmasked):
            by_query, shares = _by_query(self.function(part, unmasked))
            return jax.tree.map(jax.lax.add, row, by_query), shares

        walk = Walk(start, step, finish=lambda row: row)
        inside = self.layout._replace(outputs=_by_query(self.layout.outputs))
        return _merge(*fold(walk, pairs, operands, (rows, sums), inside, tile))

    def jvp(self, primals, tangents):
        (pairs, operands), tangents = primals, without_zeros(tangents[1])
        pair_axes, axes = self.layout.inputs
        inputs = pair_axes, (axes, where_present(tangents, axes))
        layout = self.layout._replace(inputs=inputs)
        return self(*primals), tile_sum(TileJvp(self.function), pairs, (operands, tangents), layout)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), (args, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        (pairs, operands), wanted = res
        pair_axes, axes = self.layout.inputs
        inputs = pair_axes, (axes, self.layout.outputs)
        layout = Layout(inputs, where_wanted(wanted.leaves, axes), self.sizes)
        vjp = TileVjp(self.function, wanted.leaves)
        gradients = tile_sum(vjp, pairs, (operands, with_zeros(outgrad)), layout)
        return jax.tree.map(lambda _: None, pairs), narrow(operands, gradients)

    def transpose(self, out_ct, *maybe_accums):
        """A JVP is linear in tangents, a VJP in cotangents; each is the transpose of the other."""
        pairs, (primals, linear) = maybe_accums
        pair_axes, (axes, linear_axes) = self.layout.inputs
        if isinstance(self.function, TileJvp):
            inputs = with_zeros(out_ct)
            wanted = jax.tree.map(lambda _, axis: axis is not None, axes, linear_axes)
            function = TileVjp(self.function.function, tuple(jax.tree.leaves(wanted)))
        else:
            inputs, function = without_zeros(out_ct), TileJvp(self.function.function)
        input_axes = pair_axes, (axes, where_present(inputs, self.layout.outputs))
        layout = Layout(input_axes, linear_axes, self.sizes)
        cotangents = tile_sum(function, pairs, (primals, inputs), layout)
        accumulate(linear, narrow(self.in_avals[1][1], cotangents))


def accumulate(accumulators: Any, values: Any) -> None:
    """Adds cotangents of the linear arguments of an operation, as JAX's transposition requires."""
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
