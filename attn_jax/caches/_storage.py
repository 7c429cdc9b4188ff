"""How rows of keys and values are kept: as they are, or in eight bits with a scale a row.

A store is a pytree whose leaves begin with the same axes, so that rows are put and taken by the
same indices whatever the format.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int8

from attn_jax import _checks

_LEVELS = 127


class Int8Rows(NamedTuple):
    """Rows as whole multiples of a scale of their own, as Dettmers et al. (2022), section 2.1.

    https://arxiv.org/abs/2208.07339. An entry is off by half a scale at most, which is the greatest
    entry of its row over 254.
    """

    values: Int8[Array, "*R W"]
    scale: Float[Array, "*R 1"]


type Store = Float[Array, "..."] | Int8Rows


def empty(*shape: int, dtype: DTypeLike, int8: bool) -> Store:
    """Rows of zeros.

    Raises:
      TypeError: the dtype is not floating point.
      ValueError: an axis is shorter than 1.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating point; got {jnp.dtype(dtype)}")
    for size in shape:
        _checks.check_size("every size of a cache (B, capacity, K, H, V, pages)", size)
    if not int8:
        return jnp.zeros(shape, dtype)
    return Int8Rows(jnp.zeros(shape, jnp.int8), jnp.zeros((*shape[:-1], 1), jnp.float32))


def encode(rows: Float[Array, "*R W"], store: Store) -> Store:
    """Rows in the format of a store."""
    if not isinstance(store, Int8Rows):
        return rows.astype(store.dtype)
    rows = rows.astype(jnp.float32)
    scale = jnp.max(jnp.abs(rows), axis=-1, keepdims=True) / _LEVELS
    values = jnp.round(rows / jnp.where(scale == 0, 1, scale))
    return Int8Rows(values.astype(jnp.int8), scale)


def decode(store: Store, dtype: DTypeLike) -> Float[Array, "*R W"]:
    """Rows as numbers to compute with."""
    if isinstance(store, Int8Rows):
        return (store.values.astype(jnp.float32) * store.scale).astype(dtype)
    return store.astype(dtype)


def put(store: Store, index: Array, rows: Float[Array, "*I W"]) -> Store:
    """Replaces the rows at an index into the first axis; rows whose index is past it are dropped.

    No two of them may have the same place.
    """

    def one(old, new):
        return old.at[index].set(new, mode="drop", unique_indices=True)

    return jax.tree.map(one, store, encode(rows, store))
