"""`dot_product_attention_with_logsumexp` against the oracle, JAX's residual and merged parts."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from tests.helpers import oracle
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal

READ = attn_jax.dot_product_attention_with_logsumexp
SHAPES = ((B, T, N, H), (B, S, K, H), (B, S, K, V))


def mask_with_a_fully_masked_query():
    mask = np.random.default_rng(1).random((B, N, T, S)) < 0.6
    mask[1, 2, 3] = False
    return mask


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.usefixtures("x64")
def test_output_logsumexp_and_gradients_are_the_oracles(implementation):
    arrays, mask = draw(0, *SHAPES, dtype=jnp.float64), mask_with_a_fully_masked_query()
    (cotangent,) = draw(2, (B, T, N), dtype=jnp.float64)

    @jax.jit
    def attention(*arrays):
        def plain(query, key):
            return READ(
                query, key, arrays[2], mask=jnp.asarray(mask), implementation=implementation
            )

        (out, logsumexp), transpose = jax.vjp(plain, *arrays[:2])
        return out, logsumexp, transpose((jnp.zeros_like(out), cotangent))

    out, logsumexp, (d_query, d_key) = attention(*arrays)
    query, key, value = map(np.asarray, arrays)
    wanted_query, wanted_key = np.zeros(query.shape), np.zeros(key.shape)
    for b, n in np.ndindex(B, N):
        k = n // (N // K)
        head = query[b, :, n], key[b, :, k], value[b, :, k]
        one, weights, rows = oracle.attention(*head, mask=mask[b, n])
        assert_close(out[b, :, n], one)
        assert_close(logsumexp[b, :, n], rows)
        d_logits = np.asarray(cotangent)[b, :, n, None] * weights / np.sqrt(H)
        wanted_query[b, :, n] += d_logits @ head[1]
        wanted_key[b, :, k] += d_logits.T @ head[0]
    assert float(logsumexp[1, 3, 2]) == -np.inf
    assert_close(d_query, wanted_query, gradient=True)
    assert_close(d_key, wanted_key, gradient=True)


def test_logsumexp_is_the_residual_of_jax_without_its_rounding():
    arrays = draw(3, (B, T, N, H), (B, S, K, H), (B, S, K, H), dtype=jnp.float32)
    out, logsumexp = READ(*arrays)
    jaxs, residual = jax.nn.dot_product_attention(*arrays, return_residual=True)
    assert_close(out, jaxs)
    assert_close(logsumexp, residual)
    half = [array.astype(jnp.bfloat16) for array in arrays]
    with jax.numpy_dtype_promotion("standard"):
        _, residual = jax.nn.dot_product_attention(*half, return_residual=True)
    assert residual.dtype == jnp.bfloat16
    out, logsumexp = READ(*half)
    assert (out.dtype, logsumexp.dtype) == (jnp.bfloat16, jnp.float32)
    assert_close(logsumexp, READ(*(array.astype(jnp.float32) for array in half))[1])


def test_attention_over_parts_of_the_keys_merges():
    query, key, value = draw(4, *SHAPES, dtype=jnp.float32)
    parts = (READ(query, key[:, part], value[:, part]) for part in (slice(3), slice(3, S)))
    out, logsumexp = attn_jax.merge_partials(*parts)
    whole, denominator = READ(query, key, value)
    assert_close(out, whole)
    assert_close(logsumexp, denominator)


def test_every_option_of_dot_product_attention_gives_the_same_output():
    plain = inspect.signature(attn_jax.dot_product_attention).parameters
    assert list(inspect.signature(READ).parameters) == list(plain)
    arrays = draw(5, *SHAPES, dtype=jnp.float32)
    options = {
        "bias": draw(6, (1, N, T, S), dtype=jnp.float32)[0],
        "mask": jnp.asarray(mask_with_a_fully_masked_query()),
        "score_mod": attn_jax.score_mods.soft_cap(1.5),
        "scale": 0.7,
        "is_causal": True,
        "query_seq_lengths": jnp.array([5, 4]),
        "key_value_seq_lengths": jnp.array([6, 7]),
        "local_window_size": (4, 1),
        "query_position": jnp.arange(2, 2 + T),
        "key_position": jnp.array([[3, 0, 1, 2, 6, 5, 4]]),
        "query_row": jnp.arange(2, 2 + T),
        "key_row": jnp.arange(S),
        "sink": draw(7, (N,), dtype=jnp.float32)[0],
        "dropout_rate": 0.3,
        "dropout_rng": jax.random.key(8),
        "implementation": "reference",
    }
    assert set(plain) == {"query", "key", "value", *options}
    out, _ = READ(*arrays, **options)
    assert_equal(out, attn_jax.dot_product_attention(*arrays, **options))
