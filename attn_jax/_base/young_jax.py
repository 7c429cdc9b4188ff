"""All of JAX's experimental or young API that this library uses.

Where a release of JAX changes one of these, this file is what has to follow.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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
    "Target",
    "Var",
    "Zero",
    "by_platform",
    "explicit_mesh",
    "instantiate_zeros",
    "is_all_explicit",
    "jaxpr_as_fun",
    "linearize_from_jvp",
    "mapped_over",
    "mesh_sizes",
    "on_mesh",
    "partitioned",
    "shapes_like",
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


def is_all_explicit(mesh: Any) -> bool:
    """Whether all axes of a mesh are explicit, so that types say how arrays are sharded."""
    return set(mesh.explicit_axes) == set(mesh.axis_names)


def with_automatic_axes(function: Callable, mesh: Any, out_shardings: Any) -> Callable:
    """The function with the explicit axes of a mesh made automatic inside of it."""
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=out_shardings)


def mapped_over(axis_data: Any) -> tuple[str, ...] | None:
    """The mesh axes over which the axis of a `vmap` is sharded; None where they are unknown.

    They are known from `spmd_axis_name`, or from explicit axes that were made automatic inside.
    """
    given = axis_data.spmd_name
    return getattr(axis_data, "_ema", None) if given is None else given


def on_mesh(function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`jax.shard_map` over the axes of the present mesh that are not manual yet."""
    names = mesh_sizes().keys()
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, axis_names=set(names), check_vma=False
    )


def mesh_sizes() -> dict[str, int]:
    """The size of each axis of the present mesh that is not manual; empty where there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    return {name: size for name, size in mesh.shape.items() if name not in mesh.manual_axes}


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


def shapes_like(like: Any) -> Callable[..., jax.ShapeDtypeStruct]:
    """Makes the `out_shape` of a Pallas call: results that vary over the manual axes of `like`."""
    return functools.partial(
        jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(like).manual_axis_type
    )


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


class Target(NamedTuple):
    """What a program is lowered for.

    `is_divided` says that the compiler divides it among several devices. Inside of `jax.shard_map`
    over all axes of a mesh, nothing is left to divide.
    """

    platform: str
    is_divided: bool = False


def by_platform(operation: HiPrim, *args: Any, needs_devices: bool = False) -> Any:
    """`operation.on(target, *args)`, traced when it is known for which target that is.

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


def _on(operation: HiPrim, target: Target) -> Callable:
    def flat(*leaves: Any) -> list:
        args = jax.tree.unflatten(operation.in_tree, leaves)
        return jax.tree.leaves(operation.on(target, *args))  # pyrefly: ignore[missing-attribute]

    return flat


def _lowered(context: Any, *leaves: Any, operation: HiPrim, beside: ClosedJaxpr | None) -> Any:
    del beside
    platforms = context.platforms or context.module_context.platforms
    is_divided = _is_divided(context.module_context.axis_context)
    each = {platform: _on(operation, Target(platform, is_divided)) for platform in platforms}
    (function, *others) = each.values()
    if others:
        function = functools.partial(jax.lax.platform_dependent, **each)
    # The types that the operation was made for: a residual may have explicit axes outside of it.
    context = context.replace(avals_in=operation.in_avals_flat)
    return mlir.lower_fun(function)(context, *leaves)


def _is_divided(axis_context: Any) -> bool:
    """Whether the compiler divides a program among devices, by the context of its lowering."""
    mesh = getattr(axis_context, "mesh", None)
    if mesh is None:
        return getattr(axis_context, "num_devices", 1) > 1
    manual = {*axis_context.manual_axes, *mesh.manual_axes}
    return any(name not in manual for name in mesh.axis_names)


_by_platform = Primitive("by_platform")
_by_platform.multiple_results = True
_by_platform.def_abstract_eval(lambda *_, operation, beside: operation.out_avals_flat)
_by_platform.def_impl(
    lambda *leaves, operation, beside: _on(operation, Target(jax.default_backend()))(*leaves)
)
# One function of the program, which equal operations call: each layer of a model is one.
mlir.register_lowering(_by_platform, _lowered, inline=False)
