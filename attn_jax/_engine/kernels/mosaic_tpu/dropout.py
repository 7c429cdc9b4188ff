"""Dropout inside of a kernel: the random bits of `attn_jax.dropout_mask`, computed on a tile.

Threefry-2x32 with 20 rounds (Salmon et al. 2011, table 2 and section 3.3), as JAX's PRNG computes
it. Integers are signed here, since the chip compares no unsigned ones; sums wrap around alike.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def keeps(inputs: list[Array], rate: float) -> Bool[Array, "s t"]:
    """True for a weight that is kept, from the seed [1 1] twice, query rows and key rows."""
    *seed, query_row, key_row = inputs
    shape = key_row.shape[0], query_row.shape[1]
    bits = _threefry(seed, *(jnp.broadcast_to(row, shape) for row in (query_row, key_row)))
    threshold = np.uint32(min(round(rate * 2**32), 2**32 - 1))
    least = np.int32(-(2**31))
    return (bits ^ least) >= (threshold.view(np.int32) ^ least)  # as unsigned integers


def _threefry(
    seed: list[Int[Array, "1 1"]], first: Int[Array, "s t"], second: Int[Array, "s t"]
) -> Int[Array, "s t"]:
    """The first word of the cipher of two words."""
    keys = [*seed, seed[0] ^ seed[1] ^ np.int32(_PARITY)]
    first, second = first + keys[0], second + keys[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            first = first + second
            second = _rotated(second, distance) ^ first
        first = first + keys[(block + 1) % 3]
        second = second + keys[(block + 2) % 3] + np.int32(block + 1)
    return first


def _rotated(values: Int[Array, "s t"], distance: int) -> Int[Array, "s t"]:
    """Bits turned to the left."""
    right = jax.lax.shift_right_logical(values, jnp.full_like(values, 32 - distance))
    return jax.lax.shift_left(values, jnp.full_like(values, distance)) | right
