"""Dropout with an explicit key: no key, no dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def dropout(
    x: Float[Array, "*shape"], rate: float, rng: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """Zeroes each entry with probability `rate` and divides the others by 1 − rate.

    Srivastava et al., "Dropout" (2014). Without a key, or with rate 0, x comes back as it is:
    evaluation.
    """
    if rng is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
