"""Dropout with an explicit random key; without a key there is no dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def dropout(
    x: Float[Array, "*B D"], rate: float, rng: Key[Array, ""] | None
) -> Float[Array, "*B D"]:
    """Zeroes each entry with probability `rate` and divides the others by 1 − rate.

    Srivastava et al., "Dropout" (2014), https://jmlr.org/papers/v15/srivastava14a.html. Without a
    key (in evaluation), or with rate 0, x is returned unchanged.
    """
    if rng is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def split(rng: Key[Array, ""] | None, number: int) -> list[Key[Array, ""] | None]:
    """Splits a random key into a number of keys; returns as many None if the key is None."""
    return [None] * number if rng is None else list(jax.random.split(rng, number))
