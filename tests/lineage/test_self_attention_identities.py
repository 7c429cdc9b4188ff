"""Identities A1–A23, from averaging to self-attention, each with a counterexample."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import scores
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, S, D, H, V = 5, 7, 4, 3, 6


def tokens_and_weights(seed):
    return draw(seed, (T, D), (D, H), (D, H), (D, V))


def queries_keys_values(seed):
    return draw(seed, (T, H), (S, H), (S, V))


def test_a01_identity_weights_reduce_self_attention_to_simplified():
    x, other = draw(1, (T, D), (D, D))
    eye, unscaled = jnp.eye(D), np.sqrt(D) * jnp.eye(D)
    simplified = attn_jax.simplified_self_attention(x)
    assert_close(attn_jax.self_attention(x, unscaled, eye, eye), simplified)
    assert_close(attn_jax.attend(x, x, x, scale=1.0), simplified)
    assert_differs(attn_jax.self_attention(x, other, eye, eye), simplified)


def test_a02_the_scale_is_a_change_to_simplified_self_attention():
    (x,) = draw(2, (T, D))
    eye = jnp.eye(D)
    scaled = attn_jax.self_attention(x, eye, eye, eye)
    assert_differs(scaled, attn_jax.simplified_self_attention(x))


def test_a03_identity_weights_leave_scaled_softmax_of_the_gram_matrix():
    (x,) = draw(3, (T, D))
    eye = jnp.eye(D)
    by_hand = jax.nn.softmax(x @ x.T / np.sqrt(D), axis=-1) @ x
    scaled_by_width = jax.nn.softmax(x @ x.T / D, axis=-1) @ x
    scaled = attn_jax.self_attention(x, eye, eye, eye)
    assert_close(scaled, by_hand)
    assert_differs(scaled, scaled_by_width)


def test_a04_simplified_scores_are_symmetric():
    x, w_query, w_key, _ = tokens_and_weights(4)
    simplified = scores.dot(x, x)
    trained = scores.dot(x @ w_query, x @ w_key)
    assert_close(simplified, simplified.T)
    assert_differs(trained, trained.T)


def test_a05_simplified_weights_are_not_symmetric():
    (x,) = draw(5, (T, D))
    weights = attn_jax.attention_weights(x, x, score=scores.dot)
    assert_differs(weights, weights.T)


def test_a06_only_the_product_of_query_and_key_weights_matters():
    x, w_query, w_key, w_value = tokens_and_weights(6)
    (change,) = draw(7, (H, H))
    out = attn_jax.self_attention(x, w_query, w_key, w_value)
    undone = attn_jax.self_attention(x, w_query @ change, w_key @ jnp.linalg.inv(change).T, w_value)
    not_undone = attn_jax.self_attention(x, w_query @ change, w_key @ change, w_value)
    assert_close(undone, out)
    assert_differs(not_undone, out)


def test_a07_self_attention_is_luongs_general_score_on_the_tokens():
    x, w_query, w_key, w_value = tokens_and_weights(8)
    product = w_query @ w_key.T
    out = attn_jax.self_attention(x, w_query, w_key, w_value)
    general = partial(scores.general, kernel=product / np.sqrt(H))
    unscaled = partial(scores.general, kernel=product)
    assert_close(attn_jax.attend(x, x, x @ w_value, score=general), out)
    assert_differs(attn_jax.attend(x, x, x @ w_value, score=unscaled), out)


def test_a08_a_key_bias_changes_nothing():
    query, key, value = queries_keys_values(9)
    (bias,) = draw(10, (1, H))
    out = attn_jax.attend(query, key, value)
    assert_close(attn_jax.attend(query, key + bias, value), out)
    assert_differs(attn_jax.attend(query, key * bias, value), out)


def test_a09_a_query_bias_changes_the_output():
    query, key, value = queries_keys_values(11)
    (bias,) = draw(12, (1, H))
    assert_differs(attn_jax.attend(query + bias, key, value), attn_jax.attend(query, key, value))


def test_a10_a_value_bias_adds_itself():
    query, key, value = queries_keys_values(13)
    (bias,) = draw(14, (1, V))
    out = attn_jax.attend(query, key, value)
    shifted = attn_jax.attend(query, key, value + bias)
    assert_close(shifted, out + bias)
    assert_differs(shifted, out)


def test_a11_zero_query_weights_give_the_mean_of_the_values():
    x, w_query, w_key, w_value = tokens_and_weights(15)
    mean = jnp.broadcast_to(jnp.mean(x @ w_value, axis=0, keepdims=True), (T, V))
    assert_close(attn_jax.self_attention(x, 0 * w_query, w_key, w_value), mean)
    assert_differs(attn_jax.self_attention(x, w_query, w_key, w_value), mean)


def test_a12_self_attention_is_equivariant_to_the_order_of_the_tokens():
    x, *weights = tokens_and_weights(16)
    order = jnp.array([3, 0, 4, 1, 2])
    permuted = attn_jax.self_attention(x, *weights)[order]
    assert_close(attn_jax.self_attention(x[order], *weights), permuted)
    assert_differs(
        attn_jax.causal_self_attention(x[order], *weights),
        attn_jax.causal_self_attention(x, *weights)[order],
    )


def test_a13_the_order_of_the_memory_does_not_matter():
    query, key, value = queries_keys_values(17)
    order = jnp.array([5, 2, 0, 6, 1, 4, 3])
    out = attn_jax.attend(query, key, value)
    assert_close(attn_jax.attend(query, key[order], value[order]), out)
    assert_differs(attn_jax.attend(query, key[order], value), out)


def test_a14_one_key_gives_its_value():
    query, key, value = queries_keys_values(18)
    its_value = jnp.broadcast_to(value[:1], (T, V))
    assert_equal(attn_jax.attend(query, key[:1], value[:1]), its_value)
    assert_differs(attn_jax.attend(query, key[:2], value[:2]), its_value)


def test_a15_at_temperature_zero_attention_is_hard():
    query, key, value = queries_keys_values(19)
    best = value[jnp.argmax(query @ key.T, axis=1)]
    assert_equal(attn_jax.attend(query, key, value, scale=1e6), best)
    assert_differs(attn_jax.attend(query, key, value, scale=1.0), best)


def test_a16_the_weights_of_a_query_sum_to_one():
    query, key, _ = queries_keys_values(20)
    weights = attn_jax.attention_weights(query, key)
    assert_close(jnp.sum(weights, axis=1), jnp.ones(T))
    assert_differs(jnp.sum(weights, axis=0), jnp.ones(S))


def test_a17_the_output_lies_in_the_convex_hull_of_the_values():
    query, key, value = queries_keys_values(21)
    value = value + 3  # away from 0: weights that do not sum to one would leave the convex hull
    (directions,) = draw(22, (V, 200))

    def overshoot(out):
        reach = jnp.max(value @ directions, axis=0, keepdims=True)
        return float(jnp.max(out @ directions - reach))

    over_queries = jax.nn.softmax(query @ key.T / np.sqrt(H), axis=0) @ value
    assert overshoot(attn_jax.attend(query, key, value)) <= 0
    assert overshoot(over_queries) > 0


def test_a18_a_repeated_key_is_a_bias_of_the_log_of_its_count():
    query, key, value = queries_keys_values(23)
    counts = np.array([1, 3, 1, 2, 1, 1, 4])
    repeated = attn_jax.attend(query, jnp.repeat(key, counts, 0), jnp.repeat(value, counts, 0))
    bias = jnp.log(jnp.asarray(counts, jnp.float64))
    biased = attn_jax.attend(
        query,
        key,
        value,
        score_mod=lambda logit, i, j: logit + bias[j],
        query_position=jnp.arange(T),
        key_position=jnp.arange(S),
    )
    assert_close(repeated, biased)
    assert_differs(repeated, attn_jax.attend(query, key, value))


def test_a19_a_masked_key_is_a_deleted_key():
    query, key, value = queries_keys_values(24)
    kept = jnp.array([0, 1, 3, 6])
    mask = jnp.zeros((1, S), bool).at[0, kept].set(True)
    deleted = attn_jax.attend(query, key[kept], value[kept])
    assert_close(attn_jax.attend(query, key, value, mask=mask), deleted)
    assert_differs(attn_jax.attend(query, key, value), deleted)


def gaussian_kernel(query, key, *, sigma):
    """Nadaraya (1964) and Watson (1964): the logit is minus the squared distance over 2σ²."""
    distance = query[:, None, :] - key[None, :, :]
    return -jnp.sum(jnp.square(distance), axis=-1) / (2 * sigma**2)


def test_a20_kernel_regression_is_dot_attention_with_a_bias_for_each_key():
    query, key, value = queries_keys_values(25)
    sigma = 1.3
    bias = -jnp.sum(jnp.square(key), axis=-1) / (2 * sigma**2)
    regression = attn_jax.attend(query, key, value, score=partial(gaussian_kernel, sigma=sigma))
    biased = attn_jax.attend(
        query,
        key,
        value,
        scale=1 / sigma**2,
        score_mod=lambda logit, i, j: logit + bias[j],
        query_position=jnp.arange(T),
        key_position=jnp.arange(S),
    )
    assert_close(regression, biased)
    assert_differs(regression, attn_jax.attend(query, key, value, scale=1 / sigma**2))


def test_a21_with_unit_keys_distance_and_dot_product_agree():
    query, key, value = queries_keys_values(26)
    unit = key / jnp.linalg.norm(key, axis=-1, keepdims=True)
    kernel = partial(gaussian_kernel, sigma=1.0)
    by_distance = attn_jax.attend(query, unit, value, score=kernel)
    assert_close(by_distance, attn_jax.attend(query, unit, value, scale=1.0))
    assert_differs(
        attn_jax.attend(query, key, value, score=kernel),
        attn_jax.attend(query, key, value, scale=1.0),
    )


def test_a22_the_derivative_by_the_query_is_the_covariance_of_the_keys():
    query, key, _ = queries_keys_values(27)
    one, scale = query[:1], 0.7
    jacobian = jax.jacobian(lambda q: attn_jax.attend(q, key, key, scale=scale))(one)[0, :, 0, :]
    weights = attn_jax.attention_weights(one, key, scale=scale)
    second_moment = jnp.einsum("TS,SH,SE->HE", weights, key, key)
    mean = (weights @ key)[0]
    assert_close(jacobian, scale * (second_moment - jnp.outer(mean, mean)))
    assert_differs(jacobian, scale * second_moment)


def test_a23_attention_is_one_update_of_a_modern_hopfield_network():
    """Ramsauer et al. (2020), https://arxiv.org/abs/2008.02217: state − ∇energy is retrieval."""
    pattern, state = draw(28, (S, D), (T, D))

    def energy(state, beta):
        _, logsumexp = attn_jax.attend_with_logsumexp(state, pattern, pattern, scale=beta)
        return jnp.sum(jnp.square(state)) / 2 - jnp.sum(logsumexp) / beta

    retrieved = state - jax.grad(energy)(state, 2.5)
    assert_close(attn_jax.attend(state, pattern, pattern, scale=2.5), retrieved)
    assert_differs(attn_jax.attend(state, pattern, pattern, scale=1.0), retrieved)
    assert energy(retrieved, 2.5) < energy(state, 2.5)
    from_patterns = pattern - jax.grad(energy)(pattern, 1.0)
    assert_close(attn_jax.simplified_self_attention(pattern), from_patterns)
