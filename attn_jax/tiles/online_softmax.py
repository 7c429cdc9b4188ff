"""Softmax-weighted means of values, tile by tile, with derivatives of every order.

With unit = Σ exp(logit - logsumexp) = 1 and mean = Σ exp(logit - logsumexp) value, both sums over
tiles, out = mean / unit and logsumexp = logsumexp + log(unit) hold whatever the arguments; so the
derivative of the read is that of two sums over tiles. Backward this is algorithm 4 of Dao et al.
(2022), https://arxiv.org/abs/2205.14135.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import hijax

from attn_jax._grid import TileShape
from attn_jax._tables import Table
from attn_jax.tiles.fold import Plan, fold
from attn_jax.tiles.read import Read, logits, weigh, weighed_values
from attn_jax.tiles.tile_op import TileOp, sum_shared
from attn_jax.tiles.tile_sum import Pulled, Pushed, float_or_none, is_float, tile_sum


def online_softmax(plan: Plan, read: Read, shape: TileShape | None = None) -> tuple[Table, Table]:
    """Output [T V] and log-sum-exp [T] in the accumulation dtype."""
    return _OnlineSoftmax.on(plan, read, depth=0, shape=shape)


class _OnlineSoftmax(TileOp):
    def one(self, shape, *args):
        plan, read = args
        dtype, (t, _), V = read.scale.dtype, shape, read.value.values.shape[1]
        row = jnp.full(t, -jnp.inf, dtype), jnp.zeros(t, dtype), jnp.zeros((t, V), dtype)

        def step(row, whole, place, tile, readable):
            del place
            old_maximum, total, weighed = row
            logit = logits(tile, readable)
            maximum = jnp.maximum(old_maximum, jnp.max(logit, axis=1))
            shift = jnp.where(maximum == -jnp.inf, 0, maximum)
            weights = jnp.exp(logit - shift[:, None])
            fade = jnp.exp(old_maximum - shift)
            total = fade * total + jnp.sum(weights, axis=1)
            weighed = fade[:, None] * weighed + weighed_values(weights, tile, readable)
            return (maximum, total, weighed), whole

        (maximum, total, weighed), _ = fold(step, plan, read, row, None, shape)
        nothing = total == 0
        total = jnp.where(nothing, 1, total)
        logsumexp = jnp.where(nothing, -jnp.inf, maximum + jnp.log(total))
        return Table(weighed / total[:, None], "query"), Table(logsumexp, "query")

    def jvp(self, primals, tangents):
        (plan, read), (_, moved) = primals, tangents
        out, logsumexp = self(plan, read)
        operands = _operands(read, logsumexp)
        moved = _in_dtype(jax.tree.map(float_or_none, read, moved), read.scale.dtype)
        both = (operands, (moved, Table(jnp.zeros_like(logsumexp.values), "query")))
        d_unit, d_mean = tile_sum(Pushed(weigh), plan, both, self.shape, self.depth)
        d_out = d_mean.values - out.values * d_unit.values[..., None]
        return (out, logsumexp), (Table(d_out, "query"), d_unit)

    lin, linearized = hijax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        plan, read = args
        out, logsumexp = self(plan, read)
        return (out, logsumexp), (plan, read, out, logsumexp)

    def vjp_bwd_retval(self, res, outgrad, /):
        plan, read, out, logsumexp = res
        d_out, d_logsumexp = jax.tree.map(float_or_none, self.out_aval, outgrad)
        nothing = logsumexp.values == -jnp.inf
        d_unit = d_logsumexp.values - jnp.sum(d_out.values * out.values, axis=-1)
        d_unit = Table(jnp.where(nothing, 0, d_unit), "query")
        d_mean = Table(jnp.where(nothing[..., None], 0, d_out.values), "query")
        both = (_operands(read, logsumexp), (d_unit, d_mean))
        gradients, _ = tile_sum(Pulled(weigh), plan, both, self.shape, self.depth)
        gradients = sum_shared(gradients, read, self.depth)
        narrow = jax.tree.map(
            lambda x, g: None if g is None else g.astype(x.dtype), read, gradients
        )
        return jax.tree.map(lambda _: None, plan), narrow


def _operands(read: Read, logsumexp: Table) -> tuple[Read, Table]:
    """What `weigh` takes, in the accumulation dtype, so that gradients are summed in it."""
    shift = Table(jnp.where(logsumexp.values == -jnp.inf, 0, logsumexp.values), "query")
    return _in_dtype(read, read.scale.dtype), shift


def _in_dtype(tree: Any, dtype) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_float(leaf) else leaf, tree)
