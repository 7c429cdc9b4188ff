"""Caches of every kind for sequences of twelve tokens, and what must hold of each at any time."""

import jax
import jax.numpy as jnp
import numpy as np
from draws import draw

from attn_jax import caches, masks

B, L, N, K, H, V = 3, 12, 4, 2, 8, 5
WINDOW, CHUNK, PAGE = 4, 3, 4

MAKE = {
    "contiguous": lambda **kept: caches.contiguous(B, L, K, H, V, **kept),
    "sliding": lambda **kept: caches.sliding(B, WINDOW, K, H, V, chunk=CHUNK, **kept),
    "paged": lambda **kept: caches.paged(B, L, K, H, V, page=PAGE, **kept),
}


def rule(kind):
    """Who may read whom in one read of a whole sequence."""
    near = masks.sliding_window(WINDOW, 0)
    return masks.causal() & near if kind == "sliding" else masks.causal()


def tokens(seed=0, length=L):
    return draw(seed, (B, length, N, H), (B, length, K, H), (B, length, K, V), dtype=jnp.float32)


def poisoned(cache):
    """The same with NaN wherever numbers are kept: all of its slots are unused."""

    def poison(leaf):
        return jnp.full_like(leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(poison, cache)


def stored(held, row):
    """What a row holds: its positions in order, and their keys and values."""
    position = np.asarray(held.key_position[row])
    slots = [slot for slot in np.argsort(position) if position[slot] < caches.UNUSED]
    return position[slots], np.asarray(held.key[row, slots]), np.asarray(held.value[row, slots])


def assert_holds(held, row, key, value, first=0):
    """The row holds just these tokens, of which the first stands at `first`."""
    positions, keys, values = stored(held, row)
    assert positions.tolist() == list(range(first, first + len(key)))
    np.testing.assert_array_equal(keys, key)
    np.testing.assert_array_equal(values, value)
