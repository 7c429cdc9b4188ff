"""Parameters for a GPT that was never trained: normal numbers, different in all parts."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from attn_jax.models import GPT, DecoderConfig


def random_params(config: DecoderConfig) -> nnx.State:
    """As `nnx.state` of the model, without the time that drawing them in JAX takes to compile."""
    rng = np.random.default_rng(0)
    shapes = nnx.state(nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0))))
    return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), shapes)
