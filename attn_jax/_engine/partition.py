"""A kernel that XLA cannot divide, on a mesh: each device computes the heads that it holds.

XLA divides its own operations among devices, but no custom call, such as a Pallas kernel. This file
divides one along vmapped axes (heads and batch examples). Other axes are gathered. There are two
ways, and docs/adr/0021 has what was tried:

- `jax.shard_map`, where the sharding of vmapped axes is known when a call is traced: from explicit
  mesh axes, or from the `spmd_axis_name` of a `jax.vmap`.
- custom partitioning, in which XLA tells the sharding when it compiles. XLA for TPUs lacks it
  (https://github.com/jax-ml/jax/issues/38196).
  https://docs.jax.dev/en/latest/jax.experimental.custom_partitioning.html

Inside of the user's `jax.shard_map` nothing is left to divide, and the kernel is called as it is.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from attn_jax._base import numerics, young_jax
from attn_jax._base.axes import Axes, Layout

type MeshAxes = tuple[tuple[str, ...] | None, ...]
"""The axes of the mesh over which each vmapped axis is sharded; None where they are unknown."""


def can_divide(target: young_jax.Target, *, are_known: bool) -> bool:
    """Whether a kernel can be called on each device of a program, if there are several.

    `are_known` says whether it is known how vmapped axes are sharded.
    """
    return not target.is_divided or target.platform != "tpu" or are_known


def are_known(mesh_axes: MeshAxes) -> bool:
    """Whether one knows, while a call is lowered, how its vmapped axes are sharded."""
    return bool(young_jax.mesh_sizes()) and any(names is not None for names in mesh_axes)


def on_each_device(
    function: Callable, layout: Layout, results: Any, mesh_axes: MeshAxes
) -> Callable:
    """Returns a function of the operands that calls `function(layout, *operands)` on each device.

    There operands are the device's part of the arrays, and `layout.sizes` the sizes of that part. A
    result that lacks a vmapped axis over which operands are sharded is summed over the devices.
    `results` is the tree of the types of all results.
    """
    own, to = jax.tree.leaves(layout.inputs), jax.tree.leaves(layout.outputs)
    types, out_tree = jax.tree.flatten(results)

    def divided(*operands: Any) -> Any:
        leaves, in_tree = jax.tree.flatten(operands)

        def of_sizes(sizes: tuple[int, ...], *leaves: Any) -> list:
            operands = jax.tree.unflatten(in_tree, leaves)
            return jax.tree.leaves(function(layout._replace(sizes=sizes), *operands))

        if are_known(mesh_axes):
            over = [names or () for names in mesh_axes]
            mapped = _on_mesh(of_sizes, layout.sizes, over, (leaves, own), (types, to))
            return jax.tree.unflatten(out_tree, mapped(*leaves))
        everything = functools.partial(of_sizes, layout.sizes)
        plan = functools.partial(_plan, of_sizes, layout.sizes, own, to)
        names = _names(leaves, own, "operand"), _names(types, to, "result")
        return jax.tree.unflatten(
            out_tree, young_jax.partitioned(everything, plan, *names)(*leaves)
        )

    return divided


def _on_mesh(
    of_sizes: Callable,
    sizes: tuple[int, ...],
    over: list[tuple[str, ...]],
    inputs: tuple[list, list[Axes]],
    outputs: tuple[list, list[Axes]],
) -> Callable:
    """The function of all devices, where `over` says how vmapped axes are sharded."""

    def specs(arrays: list, axes: list[Axes]) -> list[PartitionSpec]:
        return [_spec(array.ndim, own, over) for array, own in zip(arrays, axes, strict=True)]

    of_one_device = _of_one_device(of_sizes, sizes, outputs[1], over, young_jax.mesh_sizes())
    return young_jax.on_mesh(of_one_device, tuple(specs(*inputs)), specs(*outputs))


def _of_one_device(
    of_sizes: Callable,
    sizes: tuple[int, ...],
    to: list[Axes],
    over: list[tuple[str, ...]],
    mesh_sizes: Mapping[str, int],
) -> Callable:
    """The function of one device: of its part of the operands, its part of the results."""
    devices = [math.prod(mesh_sizes[name] for name in names) for names in over]
    held = tuple(size // n for size, n in zip(sizes, devices, strict=True))

    def of_one_device(*leaves: Any) -> list:
        results = of_sizes(held, *leaves)
        return [_summed(array, axes, over) for array, axes in zip(results, to, strict=True)]

    return of_one_device


def _names(arrays: Any, axes: list[Axes], kind: str) -> list[list[str]]:
    """A name for each axis of each array; axes of one name are sharded alike."""
    return [
        [
            f"vmapped{own.at.index(axis)}" if axis in own.at else f"whole_{kind}{n}_{axis}"
            for axis in range(array.ndim)
        ]
        for n, (array, own) in enumerate(zip(arrays, axes, strict=True))
    ]


def _plan(
    of_sizes: Callable,
    sizes: tuple[int, ...],
    own: list[Axes],
    to: list[Axes],
    mesh: Mesh,
    inputs: Any,
    outputs: Any,
) -> tuple:
    """A mesh, the function of one device on it, and how results and operands are sharded."""
    mesh = _with_prime_axes(mesh)
    over = [_mesh_axes(mesh, level, size, inputs, own) for level, size in enumerate(sizes)]
    of_one_device = _of_one_device(of_sizes, sizes, to, over, mesh.shape)

    def shardings(arrays: Any, axes: list[Axes]) -> list[NamedSharding]:
        specs = (_spec(array.ndim, own, over) for array, own in zip(arrays, axes, strict=True))
        return [NamedSharding(mesh, spec) for spec in specs]

    return mesh, of_one_device, shardings(outputs, to), tuple(shardings(inputs, own))


def _with_prime_axes(mesh: Mesh) -> Mesh:
    """The same devices in the same order along axes of prime sizes.

    XLA may shard an array over a part of an axis: 4 key heads over a factor of 4 of 8 devices.
    """
    sizes = [prime for size in mesh.devices.shape for prime in _prime_factors(size)]
    return Mesh(mesh.devices.reshape(sizes), [f"part{n}" for n in range(len(sizes))])


def _prime_factors(number: int) -> list[int]:
    smallest = next((n for n in range(2, number + 1) if number % n == 0), None)
    return [] if smallest is None else [smallest, *_prime_factors(number // smallest)]


def _mesh_axes(mesh: Mesh, level: int, size: int, arrays: Any, axes: list[Axes]) -> tuple[str, ...]:
    """The axes of the mesh over which a vmapped axis is sharded, in the first array that has it."""
    for array, own in zip(arrays, axes, strict=True):
        axis = own.at[level]
        names = () if axis is None else _sharded_over(mesh, array, axis)
        if names:
            return names if size % math.prod(mesh.shape[name] for name in names) == 0 else ()
    return ()


def _sharded_over(mesh: Mesh, array: Any, axis: int) -> tuple[str, ...]:
    """The axes of the mesh over which an axis of an array is sharded, the longest stride first."""
    held = array.sharding.devices_indices_map(array.shape)
    starts = np.reshape([held[d][axis].start or 0 for d in mesh.devices.flat], mesh.devices.shape)
    strides = {
        name: int(np.take(starts, 1, axis=n).flat[0] - starts.flat[0])
        for n, name in enumerate(mesh.axis_names)
    }
    return tuple(sorted((name for name in strides if strides[name]), key=lambda n: -strides[n]))


def _spec(rank: int, own: Axes, over: list[tuple[str, ...]]) -> PartitionSpec:
    levels = {axis: level for level, axis in enumerate(own.at) if axis is not None}
    return PartitionSpec(
        *((over[levels[axis]] or None) if axis in levels else None for axis in range(rank))
    )


def _summed(array: Any, own: Axes, over: list[tuple[str, ...]]) -> Any:
    """The sum over devices that hold other entries of the vmapped axes which an array lacks."""
    lacking = (names for axis, names in zip(own.at, over, strict=True) if axis is None)
    names = tuple(name for group in lacking for name in group)
    return jax.lax.psum(numerics.wide(array), names).astype(array.dtype) if names else array
