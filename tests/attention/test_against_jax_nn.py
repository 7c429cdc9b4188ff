"""`dot_product_attention` against `jax.nn.dot_product_attention`, argument by argument."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, S, T
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def booleans(seed, *shape):
    """A mask without fully masked queries."""
    return (np.random.default_rng(seed).random(shape) < 0.6) | (np.arange(shape[-1]) == 2)


def numbers(seed, *shape):
    return draw(seed, shape, dtype=jnp.float32)[0]


OPTIONS = {
    "nothing": (S, {}),
    "scale": (S, {"scale": 0.4}),
    "bias": (S, {"bias": numbers(1, B, N, T, S)}),
    "bias for heads": (S, {"bias": numbers(2, 1, N, T, S)}),
    "mask": (S, {"mask": booleans(3, B, N, T, S)}),
    "mask for keys": (S, {"mask": booleans(4, B, 1, 1, S)}),
    "causal": (T, {"is_causal": True}),
    "window": (T, {"local_window_size": 1}),
    "window of a pair": (T, {"local_window_size": (2, 0)}),
    "causal window": (T, {"is_causal": True, "local_window_size": (1, 3)}),
    "key lengths": (S, {"key_value_seq_lengths": np.array([6, 3])}),
    "query lengths": (S, {"query_seq_lengths": np.array([2, 5])}),
    "both lengths": (
        S,
        {"key_value_seq_lengths": np.array([6, 3]), "query_seq_lengths": np.array([2, 5])},
    ),
    "causal and lengths": (T, {"is_causal": True, "key_value_seq_lengths": np.array([5, 3])}),
    "bias and mask": (S, {"bias": numbers(5, 1, 1, T, S), "mask": booleans(6, 1, N, 1, S)}),
}


@pytest.mark.parametrize(("keys", "options"), OPTIONS.values(), ids=OPTIONS)
def test_every_argument_means_what_it_means_in_jax(keys, options, implementation):
    arrays = draw(7, (B, T, N, H), (B, keys, K, H), (B, keys, K, H), dtype=jnp.float32)
    options = {n: jnp.asarray(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
    ours = attn_jax.dot_product_attention(*arrays, implementation=implementation, **options)
    jaxs = jax.nn.dot_product_attention(*arrays, **options)
    real = jnp.arange(T)[None] < options.get("query_seq_lengths", jnp.full(B, T))[:, None]
    assert_close(ours[real], jaxs[real])  # JAX guarantees nothing for queries that are padding
    if options:
        assert_differs(ours, attn_jax.dot_product_attention(*arrays))


def test_heads_are_grouped_as_in_jax(implementation):
    for heads in (1, 2, 4):
        arrays = draw(8, (T, N, H), (S, heads, H), (S, heads, H), dtype=jnp.float32)
        ours = partial(attn_jax.dot_product_attention, implementation=implementation)(*arrays)
        assert_close(ours, jax.nn.dot_product_attention(*arrays))


def test_fully_masked_queries_differ_from_jax(implementation):
    arrays = draw(9, (B, T, N, H), (B, S, K, H), (B, S, K, H), dtype=jnp.float32)
    nothing = jnp.zeros((B, N, T, S), bool)
    ours = attn_jax.dot_product_attention(*arrays, mask=nothing, implementation=implementation)
    assert not jnp.any(ours)
    assert_differs(ours, jax.nn.dot_product_attention(*arrays, mask=nothing))


def test_every_argument_of_jax_is_an_argument_of_ours(implementation):
    del implementation
    theirs = inspect.signature(jax.nn.dot_product_attention).parameters
    ours = inspect.signature(attn_jax.dot_product_attention).parameters
    assert set(theirs) - set(ours) == {"return_residual"}  # ..._with_logsumexp
    shared = [name for name in theirs if name in ours]
    assert [name for name in ours if name in theirs] == shared
