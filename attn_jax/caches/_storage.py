"""How keys and values are kept: as they are, or in eight bits with a scale for each token and head.

A store is a pytree whose leaves are [R K S W]: rows (of sequences, or of pages), heads, slots, and
what a head keeps of one token. Heads come before slots because a product over the slots of each
head wants them so: from [B S K H], XLA for CPUs writes all of it anew before every read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Int8

_LEVELS = 127


class Int8Rows(NamedTuple):
    """Whole multiples of a scale, one scale a token and head.

    Dettmers et al., "LLM.int8()" (2022), section 2.1, https://arxiv.org/abs/2208.07339, whose
    absmax quantisation this is. The scale is the greatest entry over 127, and an entry is off by
    half a scale at most: by 1/254 of the greatest.
    """

    values: Int8[Array, "*R W"]
    scale: Float[Array, "*R 1"]


type Store = Float[Array, "..."] | Int8Rows


def empty(*shape: int, dtype: DTypeLike, int8: bool) -> Store:
    """Slots that hold nothing.

    Raises:
      TypeError: the dtype is not floating point.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype must be floating point; got {jnp.dtype(dtype)}; for eight bits pass int8=True"
        )
    if not int8:
        return jnp.zeros(shape, dtype)
    return Int8Rows(jnp.zeros(shape, jnp.int8), jnp.zeros((*shape[:-1], 1), jnp.float32))


def shape(store: Store) -> tuple[int, ...]:
    """[R K S W], with whatever stands before it."""
    return jax.tree.leaves(store)[0].shape


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


def as_kept(rows: Float[Array, "*R W"], store: Store) -> Float[Array, "*R W"]:
    """Rows as a store would give them back."""
    return decode(encode(rows, store), rows.dtype)


def put(store: Store, index: tuple, rows: Float[Array, "*I W"]) -> Store:
    """Replaces the rows at an index, which may not name one twice; what lies outside is dropped."""

    def one(old, new):
        return old.at[index].set(new, mode="drop", unique_indices=True)

    return jax.tree.map(one, store, encode(rows, store))


def put_in_slots(
    store: Store,
    slot: Int[Array, "B T"],
    stays: Bool[Array, "B T"],
    rows: Float[Array, "B T K W"],
) -> Store:
    """Puts each token that stays into a slot of its own sequence."""
    outside = shape(store)[-2] + jnp.arange(slot.shape[1], dtype=jnp.int32)

    def one(store, slot, rows):
        return put(store, (slice(None), slot), rows)

    return jax.vmap(one)(store, jnp.where(stays, slot, outside[None, :]), rows.swapaxes(1, 2))
