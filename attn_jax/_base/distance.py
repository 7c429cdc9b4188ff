"""Distances of positions, in integers that saturate instead of wrapping around."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from attn_jax._base import concrete

FARTHEST = 2**31 - 1
"""The greatest position, and so the greatest distance from position 0."""


def distance(query_position: Int[Array, "..."], key_position: Int[Array, "..."]) -> Array:
    """key_position - query_position in int32, at most ±`FARTHEST`; in int64 where one is."""
    pair = jnp.asarray(query_position), jnp.asarray(key_position)
    dtype = jnp.int64 if any(side.dtype.itemsize == 8 for side in pair) else jnp.int32
    query, key = (side.astype(dtype) for side in pair)
    end = int(jnp.iinfo(dtype).max)
    difference, is_before = key - query, key < query
    wraps = (difference < 0) != is_before
    return jnp.maximum(jnp.where(wraps, jnp.where(is_before, -end, end), difference), -end)


def check_int32(name: str, values: Int[Array | np.ndarray, "..."]) -> None:
    """Checks the numbers of a NumPy array, which JAX would silently truncate to 32 bits.

    Raises:
      ValueError: one is beyond int32.
    """
    if not isinstance(values, np.ndarray | np.generic) or not values.size:
        return
    for number in (values.min(), values.max()):
        if not -FARTHEST - 1 <= int(number) <= FARTHEST:
            raise ValueError(f"{name} must be within int32; got {number}")


def to_int32(name: str, values: Int[Array | np.ndarray, "..."]) -> Int[Array, "..."]:
    """Integers as int32. A traced array of a wider dtype saturates at ±`FARTHEST`.

    Raises:
      ValueError: a NumPy array has a number beyond int32.
    """
    check_int32(name, values)
    if isinstance(values, np.ndarray | np.generic):
        return concrete.placed(values.astype(np.int32))
    if values.dtype.itemsize <= 4 and values.dtype != jnp.uint32:
        return values.astype(jnp.int32)
    least = 0 if values.dtype == jnp.uint32 else -FARTHEST
    return jnp.clip(values, least, FARTHEST).astype(jnp.int32)
