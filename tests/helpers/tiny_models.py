"""Models small enough to compute by hand: every axis has its own size, no parameter is special."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from attn_jax.models import EncoderDecoder, EncoderDecoderConfig

SOURCE_VOCAB, TARGET_VOCAB = 11, 9
EMBED, HIDDEN, ALIGN, READOUT = 2, 3, 5, 4

SOURCE = jnp.array([4, 10, 7, 5, 8, 2])
TARGET = jnp.array([5, 8, 6, 2])

VARIANTS = {
    "attention": {},
    "attention-gru": {"cell": "gru"},
    "attention-lstm": {"cell": "lstm"},
    "final": {"context": "final"},
    "final-lstm": {"context": "final", "cell": "lstm"},
    "luong-general-lstm": {"decoder": "luong", "score": "general", "cell": "lstm"},
    "luong-concat": {"decoder": "luong", "score": "concat"},
    "luong-local": {"decoder": "luong", "score": "local", "local_window": 2},
}


def tiny_config(**choices) -> EncoderDecoderConfig:
    sizes = {"embed_dim": EMBED, "hidden_dim": HIDDEN, "align_dim": ALIGN, "readout_dim": READOUT}
    return EncoderDecoderConfig(SOURCE_VOCAB, TARGET_VOCAB, **(sizes | choices))


def drawn(module: nnx.Module, seed: int = 0, dtype=jnp.float32) -> nnx.Module:
    """The module with every parameter random: biases and v_a too, which start at zero."""
    rng = np.random.default_rng(seed)
    graphdef, state = nnx.split(module)
    draws = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.7, dtype), state)
    return nnx.merge(graphdef, draws)


def tiny_model(*, seed: int = 0, dtype=jnp.float32, **choices) -> EncoderDecoder:
    return drawn(EncoderDecoder(tiny_config(**choices), rngs=nnx.Rngs(0)), seed, dtype)


def all_tokens(ids) -> jax.Array:
    return jnp.ones(ids.shape, bool)


def steps(model, memory, tokens):
    """Decodes step by step in a Python loop, and stacks the steps' outputs."""
    state, said = model.start(memory), []
    for token in tokens:
        state, step = model.step(memory, state, token)
        said.append(step)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *said)
