"""Attention as one operation: what `vmap`, differentiation and a platform make of a call.

A kernel computes the operation and its gradient; it needs no rule of its own for any transform. All
other derivatives (forward mode, and every higher order) are sums over tiles, `tile_sum`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from attn_jax._base import young_jax
from attn_jax._base.axes import Axes, unmapped
from attn_jax._base.sharding import vary_alike
from attn_jax._base.tables import Table
from attn_jax._engine import dispatch, online_softmax
from attn_jax._engine.call import Call, Pairs, Read
from attn_jax._engine.online_softmax import Residuals
from attn_jax._engine.operation import Operation
from attn_jax._engine.tile_sum import (
    Wanted,
    gradients_wanted,
    join,
    moved,
    only,
    split,
    written_out,
)

OUT, LOGSUMEXP = "attention_out", "attention_logsumexp"
"""The names by which a policy of `jax.checkpoint` keeps what the backward pass needs."""


def attention(call: Call, implementation: str | None) -> tuple[Table, Table]:
    """Output [T V] and log-sum-exp [T], both in the accumulation dtype, as gradients need them."""
    if 0 in call.sizes:
        return _nothing(call)
    both = vary_alike(tuple(call))
    return _Attention.of(both, unmapped(both), sizes=(), implementation=implementation)(*both)


def _nothing(call: Call) -> tuple[Table, Table]:
    """Where there are no queries, or no keys to read."""
    out, logsumexp = (table.values for table in _results(call.read))
    nothing = jnp.full(logsumexp.shape, -jnp.inf, logsumexp.dtype)
    return Table(jnp.zeros(out.shape, out.dtype), "query"), Table(nothing, "query")


def _results(read: Read) -> tuple[Table, Table]:
    """The shapes of output and log-sum-exp of one head."""
    (T, _), (_, V) = read.query.values.shape, read.value.values.shape
    return online_softmax.results_of_one_head(T, V, read.scale.dtype)


class _Computed(Operation):
    """An operation that a kernel computes."""

    implementation: str | None

    def expand(self, *args):
        if dispatch.needs_devices(self.implementation):
            return self.on(jax.default_backend(), *args)
        return super().expand(*args)

    def kernel(self, call: Call, platform: str) -> dispatch.Kernel:
        return dispatch.kernel(call, self.implementation, platform)


class _Attention(_Computed):
    def of_one_head(self):
        return _results(self.operands)

    def on(self, platform, *args):
        kernel = self.kernel(Call(self.pairs, self.operands), platform)
        return kernel.forward(Call(*args), self.layout, self.tile(platform))

    def jvp(self, primals, tangents):
        results = self(*primals)
        changes = moved(tangents[1])
        return results, online_softmax.pushed(Call(*primals), results, changes, self.layout)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        out, logsumexp = self(*args)
        out = jax.tree.map(lambda x: checkpoint_name(x, OUT), out)
        logsumexp = jax.tree.map(lambda x: checkpoint_name(x, LOGSUMEXP), logsumexp)
        wanted = Wanted(gradients_wanted(nzs_in[1], args[1]))
        return (out, logsumexp), (args, (out, logsumexp), wanted)

    def vjp_bwd_retval(self, res, outgrad, /):
        (pairs, read), (out, logsumexp), wanted = res
        nothing = jax.tree.map(lambda _: None, pairs)
        if not any(wanted.leaves):
            return nothing, jax.tree.map(lambda _: None, read)
        d_out, d_logsumexp = written_out(outgrad[0]), moved(outgrad[1])
        residuals = Residuals(read, out, logsumexp, d_out, d_logsumexp)
        pair_axes, read_axes = self.layout.inputs
        out_axes, row_axes = self.layout.outputs
        d_axes = row_axes if d_logsumexp.values is not None else Table(None, "query")
        inputs = pair_axes, Residuals(read_axes, out_axes, row_axes, out_axes, d_axes)
        backward = _Gradients.of(
            (pairs, residuals),
            inputs,
            sizes=self.sizes,
            own=len(self.sizes),
            wanted=wanted.leaves,
            implementation=self.implementation,
        )
        return nothing, backward(pairs, residuals)


class _Gradients(_Computed):
    """Gradients of what is read; the first `own` levels of `vmap` are those of the read.

    Over these, what is shared sums its gradient. The levels after came by `vmap` of the gradient,
    and have one gradient an entry.
    """

    own: int
    wanted: tuple[bool, ...]

    def of_one_head(self):
        return only(self.wanted, self.operands.read)

    def axes_of_results(self, inputs):
        def axes(own: Axes) -> Axes:
            later = len(self.sizes) - self.own
            for n in range(later):
                own = own.without(len(self.sizes) - 1 - n)
            for _ in range(later):
                own = own.mapped(0)
            return own

        return only(self.wanted, jax.tree.map(axes, inputs[1].read))

    def on(self, platform, *args):
        kernel = self.kernel(Call(self.pairs, self.operands.read), platform)
        pairs, residuals = args
        return kernel.backward(pairs, residuals, self.layout, self.wanted)

    def by_tiles(self, pairs: Pairs, residuals: Residuals) -> Any:
        """The same as sums over tiles, which have derivatives of every order."""
        return online_softmax.gradients(pairs, residuals, self.layout, self.wanted)

    def jvp(self, primals, tangents):
        function, moving, changes = self._of_moving(primals, moved(tangents[1]))
        return self(*primals), jax.jvp(function, (moving,), (changes,))[1]

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), (args, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        args, wanted = res
        function, moving, _ = self._of_moving(args, only(wanted.leaves, args[1]))
        (found,) = jax.vjp(function, moving)[1](written_out(outgrad))
        return jax.tree.map(lambda _: None, args[0]), found

    def transpose(self, out_ct, *maybe_accums):
        """Gradients are linear in the cotangents of the results."""
        pairs, operands = maybe_accums
        linear = operands.d_out, operands.d_logsumexp

        def of_cotangents(d_out, d_logsumexp):
            given = operands._replace(d_out=d_out, d_logsumexp=d_logsumexp)
            return self.by_tiles(pairs, given)

        types = self.in_avals[1].d_out, self.in_avals[1].d_logsumexp
        found = jax.linear_transpose(of_cotangents, *types)(written_out(out_ct))
        for accumulator, value in zip(jax.tree.leaves(linear), jax.tree.leaves(found), strict=True):
            if isinstance(accumulator, young_jax.GradAccum):
                accumulator.accum(value)

    def _of_moving(self, args: tuple, changes: Any) -> tuple:
        """`by_tiles` as a function of the operands that move, with these and their changes."""
        pairs, operands = args
        moving, rest = split(operands, changes)
        return (lambda part: self.by_tiles(pairs, join(part, rest))), moving, changes
