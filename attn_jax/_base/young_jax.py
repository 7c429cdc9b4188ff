"""All of JAX's experimental or young API that this library uses.

Where a release of JAX changes one of these, this file is what has to follow.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    SdyShardingRule,
    custom_partitioning,
)
from jax.experimental.hijax import (
    GradAccum,
    HiPrim,
    ShapedArray,
    Zero,
    instantiate_zeros,
    linearize_from_jvp,
)
from jax.extend.core import (
    ClosedJaxpr,
    DropVar,
    Jaxpr,
    JaxprEqn,
    Literal,
    Primitive,
    Var,
    jaxpr_as_fun,
)
from jax.extend.random import threefry_2x32
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

__all__ = [
    "ClosedJaxpr",
    "DropVar",
    "GradAccum",
    "HiPrim",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "ShapedArray",
    "Var",
    "Zero",
    "by_platform",
    "explicit_mesh",
    "instantiate_zeros",
    "jaxpr_as_fun",
    "linearize_from_jvp",
    "partitioned",
    "threefry_2x32",
    "types_like",
    "vary",
    "varying",
    "with_automatic_axes",
]


def abstract_device_kind() -> str | None:
    """The kind of device that a program is made for under `jax.sharding.use_abstract_mesh`."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return None if device is None else device.device_kind


def explicit_mesh(arrays: list) -> Any:
    """The first mesh with explicit axes over which one of the arrays is sharded, or None."""
    meshes = (jax.typeof(array).sharding.mesh for array in arrays)
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def with_automatic_axes(function: Callable, mesh: Any, out_shardings: Any) -> Callable:
    """The function with the explicit axes of a mesh made automatic inside of it."""
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=out_shardings)


def varying(array: Any) -> frozenset[str]:
    """The manual axes, those of `jax.shard_map`, over which an array or a type varies."""
    kind = array if isinstance(array, ShapedArray) else jax.typeof(array)
    return frozenset(kind.manual_axis_type.varying)


def vary(array: Any, axes: frozenset[str]) -> Any:
    """The same array (or constant of a jaxpr), said to vary over these manual axes as well."""
    return jax.lax.pcast(array, tuple(axes), to="varying") if axes else array


def types_like(like: Any) -> Callable[..., ShapedArray]:
    """Makes types of a shape and a dtype that vary over the manual axes over which `like` does."""
    if not varying(like):
        return ShapedArray
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec())
    kind = like.manual_axis_type
    return functools.partial(ShapedArray, sharding=sharding, manual_axis_type=kind)


def partitioned(
    function: Callable, plan: Callable, inputs: list[list[str]], outputs: list[list[str]]
) -> Callable[..., list]:
    """A function of arrays whose call is divided among devices along some of their axes.

    Each axis of each operand and result has a name: axes of one name are divided alike, those
    whose name starts with "whole" are not divided. `plan(mesh, operands, results)` gives a
    mesh of the same devices, the function of one device, and the shardings of results and operands.
    """
    whole = {name for names in (*inputs, *outputs) for name in names if name.startswith("whole")}
    sides = (tuple(ArrayMapping(*names) for names in side) for side in (inputs, outputs))
    rule = SdyShardingRule(*sides, need_replication_factors=tuple(sorted(whole)))
    divided = custom_partitioning(function)
    divided.def_partition(plan, sharding_rule=rule, decode_shardings=False)
    return divided


def by_platform(operation: HiPrim, *args: Any, needs_devices: bool = False) -> Any:
    """`operation.on(platform, *args)`, traced when it is known for which platform that is.

    A program may be lowered for a platform that is not here, and for several. `needs_devices` says
    that `on` may give a call that is divided among devices, such as one of `partitioned`.
    """
    beside = _divided_call() if needs_devices else None
    results = _by_platform.bind(*jax.tree.leaves(args), operation=operation, beside=beside)
    return jax.tree.unflatten(operation.out_tree, results)


@functools.cache
def _divided_call() -> ClosedJaxpr:
    """A program with a divided call: JAX tells the devices to lowerings of programs that have one.

    It looks for such calls before the lowering, when a platform's own program is not traced yet.
    """
    return jax.make_jaxpr(partitioned(lambda x: [x], lambda *_: (), [[]], [[]]))(0.0)


def _on(operation: HiPrim, platform: str) -> Callable:
    def flat(*leaves: Any) -> list:
        args = jax.tree.unflatten(operation.in_tree, leaves)
        return jax.tree.leaves(operation.on(platform, *args))  # pyrefly: ignore[missing-attribute]

    return flat


def _lowered(context: Any, *leaves: Any, operation: HiPrim, beside: ClosedJaxpr | None) -> Any:
    del beside
    platforms = context.platforms or context.module_context.platforms
    each = {platform: _on(operation, platform) for platform in platforms}
    (function, *others) = each.values()
    if others:
        function = functools.partial(jax.lax.platform_dependent, **each)
    # The types that the operation was made for: a residual may have explicit axes outside of it.
    context = context.replace(avals_in=operation.in_avals_flat)
    return mlir.lower_fun(function)(context, *leaves)


_by_platform = Primitive("by_platform")
_by_platform.multiple_results = True
_by_platform.def_abstract_eval(lambda *_, operation, beside: operation.out_avals_flat)
_by_platform.def_impl(
    lambda *leaves, operation, beside: _on(operation, jax.default_backend())(*leaves)
)
# One function of the program, which equal operations call: each layer of a model is one.
mlir.register_lowering(_by_platform, _lowered, inline=False)
