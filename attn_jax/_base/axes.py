"""Which axes of each array `vmap` maps. `vmap` moves no array: it only records the axes.

A loop over tiles cuts an array along its query or key axis. Mapped axes stay in each tile, and the
function of a tile is mapped over them. So heads may be any axis of an array.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Axes:
    """For each vmapped axis, innermost first, the axis of an array; None where it is shared.

    `at[n]` is the axis of the array that the n-th `vmap` maps; 0 is the innermost. `Axes` is a leaf
    of pytrees, so that a tree of `Axes` has the structure of a tree of arrays. The other axes of an
    array are its core axes, those of one head.
    """

    at: tuple[int | None, ...] = ()

    def mapped(self, axis: int | None) -> "Axes":
        """With one more vmapped axis outside, for an array that has the new axis already."""
        if axis is None:
            return Axes((*self.at, None))
        moved = (a if a is None or a < axis else a + 1 for a in self.at)
        return Axes((*moved, axis))

    def without(self, level: int) -> "Axes":
        """The axes without one vmapped axis, as seen inside of that `vmap`."""
        axis = self.at[level]
        others = self.at[:level] + self.at[level + 1 :]
        return Axes(tuple(a if a is None or axis is None or a < axis else a - 1 for a in others))

    def in_front(self) -> "Axes":
        """The same axes mapped, before the core axes, the outermost first."""
        mapped = [level for level in reversed(range(len(self.at))) if self.at[level] is not None]
        return Axes(tuple(mapped.index(n) if n in mapped else None for n in range(len(self.at))))

    def core(self, rank: int) -> list[int]:
        """The core axes of an array of this rank, in order."""
        return [axis for axis in range(rank) if axis not in self.at]

    def order(self, rank: int) -> list[int]:
        """All axes of an array of this rank: the mapped ones, then the core axes."""
        return [axis for axis in self.at if axis is not None] + self.core(rank)

    def core_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape[axis] for axis in self.core(len(shape)))

    def full_shape(self, core: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
        """The shape of an array with this core shape and vmapped axes of these sizes."""
        mapped = {axis: size for axis, size in zip(self.at, sizes, strict=True) if axis is not None}
        rest = iter(core)
        return tuple(
            mapped[axis] if axis in mapped else next(rest)
            for axis in range(len(mapped) + len(core))
        )

    def like(self, rank: int, core_rank: int) -> "Axes":
        """Axes for a new array, in the order of a source array that has these axes.

        The source has `rank` axes in all, the new array `core_rank` core axes. All vmapped axes are
        mapped in the new array; those that the source shares come first.
        """
        levels = {axis: level for level, axis in enumerate(self.at) if axis is not None}
        core = itertools.count()
        here = [levels[a] if a in levels else f"core {next(core)}" for a in range(rank)]
        shared = [level for level, axis in enumerate(self.at) if axis is None]
        own = [f"core {n}" for n in range(core_rank)]
        order = [*shared, *(x for x in here if isinstance(x, int) or x in own)]
        return Axes(tuple(order.index(level) for level in range(len(self.at))))


class Layout(NamedTuple):
    """The axes of all arguments and results of an operation, and the sizes of vmapped axes."""

    inputs: Any
    outputs: Any
    sizes: tuple[int, ...] = ()


def in_front(levels: int) -> Axes:
    """Every vmapped axis before the core axes, the outermost first."""
    return Axes(tuple(reversed(range(levels))))


def unmapped(tree: Any) -> Any:
    """The axes of arrays of one head: none is mapped."""
    return jax.tree.map(lambda _: Axes(), tree)


def level(tree: Any, n: int) -> tuple[Any, Any]:
    """Vmapped axis n of every array of a tree, as `vmap` takes it, and the axes inside of it."""
    here = jax.tree.map(lambda axes: axes.at[n], tree)
    return here, jax.tree.map(lambda axes: axes.without(n), tree)


def map_levels(
    function: Callable,
    inputs: tuple,
    outputs: Any,
    sizes: tuple[int, ...] | None = None,
    mesh_axes: tuple[tuple[str, ...], ...] | None = None,
) -> Callable:
    """Maps a function of one head over every vmapped axis of its arguments.

    `sizes` is needed where an axis may be mapped in no argument. `mesh_axes` are the axes of the
    mesh over which each vmapped axis is sharded, where they are known.
    """
    leaves = jax.tree.leaves(inputs)
    levels = len(leaves[0].at) if leaves else 0
    if levels == 0:
        return function
    in_axes, inside = level(inputs, levels - 1)
    out_axes, outside = level(outputs, levels - 1)
    mapped = map_levels(function, inside, outside, sizes, mesh_axes)
    size = None if sizes is None else sizes[levels - 1]
    names = None if mesh_axes is None else mesh_axes[levels - 1]
    return jax.vmap(
        mapped, in_axes=in_axes, out_axes=out_axes, axis_size=size, spmd_axis_name=names
    )


def without_ones(arrays: Any, axes: Any) -> tuple[Any, Any]:
    """Arrays without the mapped axes of size 1, which are then shared."""

    def split(array: Array, own: Axes) -> tuple[Array, Axes]:
        ones = [a for a in own.at if a is not None and array.shape[a] == 1]
        left = (
            None if a is None or a in ones else a - sum(one < a for one in ones) for a in own.at
        )
        return jnp.squeeze(array, ones), Axes(tuple(left))

    both = jax.tree.map(split, arrays, axes)
    return jax.tree.transpose(jax.tree.structure(arrays), jax.tree.structure((0, 0)), both)


def fit(values: Any, own: Any, wanted: Any) -> Any:
    """Arrays with the axes `wanted` instead of `own`: summed over those they lack, and transposed.

    `own` must map every axis that `wanted` maps. None where there are no axes, or no array.
    """

    def one(axes: Axes, to: Axes | None, array: Any) -> Any:  # an array or a constant of a jaxpr
        if array is None or to is None:
            return None
        for n in reversed(range(len(to.at))):
            if to.at[n] is None:
                array = array if axes.at[n] is None else jnp.sum(array, axes.at[n])
                axes, to = axes.without(n), to.without(n)
        source, target = axes.order(array.ndim), to.order(array.ndim)
        return array if source == target else _transposed(array, source, target)

    return jax.tree.map(one, own, wanted, values)


def _transposed(array: Array, source: list[int], target: list[int]) -> Array:
    """`moveaxis` with one more axis: XLA for CPUs copies three axes twice, and four once."""
    order = [source[target.index(axis)] for axis in range(array.ndim)]
    wide = jax.lax.expand_dims(array, (array.ndim,))
    return jax.lax.squeeze(jax.lax.transpose(wide, (*order, array.ndim)), (array.ndim,))
