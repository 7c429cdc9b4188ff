"""Scores and score mods are evaluated at unmasked pairs only, and so are their derivatives.

Each function here, or its derivative, is infinite at masked pairs. The result must equal that of
the same function made finite there.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

B, T, H, V = 3, 10, 4, 5
SLOPE = jnp.float32(0.7)


def before(i, j):
    return j < i


def by_log_distance(slope, least):
    """Minus slope · log(i - j), infinite from i = j on unless the distance is at least `least`."""

    def score_mod(logit, i, j):
        return logit - slope * jnp.log(jnp.maximum(i - j, least).astype(logit.dtype))

    return score_mod


def test_a_fully_masked_example_leaves_the_derivatives_of_the_others(tiles, implementation):
    tiles(4, 3)
    query, key, value = draw(1, (B, T, H), (B, T, H), (B, T, V), dtype=jnp.float32)
    lengths = jnp.array([T, 0, 4])

    def loss(slope, least):
        def attention(query, key, value, length):
            return attn_jax.attend(
                query,
                key,
                value,
                mask=masks.key_padding(length) & before,
                score_mod=by_log_distance(slope, least),
                implementation=implementation,
            )

        return jnp.sum(jnp.square(jax.vmap(attention)(query, key, value, lengths)))

    @jax.jit
    def derivatives(least):
        gradient = jax.grad(loss)
        forward = jax.jvp(partial(loss, least=least), (SLOPE,), (jnp.ones_like(SLOPE),))[1]
        second = jax.jvp(partial(gradient, least=least), (SLOPE,), (jnp.ones_like(SLOPE),))[1]
        return jnp.stack([gradient(SLOPE, least), forward, second])

    wanted = derivatives(1)
    assert float(jnp.abs(wanted).min()) > 0.1
    assert_close(derivatives(-T), wanted, gradient=True)


def test_a_visited_tile_without_unmasked_pairs_has_no_derivative(implementation):
    query, key, value = draw(2, (T, H), (T, H), (T, V), dtype=jnp.float32)
    nothing = masks.sliding_window(0, 0) & ~masks.sliding_window(0, 0)
    far = attn_jax.block_mask(nothing | (lambda i, j: j + 4 < i), T, T, tile=(4, 3))
    assert int(far.lists.partial[0]) > 0

    def loss(slope, least):
        def score_mod(logit, i, j):
            return by_log_distance(slope, least)(logit, i - 4, j)

        out = attn_jax.attend(
            query, key, value, mask=far, score_mod=score_mod, implementation=implementation
        )
        return jnp.sum(jnp.square(out))

    gradient = jax.jit(jax.grad(loss))
    assert_close(gradient(SLOPE, -T), gradient(SLOPE, 1), gradient=True)


@pytest.mark.parametrize("entry", [np.inf, np.nan])
def test_entries_of_a_bias_at_masked_pairs_reach_no_derivative(tiles, implementation, entry):
    tiles(4, 3)
    query, key, value, bias = draw(3, (T, H), (T, H), (T, V), (T, T), dtype=jnp.float32)
    unmasked = masks.evaluate(masks.causal(), jnp.arange(T), jnp.arange(T))

    def loss(query, bias):
        score_mod = score_mods.dense_bias(bias) >> (lambda logit, i, j: logit * jnp.tanh(logit))
        out = attn_jax.attend(
            query,
            key,
            value,
            mask=masks.causal(),
            score_mod=score_mod,
            implementation=implementation,
        )
        return jnp.sum(jnp.square(out))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    ours = gradients(query, jnp.where(unmasked, bias, entry))
    for got, wanted in zip(ours, gradients(query, jnp.where(unmasked, bias, 0)), strict=True):
        assert_close(got, wanted, gradient=True)


def cosine(weight):
    """A score that divides by the length of `weight @ key`, which is 0 for a row of zeros."""

    def score(query, key):
        rows = key @ weight
        return query @ (rows / jnp.sqrt(jnp.sum(jnp.square(rows), axis=-1, keepdims=True))).T

    return score


@pytest.mark.parametrize("length", [0, 5])
def test_rows_of_masked_keys_leave_the_derivatives_of_a_score(tiles, implementation, length):
    tiles(4, 3)
    query, key, value, weight = draw(4, (T, H), (T, H), (T, V), (H, H), dtype=jnp.float32)
    key = key.at[length:].set(jnp.nan)
    attention = partial(attn_jax.attend, implementation=implementation)

    def loss(weight, keys, **mask):
        return jnp.sum(jnp.square(attention(query, *keys, score=cosine(weight), **mask)))

    masked = partial(loss, keys=(key, value), mask=masks.key_padding(length))
    gradient = jax.jit(jax.grad(masked))(weight)
    if length == 0:
        assert not np.asarray(gradient).any()
    else:
        alone = jax.grad(partial(loss, keys=(key[:length], value[:length])))(weight)
        assert_close(gradient, alone, gradient=True)
