"""Softmax-weighted means of values, tile by tile: of all heads, forward and backward.

For any shift c let unit = Σ exp(logit - c) and mean = Σ exp(logit - c) value, both sums over tiles.
Then out = mean / unit and logsumexp = c + log(unit). With c = logsumexp, held constant, unit is 1,
and the derivative of attention is that of two sums over tiles. Backward this is algorithm 4 of Dao
et al. (2022), https://arxiv.org/abs/2205.14135.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike

from attn_jax._base.axes import Layout, map_levels
from attn_jax._base.grid import TileShape
from attn_jax._base.numerics import across, put
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Pairs, Read
from attn_jax._engine.fold import Walk, fold
from attn_jax._engine.tile import logits, weigh, weighed_values
from attn_jax._engine.tile_sum import Pulled, Pushed, narrow, tile_sum


class Residuals(NamedTuple):
    """What gradients are made of: the call, its results, and the cotangents of these.

    `d_logsumexp` has no values where nobody used the log-sum-exp.
    """

    read: Read
    out: Table
    logsumexp: Table
    d_out: Table
    d_logsumexp: Table


class Moves(NamedTuple):
    """What moves the results of a call: the call, its results, and the tangents of what is read.

    A tangent is None where nothing moves.
    """

    read: Read
    out: Table
    logsumexp: Table
    changes: Read


def forward(call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
    """Output and log-sum-exp, both in the accumulation dtype."""
    pairs, read = call
    axes, dtype, t = layout.inputs[1], read.scale.dtype, tile.queries
    (T, _), (_, V) = _core(read.query, axes.query), _core(read.value, axes.value)
    start = jnp.full(t, -jnp.inf, dtype), jnp.zeros(t, dtype), jnp.zeros((t, V), dtype)
    results = results_of_one_head(T, V, dtype)
    walk = Walk(start, _step, _finish)
    layout = layout._replace(outputs=(layout.outputs, None))
    done, _ = fold(walk, pairs, read, (results, None), layout, tile)
    return done


def results_of_one_head(T: int, V: int, dtype: DTypeLike) -> tuple[Table, Table]:
    """The shapes of output and log-sum-exp."""
    out, logsumexp = jax.ShapeDtypeStruct((T, V), dtype), jax.ShapeDtypeStruct((T,), dtype)
    return Table(out, "query"), Table(logsumexp, "query")


def gradients(pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]) -> Read:
    """Gradients of what is read, in its dtypes; None where they are not wanted.

    `layout` has the axes of pairs and residuals, and those that each gradient shall have.
    """
    pair_axes, axes = layout.inputs
    read, out, logsumexp, d_out, d_logsumexp = residuals
    row_axes = Table(axes.logsumexp.values.like(logsumexp.values.ndim, 1), "query")
    inputs = axes.out, axes.d_out, axes.d_logsumexp
    d_unit = map_levels(_d_unit, inputs, row_axes, layout.sizes)(out, d_out, d_logsumexp)
    operands, cotangents = (read, logsumexp), (d_unit, d_out)
    own = (axes.read, axes.logsumexp), (row_axes, axes.d_out)
    pull = Pulled(weigh, (*wanted, False))
    layout = Layout((pair_axes, own), (layout.outputs, Table(None, "query")), layout.sizes)
    found, _ = tile_sum(pull, pairs, (operands, cotangents), layout)
    return narrow(read, found)


def pushed(pairs: Pairs, moves: Moves, layout: Layout) -> tuple[Table, Table]:
    """How output and log-sum-exp of all heads move."""
    read, out, logsumexp, changes = moves
    pair_axes, axes = layout.inputs
    out_axes, row_axes = layout.outputs
    operands, own = (read, logsumexp), (axes.read, axes.logsumexp)
    tangents = changes, Table(None, "query")
    inputs = pair_axes, (own, (axes.changes, Table(None, "query")))
    sums = Layout(inputs, (row_axes, out_axes), layout.sizes)
    d_unit, d_mean = tile_sum(Pushed(weigh), pairs, (operands, tangents), sums)
    change = map_levels(_d_out, (axes.out, row_axes, out_axes), out_axes, layout.sizes)
    return change(out, d_unit, d_mean), d_unit


def _core(table: Table, axes: Table) -> tuple[int, ...]:
    return axes.values.core_shape(table.values.shape)


def _d_out(out: Table, d_unit: Table, d_mean: Table) -> Table:
    """How the output of one head moves, from how the two sums do."""
    return Table(d_mean.values - out.values * d_unit.values[:, None], "query")


def _d_unit(out: Table, d_out: Table, d_logsumexp: Table) -> Table:
    """The cotangent of unit, from those of the results; that of mean is d_out."""
    own = jax.lax.neg(jax.lax.reduce_sum(jax.lax.mul(d_out.values, out.values), (1,)))
    return Table(own if d_logsumexp.values is None else d_logsumexp.values + own, "query")


def _step(row: tuple[Array, ...], tile: Read, readable: Any) -> tuple[tuple[Array, ...], None]:
    old_maximum, total, weighed = row
    logit = logits(tile, readable)
    maximum = jax.lax.max(old_maximum, jax.lax.reduce_max(logit, (1,)))
    shift = put(maximum, jax.lax.eq(maximum, jax.lax.full_like(maximum, -jnp.inf)), 0)
    weights = jax.lax.exp(jax.lax.sub(logit, across(shift, logit)))
    fade = jax.lax.exp(jax.lax.sub(old_maximum, shift))
    total = jax.lax.add(jax.lax.mul(fade, total), jax.lax.reduce_sum(weights, (1,)))
    old = jax.lax.mul(across(fade, weighed), weighed)
    weighed = jax.lax.add(old, weighed_values(weights, tile, readable))
    return (maximum, total, weighed), None


def _finish(row: tuple[Array, ...]) -> tuple[Table, Table]:
    maximum, total, weighed = row
    nothing = jax.lax.eq(total, jax.lax.full_like(total, 0))
    total = put(total, nothing, 1)
    logsumexp = put(jax.lax.add(maximum, jax.lax.log(total)), nothing, -jnp.inf)
    out = jax.lax.div(weighed, across(total, weighed))
    return Table(out, "query"), Table(logsumexp, "query")
