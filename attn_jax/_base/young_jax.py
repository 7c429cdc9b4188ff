"""Everything that this library takes of JAX's experimental or young API.

Where a release of JAX changes one of these, this file is what has to follow.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.hijax import (
    GradAccum,
    HiPrim,
    ShapedArray,
    Zero,
    instantiate_zeros,
    linearize_from_jvp,
)
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.extend.random import threefry_2x32
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
    "array_type",
    "explicit_mesh",
    "instantiate_zeros",
    "jaxpr_as_fun",
    "linearize_from_jvp",
    "threefry_2x32",
    "vary",
    "varying",
    "with_automatic_axes",
]


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


def array_type(shape: tuple[int, ...], dtype: Any, like: Any) -> ShapedArray:
    """The type of an array that varies over the manual axes over which the type `like` does."""
    if not varying(like):
        return ShapedArray(shape, dtype)
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec())
    return ShapedArray(shape, dtype, sharding=sharding, manual_axis_type=like.manual_axis_type)
