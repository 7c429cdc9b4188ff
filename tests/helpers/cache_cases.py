"""Caches of every kind for sequences of twelve tokens, and a plain Python model of each.

Few shapes are compiled: a piece of any length is padded to `PIECE` tokens.
"""

import jax
import jax.numpy as jnp
import numpy as np

import attn_jax
from attn_jax import caches, masks
from tests.helpers.draws import draw

B, L, N, K, H, V = 3, 12, 4, 2, 8, 5
WINDOW, CHUNK, PAGE, PIECE = 4, 3, 4, 3

MAKE = {
    "contiguous": lambda **kept: caches.contiguous(B, L, K, H, V, **kept),
    "sliding": lambda **kept: caches.sliding(B, WINDOW, K, H, V, chunk=CHUNK, **kept),
    "paged": lambda **kept: caches.paged(B, L, K, H, V, page=PAGE, **kept),
}

append = jax.jit(lambda cache, *tokens: cache.append(*tokens))
rewind = jax.jit(lambda cache, lengths: cache.rewind(lengths))
reorder = jax.jit(lambda cache, rows: cache.reorder(rows))
reset = jax.jit(lambda cache, rows: cache.reset(rows))


@jax.jit
def step(cache, query, key, value, is_real=None):
    cache, held = cache.append(key, value, is_real)
    return cache, attn_jax.cached_attention(query, held)


def rule(kind):
    """The mask of one attention call over the whole sequence."""
    near = masks.sliding_window(WINDOW, 0)
    return masks.causal() & near if kind == "sliding" else masks.causal()


def tokens(seed=0, length=L, dtype=jnp.float32):
    return draw(seed, (B, length, N, H), (B, length, K, H), (B, length, K, V), dtype=dtype)


def poisoned(cache):
    """An empty cache with NaN in all its slots."""

    def poison(leaf):
        return jnp.full_like(leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(poison, cache)


def piece(arrays, start, length):
    """`length` tokens from `start` on, padded with NaN to `PIECE`, and the mask of real tokens."""
    padding = [(0, 0), (0, PIECE - length), (0, 0), (0, 0)]
    padded = [
        jnp.pad(array[:, start : start + length], padding, constant_values=jnp.nan)
        for array in arrays
    ]
    return (*padded, jnp.broadcast_to(jnp.arange(PIECE)[None, :] < length, (B, PIECE)))


def stored(held, row):
    """The positions of a batch example in order, with their keys and values."""
    position = np.asarray(held.key_position[row])
    slots = [slot for slot in np.argsort(position) if position[slot] < caches.UNUSED]
    return position[slots], np.asarray(held.key)[row, slots], np.asarray(held.value)[row, slots]


def contents_of(cache):
    """The tokens of a cache, without new ones."""
    nothing = jnp.zeros((B, PIECE, K, H)), jnp.zeros((B, PIECE, K, V))
    return append(cache, *nothing, jnp.zeros((B, PIECE), bool))[1]


def assert_holds(held, row, key, value, first=0):
    """The batch example holds exactly these tokens; the first has position `first`."""
    positions, keys, values = stored(held, row)
    assert positions.tolist() == list(range(first, first + len(key)))
    np.testing.assert_array_equal(keys, key)
    np.testing.assert_array_equal(values, value)


class Row:
    """One sequence of a cache in plain Python: numbers by position, in a ring of slots."""

    def __init__(self, slots=None):
        self.slots, self.length, self.ring = slots, 0, {}

    def append(self, number):
        self.ring[self.length if self.slots is None else self.length % self.slots] = (
            self.length,
            number,
        )
        self.length += 1

    def stored_numbers(self):
        return {place: number for place, number in self.ring.values() if place < self.length}

    def can_rewind_to(self, length):
        """Whether all tokens that its next token attends to are still stored."""
        reach = length if self.slots is None else WINDOW
        return set(range(max(0, length - reach), length)) <= set(self.stored_numbers())

    def copy(self, length=None):
        other = Row(self.slots)
        other.ring, other.length = dict(self.ring), self.length if length is None else length
        if other.length == 0:
            other.ring = {}
        return other
