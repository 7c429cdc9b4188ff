"""Attention as one operation: what `vmap`, differentiation and a platform make of a call.

A kernel computes the operation and its gradient; it needs no rule of its own for any transform.
Forward mode, and every derivative of a higher order, are sums over tiles, whatever the kernel.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from attn_jax._base import young_jax
from attn_jax._base.axes import Axes, Layout, fit, unmapped
from attn_jax._base.sharding import vary_alike
from attn_jax._base.tables import Table
from attn_jax._engine import dispatch, online_softmax
from attn_jax._engine.call import Call, Pairs, Read
from attn_jax._engine.online_softmax import Moves, Residuals
from attn_jax._engine.operation import Operation
from attn_jax._engine.partition import on_each_device
from attn_jax._engine.tile_sum import (
    Wanted,
    accumulate,
    gradients_wanted,
    join,
    moved,
    of_those,
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
        needs_devices = dispatch.needs_devices(self.implementation)
        return young_jax.by_platform(self, *args, needs_devices=needs_devices)

    def kernel(self, call: Call, platform: str) -> dispatch.Kernel:
        return dispatch.kernel(call, self.implementation, platform)

    def computed(self, kernel: dispatch.Kernel, function: Callable, *args: Any) -> Any:
        """`function(layout, *args)`, on each device alone where the compiler cannot divide it."""
        if kernel.divided_by == "engine":
            return on_each_device(function, self.layout, self.out_aval)(*args)
        return function(self.layout, *args)


class _Attention(_Computed):
    def of_one_head(self):
        return _results(self.operands)

    def on(self, platform, *args):
        kernel = self.kernel(Call(self.pairs, self.operands), platform)
        tile = self.tile(platform)

        def forward(layout: Layout, *args: Any) -> tuple[Table, Table]:
            return kernel.forward(Call(*args), layout, tile)

        return self.computed(kernel, forward, *args)

    def jvp(self, primals, tangents):
        (pairs, read), changes = primals, moved(tangents[1])
        out, logsumexp = _named(self(pairs, read))
        pair_axes, read_axes = self.layout.inputs
        out_axes, row_axes = self.layout.outputs
        axes = Moves(read_axes, out_axes, row_axes, of_those(changes, read_axes))
        moves = Moves(read, out, logsumexp, changes)
        how = {"sizes": self.sizes, "implementation": self.implementation}
        push = _Push.of((pairs, moves), (pair_axes, axes), **how)
        return (out, logsumexp), push(pairs, moves)

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        results = _named(self(*args))
        return results, (args, results, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        (pairs, read), results, wanted = res
        pair_axes, read_axes = self.layout.inputs
        out_axes, row_axes = self.layout.outputs
        to = only(wanted.leaves, read_axes)
        axes = pair_axes, Moves(read_axes, out_axes, row_axes, to)
        nothing = jax.tree.map(lambda _: None, pairs)
        return nothing, _pull(self, (pairs, read), results, outgrad, axes)


class _Derivative(_Computed):
    """One of two linear operations, `_Push` and `_Gradients`: each is the other one transposed."""

    def by_tiles(self, *args: Any) -> Any:
        """It as sums over tiles, which have derivatives of every order."""
        raise NotImplementedError

    def jvp(self, primals, tangents):
        changes = moved(tangents[1])
        function, moving = self._of_moving(primals, changes)
        return self(*primals), jax.jvp(function, (moving,), (changes,))[1]

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), (args, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        args, wanted = res
        function, moving = self._of_moving(args, only(wanted.leaves, args[1]))
        (found,) = jax.vjp(function, moving)[1](written_out(outgrad))
        return jax.tree.map(lambda _: None, args[0]), found

    def _of_moving(self, args: tuple, present: Any) -> tuple:
        """`by_tiles` as a function of the operands that are present in a tree, and these."""
        pairs, operands = args
        moving, rest = split(operands, present)
        return (lambda part: self.by_tiles(pairs, join(part, rest))), moving


class _Push(_Derivative):
    """How the results move with what is read; linear in `changes`."""

    def of_one_head(self):
        return _results(self.operands.read)

    def expand(self, *args):
        return self.by_tiles(*args)

    def by_tiles(self, *args):
        pairs, moves = args
        return online_softmax.pushed(pairs, moves, self.layout)

    def transpose(self, out_ct, *maybe_accums):
        pairs, (read, out, logsumexp, changes) = maybe_accums
        call, results = (pairs, read), (out, logsumexp)
        accumulate(changes, _pull(self, call, results, out_ct, self.layout.inputs))


class _Gradients(_Derivative):
    """Gradients of what is read, with the axes `to`; linear in the cotangents of the results.

    A level of the call that such axes lack is summed.
    """

    wanted: tuple[bool, ...]
    to: tuple[Axes, ...]

    def of_one_head(self):
        return only(self.wanted, self.operands.read)

    def axes_of_results(self, inputs):
        structure = jax.tree.structure(only(self.wanted, inputs[1].read))
        return jax.tree.unflatten(structure, self.to)

    def one_level_more(self, size):
        return super().one_level_more(size) | {"to": tuple(own.mapped(0) for own in self.to)}

    def on(self, platform, *args):
        kernel = self.kernel(Call(self.pairs, self.operands.read), platform)

        def backward(layout: Layout, pairs: Pairs, residuals: Residuals) -> Read:
            return kernel.backward(pairs, residuals, layout, self.wanted)

        return self.computed(kernel, backward, *args)

    def by_tiles(self, *args):
        pairs, residuals = args
        return online_softmax.gradients(pairs, residuals, self.layout, self.wanted)

    def transpose(self, out_ct, *maybe_accums):
        pairs, (read, out, logsumexp, *linear) = maybe_accums
        changes = moved(out_ct)
        pair_axes, axes = self.layout.inputs
        own = Moves(axes.read, axes.out, axes.logsumexp, of_those(changes, self.layout.outputs))
        moves = Moves(read, out, logsumexp, changes)
        how = {"sizes": self.sizes, "implementation": self.implementation}
        push = _Push.of((pairs, moves), (pair_axes, own), **how)
        results = push(pairs, moves)
        accumulate(linear, fit(results, push.layout.outputs, (axes.d_out, axes.d_logsumexp)))


def _pull(op: _Computed, call: tuple, results: tuple, cotangents: tuple, axes: tuple) -> Any:
    """Gradients with the axes of what moves, from the cotangents of the results of an operation.

    `axes` are those of pairs and `Moves`; a change has axes where its gradient is wanted.
    """
    (pairs, read), (pair_axes, own) = call, axes
    wanted = jax.tree.map(lambda _, axes: axes is not None, own.read, own.changes)
    wanted = tuple(jax.tree.leaves(wanted))
    if not any(wanted):
        return only(wanted, read)
    d_out, d_logsumexp = written_out(cotangents[0]), moved(cotangents[1])
    out_axes, row_axes = op.layout.outputs
    d_axes = row_axes if d_logsumexp.values is not None else Table(None, "query")
    out, logsumexp = results
    residuals = Residuals(read, out, logsumexp, d_out, d_logsumexp)
    inputs = pair_axes, Residuals(own.read, own.out, own.logsumexp, out_axes, d_axes)
    backward = _Gradients.of(
        (pairs, residuals),
        inputs,
        sizes=op.sizes,
        implementation=op.implementation,
        wanted=wanted,
        to=tuple(jax.tree.leaves(own.changes)),
    )
    return backward(pairs, residuals)


def _named(results: tuple[Table, Table]) -> tuple[Table, Table]:
    """The same with the names by which `jax.checkpoint` may keep them."""
    out, logsumexp = (table.values for table in results)
    out, logsumexp = checkpoint_name(out, OUT), checkpoint_name(logsumexp, LOGSUMEXP)
    return Table(out, "query"), Table(logsumexp, "query")
