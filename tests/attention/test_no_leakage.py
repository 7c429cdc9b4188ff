"""Masked numbers change no bit of the output: NaN, later tokens, other documents, full masks.

Sizes are such that the blockwise backend works on many tiles, some of them empty and some cut by
the end of the sequence. Bits are compared between runs of one executable: two executables may
differ in the last place whatever the arguments.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

B, T, S, N, K, H, V = 2, 33, 65, 4, 2, 8, 3
TILE = (8, 16)
KEYS = {"key_position": jnp.arange(S)}
LARGEST = float(jnp.finfo(jnp.float32).max)
POISONS = (np.nan, np.inf, -np.inf, LARGEST)


def operands(seed, queries=T, keys=S, dtype=jnp.float32):
    """Query, key, value, bias and a cotangent of the output."""
    shapes = (queries, N, H), (keys, K, H), (keys, K, V), (N, queries, keys), (queries, N, V)
    return draw(seed, *((B, *shape) for shape in shapes), dtype=dtype)


def executable(implementation, **options):
    """Output and gradients of query, key, value and bias from one compiled function."""

    def run(query, key, value, bias, cotangent, traced):
        attention = partial(
            attn_jax.dot_product_attention, implementation=implementation, **options, **traced
        )
        out, transpose = jax.vjp(attention, query, key, value, bias)
        return out, *transpose(cotangent)

    compiled = jax.jit(run)

    def in_numpy(*arguments):
        results = jax.device_get(compiled(*arguments))
        assert compiled._cache_size() == 1
        return results

    return in_numpy


HIDDEN_KEYS = np.isin(np.arange(S), [0, 5, 6, 7, *range(16, 32), 40, S - 1])
HIDDEN_QUERIES = np.isin(np.arange(T), [0, 3, *range(8, 16), T - 1])
FROM = {"query": T - 9, "key": S - 20}
AT_THE_START = np.arange(T, dtype=np.int32)


def documents(length, masked):
    """Three documents, and −1 for padding."""
    return np.where(masked, -1, 3 * np.arange(length) // length).astype(np.int32)


def after(length, first):
    return np.arange(length) >= first


def segments():
    ids = documents(T, HIDDEN_QUERIES), documents(S, HIDDEN_KEYS)
    return masks.segments(*map(jnp.asarray, ids))


# The options, and the queries and keys that they mask completely.
HIDING = {
    "mask": (
        lambda: {"mask": jnp.asarray(~HIDDEN_QUERIES[:, None] & ~HIDDEN_KEYS)[None, None]},
        HIDDEN_QUERIES,
        HIDDEN_KEYS,
    ),
    "lengths": (
        lambda: {
            "query_seq_lengths": jnp.full(B, FROM["query"]),
            "key_value_seq_lengths": jnp.full(B, FROM["key"]),
        },
        after(T, FROM["query"]),
        after(S, FROM["key"]),
    ),
    "causal": (
        lambda: {"is_causal": True, "query_position": jnp.asarray(AT_THE_START), **KEYS},
        np.zeros(T, bool),
        after(S, T),
    ),
    "window": (
        lambda: {
            "local_window_size": (5, 2),
            "query_position": jnp.asarray(AT_THE_START + 30),
            **KEYS,
        },
        np.zeros(T, bool),
        ~(after(S, 25)),
    ),
    "segments": (
        lambda: {"mask": segments()},
        HIDDEN_QUERIES,
        HIDDEN_KEYS,
    ),
}


def poisoned(arrays, queries, keys, poison):
    """Poison in the masked queries and keys, and in their rows of the bias."""
    query, key, value, bias, cotangent = arrays
    return (
        np.where(queries[:, None, None], poison, query),
        np.where(keys[:, None, None], poison, key),
        np.where(keys[:, None, None], poison, value),
        np.where(queries[:, None] | keys, poison, bias),
        cotangent,
    )


@every_implementation
@pytest.mark.parametrize("name", HIDING)
def test_poison_where_no_query_attends_changes_no_bit(name, implementation, tiles):
    tiles(*TILE)
    options, queries, keys = HIDING[name]
    options = options()
    static = {n: options.pop(n) for n in ("is_causal", "local_window_size") if n in options}
    run, arrays = executable(implementation, **static), [np.asarray(a) for a in operands(1)]
    clean = run(*arrays, options)
    for poison in POISONS:
        spoilt = poisoned(arrays, queries, keys, np.float32(poison))
        for ours, wanted in zip(run(*spoilt, options), clean, strict=True):
            assert np.isfinite(wanted).all()
            assert_equal(ours, wanted)
    _, d_query, d_key, d_value, d_bias = clean
    assert not d_query[:, queries].any()
    assert not d_key[:, keys].any()
    assert not d_value[:, keys].any()
    assert not d_bias[..., keys].any()
    assert d_query[:, ~queries].any()


def with_noise(arrays, where, noise):
    """Query, key and value; the query stays where its product with a key would be infinite."""
    noisy = [np.where(where, np.float32(noise), array) for array in arrays]
    return [arrays[0] if noise > 1e18 else noisy[0], *noisy[1:]]


@every_implementation
@pytest.mark.parametrize("length", [7, 33, 130])
def test_noise_in_later_tokens_changes_no_bit_and_has_no_gradient(length, implementation, tiles):
    tiles(16, 32)
    run = executable(implementation, is_causal=True)
    arrays = [np.asarray(array)[:1] for array in operands(2, length, length)]
    query, key, value, bias, cotangent = arrays
    place = np.arange(length)
    for t in range(length - 1):
        later = (place > t)[:, None, None]
        only = np.where(later, np.float32(0), cotangent)
        clean = run(query, key, value, bias, only, {})
        for noise in (1e3, 1e30):
            noisy = with_noise((query, key, value), later, noise)
            out, *gradients = run(*noisy, bias, only, {})
            assert_equal(out[:, : t + 1], clean[0][:, : t + 1])
            for ours, wanted in zip(gradients[:3], clean[1:4], strict=True):
                assert_equal(ours[:, : t + 1], wanted[:, : t + 1])
                assert not ours[:, t + 1 :].any()
            assert_equal(gradients[3][:, :, : t + 1], clean[4][:, :, : t + 1])


@every_implementation
def test_noise_in_other_documents_changes_no_bit_and_has_no_gradient(implementation, tiles):
    tiles(16, 32)
    length = 70
    ids = np.repeat(np.arange(4, dtype=np.int32), [20, 3, 40, 7])
    run = executable(implementation, is_causal=True)
    *arrays, bias, cotangent = (np.asarray(array) for array in operands(3, length, length))
    options = {"mask": masks.segments(jnp.asarray(ids))}
    for document in range(4):
        own = ids == document
        other = ~own[:, None, None]
        only = np.where(other, np.float32(0), cotangent)
        clean = run(*arrays, bias, only, options)
        for noise in (1e3, 1e30):
            noisy = with_noise(arrays, other, noise)
            out, *gradients = run(*noisy, bias, only, options)
            assert_equal(out[:, own], clean[0][:, own])
            for ours, wanted in zip(gradients[:3], clean[1:4], strict=True):
                assert_equal(ours[:, own], wanted[:, own])
                assert not ours[:, ~own].any()


def some(seed=4):
    return np.random.default_rng(seed).random((B, N, T, S)) < 0.5


def masked(*index):
    mask = some()
    mask[index] = False
    return mask


EVERY = slice(None)
NOTHING = {
    "nothing at all": np.zeros((B, N, T, S), bool),
    "a row": masked(EVERY, EVERY, 5),
    "a row of one head": masked(1, 2, 5),
    "the last row": masked(EVERY, EVERY, T - 1),
    "a row of tiles": masked(EVERY, EVERY, slice(8, 16)),
    "the first tiles of keys": masked(EVERY, EVERY, EVERY, slice(0, 40)),
    "the first tiles of some rows": masked(EVERY, EVERY, slice(3, 11), slice(0, 40)),
    "the last tiles of keys": masked(EVERY, EVERY, EVERY, slice(30, S)),
    "all but one pair": np.ones((B, N, T, S)) * np.eye(1, T * S, 777).reshape(T, S) > 0,
    "a head": masked(EVERY, 2),
    "the heads of one key head": masked(EVERY, slice(2, 4)),
    "an example": masked(1),
}


def check_fully_masked(mask, results):
    """Zeros, −inf and gradients of exactly zero if fully masked; finite numbers elsewhere."""
    out, lse, d_query, d_key, d_value = (np.asarray(x).astype(np.float64) for x in results)
    attends = mask.any(axis=-1).swapaxes(1, 2)  # [B T N]
    attended = mask.any(axis=-2).reshape(B, K, N // K, S).any(axis=2).swapaxes(1, 2)  # [B S K]
    for array, alive in (
        (out, attends),
        (d_query, attends),
        (d_key, attended),
        (d_value, attended),
    ):
        assert np.isfinite(array).all()
        assert not array[~alive].any()
    assert np.array_equal(lse == -np.inf, ~attends.swapaxes(1, 2))
    assert not np.isnan(lse).any()
    assert out[attends].any(axis=-1).all()
    assert d_value[attended].any(axis=-1).all()


@every_implementation
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_masks_that_hide_whole_queries_keys_heads_or_examples(dtype, implementation, tiles):
    tiles(*TILE)
    with jax.enable_x64(dtype == jnp.float64):
        query, key, value, _, cotangent = operands(5, dtype=dtype)

        def head(query, key, value, mask):
            return attn_jax.attend_with_logsumexp(
                query, key, value, mask=mask, implementation=implementation
            )

        group = jax.vmap(head, in_axes=(1, None, None, 0), out_axes=(1, 0))
        heads = jax.vmap(group, in_axes=(1, 1, 1, 0), out_axes=(1, 0))

        @jax.jit
        def run(query, key, value, mask):
            def attention(query, key, value):
                grouped = query.reshape(B, T, K, N // K, H), mask.reshape(B, K, N // K, T, S)
                out, lse = jax.vmap(heads)(grouped[0], key, value, grouped[1])
                return out.reshape(B, T, N, V), lse.reshape(B, N, T)

            results, transpose = jax.vjp(attention, query, key, value)
            return *results, *transpose((cotangent, jnp.ones_like(results[1])))

        for mask in NOTHING.values():
            check_fully_masked(mask, run(query, key, value, mask))
        assert run._cache_size() == 1


@every_implementation
def test_masked_keys_before_the_first_unmasked_one_are_deleted_keys(implementation, tiles):
    tiles(*TILE)
    query, key, value, *_ = operands(6)
    attention = partial(attn_jax.dot_product_attention, implementation=implementation)
    for first in (16, 40, S - 1):
        mask = jnp.asarray(after(S, first))[None, None, None]
        assert_close(
            attention(query, key, value, mask=mask),
            attention(query, key[:, first:], value[:, first:]),
        )


@every_implementation
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_no_keys_and_lengths_of_zero_are_fully_masked_queries(dtype, implementation):
    query, key, value, _, cotangent = operands(7, dtype=dtype)
    attention = partial(attn_jax.dot_product_attention, implementation=implementation)

    @jax.jit
    def results(query, key, value, **lengths):
        out, transpose = jax.vjp(partial(attention, **lengths), query, key, value)
        return out, *transpose(cotangent)

    out, d_query, *_ = results(query, key[:, :0], value[:, :0])
    assert_equal(out, jnp.zeros((B, T, N, V), dtype))
    assert_equal(d_query, jnp.zeros_like(query))
    for array in results(query, key, value, key_value_seq_lengths=jnp.array([0, 9])):
        assert_equal(array[0], jnp.zeros_like(array[0]))
        assert jnp.isfinite(array).all()
        assert jnp.any(array[1] != 0)
