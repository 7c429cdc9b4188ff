"""Attention as one operation with rules for `vmap`, derivatives and each platform.

A kernel computes the operation and its gradient, and needs no rule for any transform. Forward mode
and derivatives of a higher order are sums over tiles, whatever the kernel.
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
from attn_jax._engine.call import Call, Operands, Pairs
from attn_jax._engine.online_softmax import JvpInputs, Residuals
from attn_jax._engine.operation import Operation
from attn_jax._engine.partition import MeshAxes, are_known, can_divide, on_each_device
from attn_jax._engine.tile_sum import (
    Wanted,
    accumulate,
    gradients_wanted,
    join,
    split,
    where_present,
    where_wanted,
    with_zeros,
    without_zeros,
)

OUT, LOGSUMEXP = "attention_out", "attention_logsumexp"
"""The names by which a policy of `jax.checkpoint` keeps what the backward pass needs."""


def attention(call: Call, implementation: str | None) -> tuple[Table, Table]:
    """Output [T V] and log-sum-exp [T] of one head, both in the accumulation dtype."""
    if 0 in call.sizes:
        return _empty(call)
    args = vary_alike(tuple(call))
    params = {"sizes": (), "mesh_axes": (), "implementation": implementation}
    return _Attention.of(args, unmapped(args), **params)(*args)


def _empty(call: Call) -> tuple[Table, Table]:
    """Output and log-sum-exp of a call without queries or without keys."""
    out, logsumexp = (table.values for table in _results(call.operands))
    nothing = jnp.full(logsumexp.shape, -jnp.inf, logsumexp.dtype)
    return Table(jnp.zeros(out.shape, out.dtype), "query"), Table(nothing, "query")


def _results(operands: Operands) -> tuple[Table, Table]:
    """The shapes of output and log-sum-exp of one head."""
    (T, _), (_, V) = operands.query.values.shape, operands.value.values.shape
    return online_softmax.results_of_one_head(T, V, operands.scale.dtype)


class _KernelOperation(Operation):
    """An operation that a kernel may compute.

    `mesh_axes` are the axes of the mesh over which each vmapped axis is sharded, None where they
    are unknown: along automatic mesh axes, XLA chooses.
    """

    implementation: str | None
    mesh_axes: MeshAxes

    @property
    def shared_params(self) -> dict[str, Any]:
        """The parameters that an operation has in common with its derivatives."""
        return {name: self.params[name] for name in ("sizes", "mesh_axes", "implementation")}

    def params_with_axis(self, axis_data):
        mesh_axes = (*self.mesh_axes, young_jax.mapped_over(axis_data))
        return super().params_with_axis(axis_data) | {"mesh_axes": mesh_axes}

    def expand(self, *args):
        needs_devices = dispatch.needs_devices(self.implementation)
        return young_jax.by_platform(self, *args, needs_devices=needs_devices)

    def kernel(self, call: Call, target: young_jax.Target) -> dispatch.Kernel:
        divisible = can_divide(target, are_known=are_known(self.mesh_axes))
        return dispatch.kernel(call, self.implementation, target.platform, divisible=divisible)

    def computed(
        self, kernel: dispatch.Kernel, target: young_jax.Target, function: Callable, *args: Any
    ) -> Any:
        """`function(layout, *args)`, on each device alone where the engine divides the kernel."""
        if kernel.divided_by == "engine" and target.is_divided:
            return on_each_device(function, self.layout, self.out_aval, self.mesh_axes)(*args)
        return function(self.layout, *args)


class _Attention(_KernelOperation):
    """Output and log-sum-exp."""

    def results_of_one_head(self):
        return _results(self.arguments)

    def on(self, target, *args):
        kernel = self.kernel(Call(self.pairs, self.arguments), target)
        tile = self.tile(target.platform)

        def forward(layout: Layout, *args: Any) -> tuple[Table, Table]:
            return kernel.forward(Call(*args), layout, tile)

        return self.computed(kernel, target, forward, *args)

    def jvp(self, primals, tangents):
        (pairs, operands), tangents = primals, without_zeros(tangents[1])
        out, logsumexp = _named(self(pairs, operands))
        (pair_axes, axes), (out_axes, row_axes), _ = self.layout
        inputs = JvpInputs(operands, out, logsumexp, tangents)
        axes_of_inputs = JvpInputs(axes, out_axes, row_axes, where_present(tangents, axes))
        _, moved = _call_jvp(self, (pairs, inputs), (pair_axes, axes_of_inputs))
        return (out, logsumexp), moved

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        results = _named(self(*args))
        return results, (args, results, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        call, results, wanted = res
        (pair_axes, axes), (out_axes, row_axes), _ = self.layout
        gradient_axes = where_wanted(wanted.leaves, axes)
        axes = pair_axes, JvpInputs(axes, out_axes, row_axes, gradient_axes)
        return _no_gradients(call[0]), _call_vjp(self, call, results, outgrad, axes)


class _Derivative(_KernelOperation):
    """Base class of `_Jvp` and `_Vjp`, each linear, and each the transpose of the other.

    Their own derivatives are those of `by_tiles`.
    """

    def by_tiles(self, *args: Any) -> Any:
        """The results as sums over tiles, which have derivatives of every order."""
        raise NotImplementedError

    def jvp(self, primals, tangents):
        tangents = without_zeros(tangents[1])
        function, variables = self._of_variables(primals, tangents)
        return self(*primals), jax.jvp(function, (variables,), (tangents,))[1]

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), (args, Wanted(gradients_wanted(nzs_in[1], args[1])))

    def vjp_bwd_retval(self, res, outgrad, /):
        args, wanted = res
        function, variables = self._of_variables(args, where_wanted(wanted.leaves, args[1]))
        (gradients,) = jax.vjp(function, variables)[1](with_zeros(outgrad))
        return _no_gradients(args[0]), gradients

    def _of_variables(self, args: tuple, present: Any) -> tuple:
        """`by_tiles` as a function of some leaves of the arguments, and these leaves.

        They are those for which `present` is not None. The other leaves are constant.
        """
        pairs, arguments = args
        variables, rest = split(arguments, present)
        return (lambda variables: self.by_tiles(pairs, join(variables, rest))), variables


class _Jvp(_Derivative):
    """Tangents of the results of a call; linear in the tangents of its operands."""

    def results_of_one_head(self):
        return _results(self.arguments.operands)

    def expand(self, *args):
        return self.by_tiles(*args)

    def by_tiles(self, *args):
        pairs, inputs = args
        return online_softmax.jvp(pairs, inputs, self.layout)

    def transpose(self, out_ct, *maybe_accums):
        pairs, (operands, out, logsumexp, tangents) = maybe_accums
        call, results = (pairs, operands), (out, logsumexp)
        accumulate(tangents, _call_vjp(self, call, results, out_ct, self.layout.inputs))


class _Vjp(_Derivative):
    """Gradients of the operands that are wanted; linear in the cotangents of the results.

    `to` are the mapped axes that each gradient has. It is summed over those that it lacks.
    """

    wanted: tuple[bool, ...]
    to: tuple[Axes, ...]

    def results_of_one_head(self):
        return where_wanted(self.wanted, self.arguments.operands)

    def axes_of_results(self, inputs):
        structure = jax.tree.structure(where_wanted(self.wanted, inputs[1].operands))
        return jax.tree.unflatten(structure, self.to)

    def params_with_axis(self, axis_data):
        to = tuple(axes.mapped(0) for axes in self.to)
        return super().params_with_axis(axis_data) | {"to": to}

    def on(self, target, *args):
        kernel = self.kernel(Call(self.pairs, self.arguments.operands), target)

        def backward(layout: Layout, pairs: Pairs, residuals: Residuals) -> Operands:
            return kernel.backward(pairs, residuals, layout, self.wanted)

        return self.computed(kernel, target, backward, *args)

    def by_tiles(self, *args):
        pairs, residuals = args
        return online_softmax.backward(pairs, residuals, self.layout, self.wanted)

    def transpose(self, out_ct, *maybe_accums):
        pairs, (operands, out, logsumexp, *cotangents) = maybe_accums
        tangents = without_zeros(out_ct)
        pair_axes, axes = self.layout.inputs
        tangent_axes = where_present(tangents, self.layout.outputs)
        axes_of_inputs = JvpInputs(axes.operands, axes.out, axes.logsumexp, tangent_axes)
        inputs = JvpInputs(operands, out, logsumexp, tangents)
        jvp, moved = _call_jvp(self, (pairs, inputs), (pair_axes, axes_of_inputs))
        accumulate(cotangents, fit(moved, jvp.layout.outputs, (axes.d_out, axes.d_logsumexp)))


def _call_jvp(op: _KernelOperation, args: tuple, axes: tuple) -> tuple[_Jvp, tuple[Table, Table]]:
    """The `_Jvp` that belongs to an operation, and its results."""
    jvp = _Jvp.of(args, axes, **op.shared_params)
    return jvp, jvp(*args)


def _call_vjp(
    op: _KernelOperation, call: tuple, results: tuple, cotangents: tuple, axes: tuple
) -> Any:
    """Calls the `_Vjp` of an operation: the gradient of each wanted operand, None for the others.

    `axes` is a pair: the axes of `pairs`, and a `JvpInputs` of axes. Its field `tangents` has the
    axes of each wanted gradient, and None for an unwanted one.
    """
    (pairs, operands), (pair_axes, axes_of_inputs) = call, axes
    to = axes_of_inputs.tangents
    wanted = jax.tree.map(lambda _, axes: axes is not None, axes_of_inputs.operands, to)
    wanted = tuple(jax.tree.leaves(wanted))
    if not any(wanted):
        return where_wanted(wanted, operands)
    d_out, d_logsumexp = with_zeros(cotangents[0]), without_zeros(cotangents[1])
    out_axes, row_axes = op.layout.outputs
    d_axes = row_axes if d_logsumexp.values is not None else Table(None, "query")
    out, logsumexp = results
    residuals = Residuals(operands, out, logsumexp, d_out, d_logsumexp)
    own = axes_of_inputs
    axes_of_residuals = Residuals(own.operands, own.out, own.logsumexp, out_axes, d_axes)
    vjp = _Vjp.of(
        (pairs, residuals),
        (pair_axes, axes_of_residuals),
        **op.shared_params,
        wanted=wanted,
        to=tuple(jax.tree.leaves(to)),
    )
    return vjp(pairs, residuals)


def _no_gradients(pairs: Pairs) -> Pairs:
    return jax.tree.map(lambda _: None, pairs)


def _named(results: tuple[Table, Table]) -> tuple[Table, Table]:
    """The same results under the names by which a policy of `jax.checkpoint` may keep them."""
    out, logsumexp = (table.values for table in results)
    out, logsumexp = checkpoint_name(out, OUT), checkpoint_name(logsumexp, LOGSUMEXP)
    return Table(out, "query"), Table(logsumexp, "query")
