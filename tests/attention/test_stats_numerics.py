"""`attention_stats` at logits of every size, against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax

T, S = 7, 11
SIZES = (1e-3, 1.0, 1e3, 6e4)


def exact(logits, unmasked, sink):
    """Log-sum-exp, entropy, received mass of each key, two greatest weights of each query."""
    logits = np.where(unmasked, logits, -np.inf)
    columns = logits if sink is None else np.concatenate([logits, np.full((T, 1), sink)], axis=1)
    shift = np.where(np.isneginf(columns.max(1)), 0, columns.max(1))[:, None]
    total = np.exp(columns - shift).sum(axis=1, keepdims=True)
    weights = np.exp(logits - shift) / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.where(weights > 0, -weights * np.log(weights), 0)
        logsumexp = (shift + np.log(total))[:, 0]
    top = -np.sort(-weights, axis=1)[:, :2]
    return logsumexp, information.sum(axis=1), weights.sum(axis=0), top


@pytest.mark.parametrize("sink", [None, 0.5])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_statistics_are_right_at_logits_of_every_size_and_sign(x64, tiles, dtype, sink):
    tiles(4, 3)
    rng = np.random.default_rng(0)
    unmasked = rng.random((T, S)) < 0.7
    unmasked[2] = False
    stats = jax.jit(
        lambda query, key: attn_jax.attention_stats(
            query, key, mask=jnp.asarray(unmasked), scale=1.0, sink=sink, top=2
        )
    )
    unit = float(jnp.finfo(jnp.float64 if dtype == jnp.float64 else jnp.float32).eps)
    for size in (*SIZES, *(-size for size in SIZES)):
        # One nonzero product per pair, so that each logit is exact in the accumulation dtype.
        query = jnp.asarray(np.where(np.arange(T) % 2, 1.0, 0.5)[:, None], dtype)
        key = jnp.asarray((size * (1 + rng.integers(0, 3, S) / 64))[:, None], dtype)
        logits = np.asarray(query, np.float64) @ np.asarray(key, np.float64).T
        got = stats(query, key)
        logsumexp, entropy, received, top = exact(logits, unmasked, sink)
        finite = np.isfinite(logsumexp)
        assert np.array_equal(np.isfinite(got.logsumexp), finite)
        error = np.abs(np.asarray(got.logsumexp)[finite] - logsumexp[finite])
        assert error.max() <= 4 * unit * max(abs(size), 1)
        for ours, wanted in (
            (got.entropy, entropy),
            (got.received, received),
            (got.top_weight, top),
        ):
            assert np.abs(np.asarray(ours, np.float64) - wanted).max() <= 16 * unit


@pytest.mark.parametrize("logit", [1e3, 1e4, -1e4, 3e4])
def test_the_entropy_of_two_equal_keys_is_log_2(logit):
    key = jnp.full((2, 1), logit, jnp.float32)
    stats = attn_jax.attention_stats(jnp.ones((1, 1)), key, top=1)
    np.testing.assert_allclose(stats.entropy, np.log(2), rtol=1e-6)
