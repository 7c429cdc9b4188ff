"""Absolute position encodings: vectors that are added to the embeddings of tokens."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attn_jax._base import checks


def sinusoidal(position: Int[Array, " T"], dim: int) -> Float[Array, "T D"]:
    """Sinusoidal position encodings: sines and cosines of geometrically growing wavelengths.

    Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762. Sine and cosine alternate,
    as in the paper (tensor2tensor puts all sines first).

      out[t, 2i] = sin(position[t] / 10000^(2i/dim)),   out[t, 2i+1] = cos(position[t] /
      10000^(2i/dim))

    Args:
      position: the position of each token; any integers, in any order.
      dim: width of the result, an even number.

    Returns:
      The encodings in float32.

    Raises:
      ValueError: dim is odd or not positive.

    Numerics:
      Angles in float32: at position p the error is about p · 6e-8 radians.

    Cost:
      O(T dim).

    Example:
      >>> print(attn_jax.positions.sinusoidal(jnp.array([0, 1]), 4).round(4))
      [[0.     1.     0.     1.    ]
       [0.8415 0.5403 0.01   1.    ]]
    """
    if dim < 2 or dim % 2:
        raise ValueError(
            f"dim must be even and at least 2, for pairs of sine and cosine; got {dim}"
        )
    frequency = jnp.asarray(10_000.0 ** (-np.arange(0, dim, 2) / dim), jnp.float32)
    angle = position.astype(jnp.float32)[:, None] * frequency[None, :]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(-1, dim)


def learned(table: Float[Array, "P D"], position: Int[Array, " T"]) -> Float[Array, "T D"]:
    """Learned position encodings: one trained vector for each position.

    Gehring et al., "Convolutional Sequence to Sequence Learning" (2017), section 3.1,
    https://arxiv.org/abs/1705.03122; GPT uses them too.

      out[t] = table[position[t]]

    Args:
      table: the trained vectors of P positions.
      position: the position of each token, from 0 to P − 1.

    Returns:
      One vector for each token, in the table's dtype; NaN for a position outside of the table.

    Raises:
      ValueError: table or position has another number of axes.

    Cost:
      O(T D).

    Example:
      >>> table = jnp.array([[1.0], [2.0], [3.0]])
      >>> attn_jax.positions.learned(table, jnp.array([2, 0])).tolist()
      [[3.0], [1.0]]
    """
    checks.check_shapes(table=(table, "P D"), position=(position, "T"))
    P = table.shape[0]
    inside = (position >= 0) & (position < P)
    return jnp.where(inside[:, None], jnp.take(table, position, axis=0, mode="clip"), jnp.nan)
