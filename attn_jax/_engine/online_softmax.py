"""Softmax-weighted means of values, tile by tile, with derivatives of every order.

With unit = Σ exp(logit - logsumexp) = 1 and mean = Σ exp(logit - logsumexp) value, both sums over
tiles, out = mean / unit and logsumexp = logsumexp + log(unit) hold whatever the arguments; so the
derivative of the read is that of two sums over tiles. Backward this is algorithm 4 of Dao et al.
(2022), https://arxiv.org/abs/2205.14135.
"""

import jax
import jax.numpy as jnp

from attn_jax._base import young_jax
from attn_jax._base.axes import Layout, map_levels, unmapped
from attn_jax._base.grid import TileShape
from attn_jax._base.numerics import put
from attn_jax._base.sharding import vary_alike
from attn_jax._base.tables import Table
from attn_jax._engine.fold import Plan, Walk, fold
from attn_jax._engine.tile import Read, logits, weigh, weighed_values
from attn_jax._engine.tile_op import TileOp
from attn_jax._engine.tile_sum import (
    Pulled,
    Pushed,
    float_or_none,
    floats_of,
    narrow,
    tile_sum,
)


def online_softmax(plan: Plan, read: Read, shape: TileShape | None = None) -> tuple[Table, Table]:
    """Output [T V] and log-sum-exp [T] in the accumulation dtype."""
    both = vary_alike((plan, read))
    return _OnlineSoftmax.of(both, unmapped(both), sizes=(), shape=shape)(*both)


class _OnlineSoftmax(TileOp):
    def of_one_head(self, operands):
        dtype, value = operands.scale.dtype, operands.value.values
        T = operands.query.values.shape[0]
        out = jax.ShapeDtypeStruct((T, value.shape[1]), dtype), jax.ShapeDtypeStruct((T,), dtype)
        return tuple(Table(shape, "query") for shape in out)

    def expand(self, *args):
        plan, operands = args
        (t, _), (out, _) = self.tile, self.results
        dtype, V = out.values.dtype, out.values.shape[1]
        start = jnp.full(t, -jnp.inf, dtype), jnp.zeros(t, dtype), jnp.zeros((t, V), dtype)
        walk = Walk(start, _step, _finish)
        layout = self.layout._replace(outputs=(self.layout.outputs, None))
        done, _ = fold(walk, plan, operands, (self.results, None), layout, self.tile)
        return done

    def jvp(self, primals, tangents):
        (plan, read), (_, moved) = primals, tangents
        out, logsumexp = self(plan, read)
        plan_axes, read_axes = self.layout.inputs
        out_axes, row_axes = self.layout.outputs
        operands, axes = (read, logsumexp), (read_axes, row_axes)
        tangents = jax.tree.map(float_or_none, read, moved), jax.tree.map(jnp.zeros_like, logsumexp)
        inputs = plan_axes, (axes, floats_of(operands, axes))
        layout = Layout(inputs, (row_axes, out_axes), self.sizes)
        d_unit, d_mean = tile_sum(Pushed(weigh), plan, (operands, tangents), layout, self.shape)
        change = map_levels(_change, (out_axes, row_axes, out_axes), out_axes)
        return (out, logsumexp), (change(out, d_unit, d_mean), d_unit)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        plan, read = args
        out, logsumexp = self(plan, read)
        return (out, logsumexp), (plan, read, out, logsumexp)

    def vjp_bwd_retval(self, res, outgrad, /):
        plan, read, out, logsumexp = res
        plan_axes, read_axes = self.layout.inputs
        out_axes, row_axes = self.layout.outputs
        turn = map_levels(_cotangents, (out_axes, out_axes, row_axes), (row_axes, out_axes))
        cotangents = turn(out, *jax.tree.map(float_or_none, self.out_aval, outgrad))
        operands, axes = (read, logsumexp), (read_axes, row_axes)
        inputs = plan_axes, (axes, (row_axes, out_axes))
        layout = Layout(inputs, floats_of(operands, axes), self.sizes)
        gradients, _ = tile_sum(Pulled(weigh), plan, (operands, cotangents), layout, self.shape)
        return jax.tree.map(lambda _: None, plan), narrow(read, gradients)


def _change(out: Table, d_unit: Table, d_mean: Table) -> Table:
    """How the output of one head moves, from how the two sums do."""
    return Table(d_mean.values - out.values * d_unit.values[:, None], "query")


def _cotangents(out: Table, d_out: Table, d_row: Table) -> tuple[Table, Table]:
    """Of the two sums of one head, from those of its output and log-sum-exp."""
    d_unit = d_row.values - jnp.sum(d_out.values * out.values, axis=1)
    return Table(d_unit, "query"), d_out


def _step(row, tile, readable):
    old_maximum, total, weighed = row
    logit = logits(tile, readable)
    maximum = jax.lax.max(old_maximum, jax.lax.reduce_max(logit, (1,)))
    shift = put(maximum, maximum == -jnp.inf, 0)
    weights = jax.lax.exp(logit - shift[:, None])
    fade = jax.lax.exp(old_maximum - shift)
    total = fade * total + jax.lax.reduce_sum(weights, (1,))
    weighed = fade[:, None] * weighed + weighed_values(weights, tile, readable)
    return (maximum, total, weighed), None


def _finish(row):
    maximum, total, weighed = row
    nothing = total == 0
    total = put(total, nothing, 1)
    logsumexp = put(maximum + jax.lax.log(total), nothing, -jnp.inf)
    return Table(weighed / total[:, None], "query"), Table(logsumexp, "query")
