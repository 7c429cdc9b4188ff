"""How a cache stores keys and values: in a floating-point dtype, or in eight bits with scales.

A store is a pytree whose leaves are [R K S W]: R sequences (or pages), K heads, S slots, and the W
numbers of one token and head. Heads come before slots because attention is one matmul over the
slots of each head: from [B S K H], XLA for CPUs copies all of it into this order before every
attention call.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Int8

_GREATEST = 127


class Int8Store(NamedTuple):
    """Vectors in eight bits: values times one scale for each token and head.

    Dettmers et al., "LLM.int8()" (2022), section 2.1, https://arxiv.org/abs/2208.07339: absmax
    quantisation. The scale is the greatest entry over 127, and the error of an entry is at most
    half a scale: 1/254 of the greatest.
    """

    values: Int8[Array, "*R W"]
    scale: Float[Array, "*R 1"]


type Store = Float[Array, "..."] | Int8Store


def empty(*shape: int, dtype: DTypeLike, int8: bool) -> Store:
    """Makes a store of zeros.

    Raises:
      TypeError: the dtype is not floating point.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype must be floating point; got {jnp.dtype(dtype)}; for eight bits pass int8=True"
        )
    if not int8:
        return jnp.zeros(shape, dtype)
    return Int8Store(jnp.zeros(shape, jnp.int8), jnp.zeros((*shape[:-1], 1), jnp.float32))


def shape(store: Store) -> tuple[int, ...]:
    """Returns [R K S W], after any axes in front."""
    return jax.tree.leaves(store)[0].shape


def encode(vectors: Float[Array, "*R W"], store: Store) -> Store:
    """Converts vectors to the format of a store."""
    if not isinstance(store, Int8Store):
        return vectors.astype(store.dtype)
    vectors = vectors.astype(jnp.float32)
    scale = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True) / _GREATEST
    values = jnp.round(vectors / jnp.where(scale == 0, 1, scale))
    return Int8Store(values.astype(jnp.int8), scale)


def decode(store: Store, dtype: DTypeLike) -> Float[Array, "*R W"]:
    """Converts a store to vectors of a floating-point dtype."""
    if isinstance(store, Int8Store):
        return (store.values.astype(jnp.float32) * store.scale).astype(dtype)
    return store.astype(dtype)


def rounded(vectors: Float[Array, "*R W"], store: Store) -> Float[Array, "*R W"]:
    """Returns vectors with the rounding error that the store's format gives them."""
    return decode(encode(vectors, store), vectors.dtype)


def write(store: Store, index: tuple, vectors: Float[Array, "*I W"]) -> Store:
    """Writes vectors at an index without duplicates; vectors outside of the store are dropped."""

    def write_leaf(old, new):
        return old.at[index].set(new, mode="drop", unique_indices=True)

    return jax.tree.map(write_leaf, store, encode(vectors, store))


def write_slots(
    store: Store,
    slot: Int[Array, "B T"],
    is_stored: Bool[Array, "B T"],
    vectors: Float[Array, "B T K W"],
) -> Store:
    """Writes each token with `is_stored` to its slot in its own sequence."""
    outside = shape(store)[-2] + jnp.arange(slot.shape[1], dtype=jnp.int32)

    def write_sequence(store, slot, vectors):
        return write(store, (slice(None), slot), vectors)

    slot = jnp.where(is_stored, slot, outside[None, :])
    return jax.vmap(write_sequence)(store, slot, vectors.swapaxes(1, 2))
