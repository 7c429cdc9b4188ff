"""Identities B1–B10 of the causal mask, each with a counterexample that must differ."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, D, H, V = 5, 4, 3, 6


def tokens_and_weights(seed):
    return draw(seed, (T, D), (D, H), (D, H), (D, V))


def queries_keys_values(seed):
    return draw(seed, (T, H), (T, H), (T, V))


def test_b01_the_last_causal_row_is_the_last_full_row():
    x, *weights = tokens_and_weights(1)
    causal = attn_jax.causal_self_attention(x, *weights)
    full = attn_jax.self_attention(x, *weights)
    assert_close(causal[-1], full[-1])
    assert_differs(causal[-2], full[-2])


def test_b02_the_first_causal_row_is_the_first_value():
    x, *weights = tokens_and_weights(2)
    first_value = x[0] @ weights[2]
    assert_close(attn_jax.causal_self_attention(x, *weights)[0], first_value)
    assert_differs(attn_jax.self_attention(x, *weights)[0], first_value)


def test_b03_the_output_of_a_prefix_does_not_depend_on_later_tokens():
    x, *weights = tokens_and_weights(12)
    for n in (1, 3):
        prefix = attn_jax.causal_self_attention(x[:n], *weights)
        assert_close(attn_jax.causal_self_attention(x, *weights)[:n], prefix)
        assert_differs(attn_jax.self_attention(x, *weights)[:n], prefix)


def test_b03_the_derivative_with_respect_to_a_later_token_is_exactly_zero():
    x, *weights = tokens_and_weights(4)
    jacobian = np.asarray(jax.jacobian(attn_jax.causal_self_attention)(x, *weights))
    size = np.abs(jacobian).max(axis=(1, 3))  # [T, T]: size of ∂ output t / ∂ token s
    later = np.triu(np.ones((T, T), bool), k=1)
    assert_equal(size[later], np.zeros(later.sum()))
    assert (size[~later] > 0).all()


def test_b04_masking_before_softmax_is_masking_after_and_renormalising():
    query, key, _ = queries_keys_values(5)
    full = attn_jax.attention_weights(query, key)
    masked_after = jnp.tril(full)
    renormalised = masked_after / jnp.sum(masked_after, axis=1, keepdims=True)
    before = attn_jax.attention_weights(query, key, mask=masks.causal())
    assert_close(before, renormalised)
    assert_differs(before, masked_after)


def test_b05_zero_query_weights_give_the_running_mean():
    x, w_query, w_key, w_value = tokens_and_weights(6)
    counts = jnp.arange(1, T + 1, dtype=jnp.float64)[:, None]
    running_mean = jnp.cumsum(x @ w_value, axis=0) / counts
    assert_close(attn_jax.causal_self_attention(x, 0 * w_query, w_key, w_value), running_mean)
    assert_differs(attn_jax.causal_self_attention(x, w_query, w_key, w_value), running_mean)


def test_b06_causal_between_two_flips_is_anti_causal():
    x, *weights = tokens_and_weights(7)
    query, key, value = (x @ weight for weight in weights)
    flipped = attn_jax.causal_self_attention(x[::-1], *weights)[::-1]
    anti_causal = attn_jax.attend(query, key, value, mask=lambda i, j: j >= i)
    assert_close(flipped, anti_causal)
    assert_differs(attn_jax.causal_self_attention(x, *weights), anti_causal)


@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 4, 5), (0, 3, 5)])
def test_b07_decoding_in_pieces_of_any_size_is_the_whole_sequence(cuts):
    query, key, value = queries_keys_values(8)
    causal = jax.jit(partial(attn_jax.attend, mask=masks.causal()))
    whole = causal(query, key, value)
    for start, stop in itertools.pairwise(cuts):
        piece = query[start:stop], key[:stop], value[:stop]
        out = causal(*piece, query_position=jnp.arange(start, stop), key_position=jnp.arange(stop))
        assert_close(out, whole[start:stop])


def test_b09_one_query_at_the_end_attends_to_all_keys_and_not_only_the_first():
    query, key, value = queries_keys_values(9)
    whole = attn_jax.attend(query, key, value, mask=masks.causal())[-1:]
    last = {
        "mask": masks.causal(),
        "query_position": jnp.array([T - 1]),
        "key_position": jnp.arange(T),
    }
    first = {
        "mask": masks.causal(),
        "query_position": jnp.array([0]),
        "key_position": jnp.arange(T),
    }
    assert_close(attn_jax.attend(query[-1:], key, value, **last), whole)
    assert_differs(attn_jax.attend(query[-1:], key, value, **first), whole)
    with pytest.raises(ValueError, match="query_position"):
        attn_jax.attend(query[-1:], key, value, mask=masks.causal())


def test_b10_softmax_is_over_the_keys_and_not_over_the_queries():
    query, key, value = queries_keys_values(10)
    logits = jnp.where(jnp.tril(jnp.ones((T, T), bool)), query @ key.T / np.sqrt(H), -jnp.inf)
    out = attn_jax.attend(query, key, value, mask=masks.causal())
    assert_close(out, jax.nn.softmax(logits, axis=1) @ value)
    assert_differs(out, jax.nn.softmax(logits, axis=0) @ value)
