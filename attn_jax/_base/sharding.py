"""Explicit and manual mesh axes, for code that loops over tiles.

With explicit mesh axes every operation must say how its result is sharded, and `vmap` requires that
mapped arrays are sharded alike, which options shared by all heads are not. So explicit axes are
made automatic inside of an attention call, and `_heads.mesh_axes` keeps what they say. With manual
axes, those of `jax.shard_map`, the carry of a loop must always vary over the same axes.
https://docs.jax.dev/en/latest/notebooks/explicit-sharding.html
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from attn_jax._base import young_jax


def axes_of(*pairs: tuple[Any, int]) -> PartitionSpec:
    """How a result is sharded by explicit axes that has these axes of (array, axis) each."""
    return PartitionSpec(*(jax.typeof(array).sharding.spec[axis] for array, axis in pairs))


def names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes in an entry of a `PartitionSpec`."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def on_automatic_axes(out_specs: Callable) -> Callable:
    """Makes explicit axes automatic inside of a function of trees of arrays, and nowhere else.

    `out_specs(*operands)` returns how the results are sharded. Keywords are static options.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*operands, **options):
            inside = functools.partial(function, **options)
            mesh = young_jax.explicit_mesh(jax.tree.leaves(operands))
            if mesh is None:
                return inside(*operands)
            shardings = jax.tree.map(
                functools.partial(NamedSharding, mesh),
                out_specs(*operands),
                is_leaf=lambda node: isinstance(node, PartitionSpec),
            )
            return young_jax.with_automatic_axes(inside, mesh, shardings)(*operands)

        return wrapped

    return decorate


def vary_alike(tree: Any) -> Any:
    """The same arrays, each varying over all manual axes over which one of them does."""
    union = frozenset().union(*map(young_jax.varying, jax.tree.leaves(tree)))
    if not union:
        return tree
    return jax.tree.map(lambda leaf: young_jax.vary(leaf, union - young_jax.varying(leaf)), tree)


def types(tree: Any, like: Any) -> Any:
    """Types of arrays of these shapes, varying over the manual axes over which `like` does."""
    type_like = young_jax.types_like(jax.tree.leaves(like)[0])
    return jax.tree.map(lambda x: type_like(x.shape, x.dtype), tree)
