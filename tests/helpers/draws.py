"""Inputs for tests: normal draws from a given seed."""

import jax
import jax.numpy as jnp
import numpy as np


def draw(seed: int, *shapes: tuple[int, ...], dtype=jnp.float64) -> list[jax.Array]:
    """One array per shape; float64 needs the fixture `x64`."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
