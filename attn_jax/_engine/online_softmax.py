"""Attention of all heads tile by tile (online softmax), forward, backward and its JVP.

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
from attn_jax._engine.call import Call, Operands, Pairs
from attn_jax._engine.fold import Walk, fold
from attn_jax._engine.tile import logits, weighted_sums, weighted_values
from attn_jax._engine.tile_sum import TileJvp, TileVjp, narrow, tile_sum


class Residuals(NamedTuple):
    """The inputs of the backward pass: operands of a call, its results, and their cotangents.

    `d_logsumexp` has no values where the log-sum-exp has no derivative.
    """

    operands: Operands
    out: Table
    logsumexp: Table
    d_out: Table
    d_logsumexp: Table


class JvpInputs(NamedTuple):
    """The inputs of forward mode: operands of a call, its results, and tangents of the operands.

    A tangent is None where it is known to be zero.
    """

    operands: Operands
    out: Table
    logsumexp: Table
    tangents: Operands


def forward(call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
    """Output and log-sum-exp, both in the accumulation dtype."""
    pairs, operands = call
    axes, dtype, t = layout.inputs[1], operands.scale.dtype, tile.queries
    (T, _), (_, V) = _core(operands.query, axes.query), _core(operands.value, axes.value)
    start = jnp.full(t, -jnp.inf, dtype), jnp.zeros(t, dtype), jnp.zeros((t, V), dtype)
    results = results_of_one_head(T, V, dtype)
    walk = Walk(start, _step, _finish)
    layout = layout._replace(outputs=(layout.outputs, None))
    done, _ = fold(walk, pairs, operands, (results, None), layout, tile)
    return done


def results_of_one_head(T: int, V: int, dtype: DTypeLike) -> tuple[Table, Table]:
    """The shapes of output and log-sum-exp."""
    out, logsumexp = jax.ShapeDtypeStruct((T, V), dtype), jax.ShapeDtypeStruct((T,), dtype)
    return Table(out, "query"), Table(logsumexp, "query")


def backward(
    pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
) -> Operands:
    """The gradient of each operand that is wanted, in its dtype; None for the others.

    `layout` has the axes of pairs and residuals, and those that each gradient gets. `fold` adds the
    gradients of a key and a value over the tiles of their column.
    """
    pair_axes, axes = layout.inputs
    operands, out, logsumexp, d_out, d_logsumexp = residuals
    row_axes = Table(axes.logsumexp.values.like(logsumexp.values.ndim, 1), "query")
    inputs = axes.out, axes.d_out, axes.d_logsumexp
    d_unit = map_levels(_d_unit, inputs, row_axes, layout.sizes)(out, d_out, d_logsumexp)
    primals, cotangents = (operands, logsumexp), (d_unit, d_out)
    own = (axes.operands, axes.logsumexp), (row_axes, axes.d_out)
    vjp = TileVjp(weighted_sums, (*wanted, False))
    layout = Layout((pair_axes, own), (layout.outputs, Table(None, "query")), layout.sizes)
    gradients, _ = tile_sum(vjp, pairs, (primals, cotangents), layout)
    return narrow(operands, gradients)


def jvp(pairs: Pairs, inputs: JvpInputs, layout: Layout) -> tuple[Table, Table]:
    """Tangents of the output and the log-sum-exp of all heads."""
    operands, out, logsumexp, tangents = inputs
    pair_axes, axes = layout.inputs
    out_axes, row_axes = layout.outputs
    primals, own = (operands, logsumexp), (axes.operands, axes.logsumexp)
    none = Table(None, "query")
    axes_of_sums = pair_axes, (own, (axes.tangents, none))
    sums = Layout(axes_of_sums, (row_axes, out_axes), layout.sizes)
    d_unit, d_mean = tile_sum(TileJvp(weighted_sums), pairs, (primals, (tangents, none)), sums)
    d_out = map_levels(_d_out, (axes.out, row_axes, out_axes), out_axes, layout.sizes)
    return d_out(out, d_unit, d_mean), d_unit


def _core(table: Table, axes: Table) -> tuple[int, ...]:
    return axes.values.core_shape(table.values.shape)


def _d_out(out: Table, d_unit: Table, d_mean: Table) -> Table:
    """The tangent of the output of one head, from those of the two sums."""
    return Table(d_mean.values - out.values * d_unit.values[:, None], "query")


def _d_unit(out: Table, d_out: Table, d_logsumexp: Table) -> Table:
    """The cotangent of unit, from those of the results; the cotangent of mean is d_out."""
    by_out = jax.lax.neg(jax.lax.reduce_sum(jax.lax.mul(d_out.values, out.values), (1,)))
    return Table(by_out if d_logsumexp.values is None else d_logsumexp.values + by_out, "query")


def _step(row: tuple[Array, ...], tile: Operands, unmasked: Any) -> tuple[tuple[Array, ...], None]:
    old_maximum, total, weighed = row
    logit = logits(tile, unmasked)
    maximum = jax.lax.max(old_maximum, jax.lax.reduce_max(logit, (1,)))
    shift = put(maximum, jax.lax.eq(maximum, jax.lax.full_like(maximum, -jnp.inf)), 0)
    weights = jax.lax.exp(jax.lax.sub(logit, across(shift, logit)))
    fade = jax.lax.exp(jax.lax.sub(old_maximum, shift))
    total = jax.lax.add(jax.lax.mul(fade, total), jax.lax.reduce_sum(weights, (1,)))
    old = jax.lax.mul(across(fade, weighed), weighed)
    weighed = jax.lax.add(old, weighted_values(weights, tile, unmasked))
    return (maximum, total, weighed), None


def _finish(row: tuple[Array, ...]) -> tuple[Table, Table]:
    maximum, total, weighed = row
    nothing = jax.lax.eq(total, jax.lax.full_like(total, 0))
    total = put(total, nothing, 1)
    logsumexp = jax.lax.add(maximum, jax.lax.log(total))  # -inf + log(1) where all is masked
    out = jax.lax.div(weighed, across(total, weighed))
    return Table(out, "query"), Table(logsumexp, "query")
