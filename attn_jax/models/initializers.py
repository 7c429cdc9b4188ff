"""Initializers of an encoder–decoder's parameters."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, PRNGKeyArray

from attn_jax.models.encoder_decoder_config import EncoderDecoderConfig
from attn_jax.modules.luong import uniform


class Initializers(NamedTuple):
    """One initializer for each kind of matrix; `alignment` is for W_a and U_a."""

    kernel: nnx.Initializer
    embedding: nnx.Initializer
    alignment: nnx.Initializer


def initializers(config: EncoderDecoderConfig) -> Initializers:
    """The initializers of `config.init`: of the decoder's paper (Bahdanau B.1, Luong §4.1), or
    Glorot's."""
    if config.init == "glorot":
        glorot = nnx.initializers.glorot_uniform()
        # Luong's logits depend on a word only through the recurrence, so embeddings are larger.
        unit_rows = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
        unit_entries = nnx.initializers.normal(1.0)
        embedding = unit_entries if config.decoder == "luong" else unit_rows
        return Initializers(kernel=glorot, embedding=embedding, alignment=glorot)
    if config.decoder == "luong":
        return Initializers(uniform(0.1), uniform(0.1), uniform(0.1))
    small, smaller = nnx.initializers.normal(0.01), nnx.initializers.normal(0.001)
    return Initializers(kernel=small, embedding=small, alignment=smaller)


def orthogonal_blocks(
    rng: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32, **_: object
) -> Array:
    """Orthogonal matrices side by side, one for each gate of a fused recurrent kernel [n, G·n]."""
    n, width = shape
    orthogonal = nnx.initializers.orthogonal()
    rngs = nnx.Rngs(params=rng)
    blocks = [orthogonal(rngs.params(), (n, n), dtype) for _ in range(width // n)]
    return jnp.concatenate(blocks, axis=1)
