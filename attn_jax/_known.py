"""What is known before a program runs: sizes that are numbers, values that the host can read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


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
