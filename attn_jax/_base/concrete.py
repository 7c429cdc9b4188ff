"""What is known before a program runs: concrete sizes, and values that the host can read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_LARGE = 2**16  # entries: XLA gets no larger array as a constant


def are_numbers(*sizes: Any) -> bool:
    """Whether all sizes are known, and none is a symbol of `jax.export`."""
    return not any(map(jax.export.is_symbolic_dim, sizes))


def at_hand(value: Any) -> np.ndarray | None:
    """A value as the host reads it, or None where it cannot: it is traced, other processes hold
    parts of it, or `jax.transfer_guard` forbids to fetch it."""
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    ):
        return None
    try:
        return np.asarray(value)
    except jax.errors.JaxRuntimeError:
        return None


def placed(value: np.ndarray) -> Array:
    """A value of the host on the device; explicitly where `jax.transfer_guard` asks for that."""
    try:
        return jnp.asarray(value)
    except jax.errors.JaxRuntimeError:
        return jax.device_put(value)


def at_run_time[Tree](tree: Tree, *, beside: Any) -> Tree:
    """A tree whose large constants are hidden from XLA's constant folding while `beside` is traced.

    XLA evaluates operations on constants at compile time, which can take seconds. A traced boolean
    array may be computed from a constant, as `mask[None]` is.
    """
    if not isinstance(beside, jax.core.Tracer):
        return tree

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray) or not are_numbers(*leaf.shape):
            return leaf
        may_be_constant = not isinstance(leaf, jax.core.Tracer) or leaf.dtype == jnp.bool_
        is_large = leaf.size >= _LARGE
        return jax.lax.optimization_barrier(leaf) if may_be_constant and is_large else leaf

    return jax.tree.map(one, tree)
