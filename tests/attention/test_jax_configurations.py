"""Every public function of attention under float64 and under `jax_debug_nans`.

The whole suite runs under strict promotion of dtypes and ranks (conftest.py).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import caches, masks, positions, score_mods, scores

B, T, N, K, H, V = 2, 5, 4, 2, 6, 3
POSITION = jnp.arange(T)
DOCUMENT = np.array([0, 0, 1, 1, 1])


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.result_type(float))


def one_head(attention, **options):
    return attention(numbers(T, H), numbers(T, H), numbers(T, V), **options)


def many_heads(attention, **options):
    return attention(numbers(B, T, N, H), numbers(B, T, K, H), numbers(B, T, K, V), **options)


def gradient(attention, **options):
    def loss(query, key, value):
        return jnp.sum(jnp.square(attention(query, key, value, **options)))

    return jax.grad(loss, (0, 1, 2))(numbers(B, T, N, H), numbers(B, T, K, H), numbers(B, T, K, V))


def with_a_cache():
    cache = caches.contiguous(B, T, K, H, V, dtype=jnp.result_type(float))
    _, held = cache.append(numbers(B, 2, K, H), numbers(B, 2, K, V))
    return attn_jax.cached_attention(numbers(B, 2, N, H), held)


EMPTY_ROW = np.array([False, True, True, True, True])
dot_product_attention = attn_jax.dot_product_attention
CALLS = {
    "attend": partial(one_head, attn_jax.attend, mask=masks.causal()),
    "attend by tiles": partial(
        one_head,
        attn_jax.attend,
        mask=masks.segments(DOCUMENT) & masks.causal(),
        score_mod=score_mods.alibi(0.5) >> score_mods.soft_cap(3.0),
        implementation="blockwise",
    ),
    "attend with a score": partial(
        one_head, attn_jax.attend, score=lambda q, k: scores.additive(q, k, jnp.ones(H, q.dtype))
    ),
    "logsumexp": partial(one_head, attn_jax.attend_with_logsumexp, sink=0.5),
    "weights": lambda: attn_jax.attention_weights(numbers(T, H), numbers(T, H)),
    "stats": lambda: attn_jax.attention_stats(numbers(T, H), numbers(T, H), mask=masks.causal()),
    "heads": partial(many_heads, dot_product_attention, local_window_size=(2, 1)),
    "heads with a fully masked query": partial(
        gradient,
        dot_product_attention,
        mask=jnp.asarray(EMPTY_ROW[:, None] & np.ones(T, bool))[None, None],
        bias=jnp.zeros((1, 1, 1, T)),
    ),
    "heads that drop": partial(
        gradient,
        dot_product_attention,
        dropout_rate=0.5,
        dropout_rng=jax.random.key(0),
        implementation="blockwise",
    ),
    "lengths": partial(gradient, dot_product_attention, key_value_seq_lengths=jnp.array([0, 3])),
    "block mask": lambda: many_heads(
        dot_product_attention, mask=attn_jax.block_mask(masks.causal(), T, T, tile=(2, 2))
    ),
    "relative bias": partial(
        many_heads,
        dot_product_attention,
        score_mod=score_mods.relative_bias(np.ones(8, np.float32), bidirectional=True),
    ),
    "dropout_mask": lambda: attn_jax.dropout_mask(jax.random.key(0), 0.5, POSITION, POSITION),
    "merge": lambda: attn_jax.merge_partials(*[one_head(attn_jax.attend_with_logsumexp)] * 2),
    "self-attention": lambda: attn_jax.simplified_self_attention(numbers(T, H)),
    "rotary": lambda: positions.rotary(numbers(T, N, H), POSITION, positions.rotary_frequencies(H)),
    "cache": with_a_cache,
}
SETTINGS = {"x64": jax.enable_x64, "debug_nans": jax.debug_nans}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", CALLS)
def test_public_functions_run_in_float64_and_raise_no_false_alarm(name, setting):
    with SETTINGS[setting](True):
        floats = [leaf for leaf in jax.tree.leaves(CALLS[name]()) if leaf.dtype.kind == "f"]
    assert name == "dropout_mask" or floats
    for leaf in floats:
        assert not np.isnan(leaf).any()
        assert leaf.dtype == (np.float64 if setting == "x64" else np.float32)
