"""Public calls of models, searches, losses and caches, with JAX as strict as it can be set.

Each runs with strict promotion of dtypes, with ranks that must be written out, and with an error at
the first NaN: in 32 bits, in 64, and as a model of 32 bits where 64 are there. All agree.
"""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import cached_attention, caches
from attn_jax.models import (
    GPT,
    Batch,
    DraftModel,
    EncoderDecoder,
    PromptLookup,
    Sampling,
    beam_search,
    force,
    generate,
    greedy_search,
    noam_schedule,
    sample,
    search,
    smoothed_losses,
    token_losses,
    translation_loss,
)
from tests.helpers.tiny_models import tiny_config
from tests.models.test_gpt import LLAMA, TINY

SETTINGS = {
    "64 bits": (True, np.float64),
    "32 bits where 64 are there": (True, np.float32),
}
RULES = Sampling(1.2, 0.8, top_k=5, top_p=0.9, min_p=0.01)
SHORT = {"num_layers": 2, "windows": (3, None)}


@contextlib.contextmanager
def strict(is_wide: bool):
    with (
        jax.enable_x64(is_wide),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        yield


def drawn(model: nnx.Module, dtype) -> nnx.Module:
    rng = np.random.default_rng(0)
    graph, state = nnx.split(model)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, dtype)  # noqa: E731
    return nnx.merge(graph, jax.tree.map(draw, state))


def gpt(dtype, config=LLAMA, **choices) -> GPT:
    config = dataclasses.replace(config, **(SHORT | choices))
    return drawn(GPT(config, rngs=nnx.Rngs(0)), dtype)


def translator(dtype) -> EncoderDecoder:
    return drawn(EncoderDecoder(tiny_config(dropout_rate=0.2), rngs=nnx.Rngs(0)), dtype)


def reads_texts(dtype):
    model, tokens = gpt(dtype, dropout_rate=0.3), jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
    graph, state = nnx.split(model)

    def loss(state, rng):
        logits = nnx.merge(graph, state)(tokens, rng=rng)
        plain, _ = token_losses(logits, tokens, ignore=0)
        return plain.sum() + smoothed_losses(logits, tokens, 0.1, ignore=0).sum()

    return both_losses(loss, state)


def both_losses(loss, state):
    """The result without dropout; gradients with dropout, which draws by dtype, are finite."""
    gradients = jax.jit(jax.grad(loss))(state, jax.random.key(0))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    return jax.jit(loss, static_argnums=1)(state, None)


def generated_tokens(dtype, **options):
    prompts = [[3, 1, 4, 1, 5, 3, 1], [9, 2]]
    options = {"max_new_tokens": 9, "rng": jax.random.key(0)} | options
    return jnp.array(generate(gpt(dtype), prompts, **options).tokens)


def learns(dtype):
    source, target = jnp.array([[4, 7, 2, 0], [5, 2, 0, 0]]), jnp.array([[5, 6, 2], [7, 2, 0]])
    graph, state = nnx.split(translator(dtype))

    def loss(state, rng):
        batch = Batch(source, source > 0, target, target > 0)
        return translation_loss(nnx.merge(graph, state), batch, rng, smoothing=0.1)[0]

    return both_losses(loss, state)


def translates(dtype):
    model, source = translator(dtype), jnp.array([4, 7, 2, 0])

    def found():
        beams = beam_search(model, source, source > 0, width=2, max_length=4)
        trace = greedy_search(model, source, source > 0, max_length=4)
        again = force(model, source, source > 0, trace.target)
        return beams.tokens, beams.scores, trace.target, trace.weights, again.top_log_probs

    return jax.jit(found)()


def searches(dtype):
    log_probs = jnp.log(jnp.asarray([0.0, 0.0, 0.3, 0.7], dtype))
    return search(lambda state, token: (state, log_probs), (), width=3, max_length=4)


def keeps(dtype, make):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 1, 4)), dtype)
    is_real = jnp.array([[True, True, False], [True, True, True]])

    def read():
        cache, _ = make(dtype).append(rows, rows, is_real)
        cache = cache.rewind(jnp.array([1, 2])).reorder(jnp.array([1, 0]))
        cache = cache.reset(jnp.array([True, False]))
        if hasattr(cache, "share"):
            cache = cache.share(1, jnp.array([True, False]), 1)
        cache, held = cache.append(rows, rows)
        return cached_attention(rows, held), cached_attention(rows, held, splits=2), cache.lengths

    return jax.jit(read)()


def draws(dtype):
    logits = jnp.asarray([0.3, 2.0, -1.0, -np.inf], dtype)
    seen = jnp.array([False, True, False, False])
    return sample(logits, RULES, jax.random.key(0), seen), noam_schedule(8)(jnp.array(3))


SMALL = {"num_layers": 1, "windows": None}
CALLS = {
    "GPT and its losses": reads_texts,
    "generate by all rules": lambda dtype: generated_tokens(
        dtype, sampling=RULES, draft=PromptLookup(3), kind="sliding"
    ),
    "generate with a small model": lambda dtype: generated_tokens(
        dtype, draft=DraftModel(gpt(dtype, TINY, **SMALL), 2), kind="paged", int8=True
    ),
    "losses of an encoder-decoder": learns,
    "searches with it": translates,
    "search": searches,
    "sample": draws,
    "a contiguous cache": lambda dtype: keeps(
        dtype, lambda dtype: caches.contiguous(2, 8, 1, 4, dtype=dtype)
    ),
    "a sliding cache": lambda dtype: keeps(
        dtype, lambda dtype: caches.sliding(2, 2, 1, 4, chunk=3, dtype=dtype)
    ),
    "a paged cache": lambda dtype: keeps(
        dtype, lambda dtype: caches.paged(2, 8, 1, 4, page=2, dtype=dtype)
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_result_is_the_same_with_jax_as_strict_as_it_can_be(call):
    with strict(False):
        expected = jax.tree.map(np.asarray, CALLS[call](np.float32))
    for is_wide, dtype in SETTINGS.values():
        with strict(is_wide):
            got = jax.tree.map(np.asarray, CALLS[call](dtype))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, expected
        )
