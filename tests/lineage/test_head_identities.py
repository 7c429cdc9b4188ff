"""Identities C1–C8 and C10 of heads and shared key heads, each with a counterexample."""

import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.usefixtures("x64")

T, S, D, N, H, V = 5, 7, 4, 2, 3, 6


def tokens_and_weights(seed, heads=N):
    return draw(seed, (T, D), (D, heads, H), (D, heads, H), (D, heads, V), (heads, V, D))


def head(x, w_query, w_key, w_value, n):
    """The n-th head alone."""
    return attn_jax.causal_self_attention(x, w_query[:, n], w_key[:, n], w_value[:, n])


def test_c01_stacked_heads_are_a_list_of_single_heads():
    x, *weights, _ = tokens_and_weights(1)
    heads = [head(x, *weights, n) for n in range(N)]
    fused = attn_jax.multi_head_self_attention(x, *weights, causal=True)
    assert_close(fused, jnp.concatenate(heads, axis=-1))
    assert_differs(fused, jnp.stack(heads, axis=-1).reshape(T, N * V))


def test_c01_heads_by_vmap_are_heads_by_einsum():
    x, *weights, _ = tokens_and_weights(2)
    query, key, value = (jnp.einsum("TD,DNH->TNH", x, weight) for weight in weights)
    fused = attn_jax.dot_product_attention(query, key, value, is_causal=True).reshape(T, N * V)
    mapped = attn_jax.multi_head_self_attention(x, *weights, causal=True)
    assert_close(mapped, fused)
    assert_differs(attn_jax.multi_head_self_attention(x, *weights), fused)


def test_c02_heads_add_up_each_through_its_own_part_of_the_output_matrix():
    x, *weights, w_out = tokens_and_weights(3)
    total = sum(head(x, *weights, n) @ w_out[n] for n in range(N))
    out = attn_jax.multi_head_self_attention(x, *weights, w_out, causal=True)
    assert_close(out, total)
    assert_differs(out, head(x, *weights, 0) @ w_out[0])


def test_c03_one_head_with_identity_output_is_causal_self_attention():
    x, *weights, w_out = draw(4, (T, D), (D, 1, H), (D, 1, H), (D, 1, V), (1, V, V))
    one_head = head(x, *weights, 0)
    identity = jnp.eye(V)[None]
    joined = attn_jax.multi_head_self_attention(x, *weights, identity, causal=True)
    assert_close(joined, one_head)
    assert_differs(attn_jax.multi_head_self_attention(x, *weights, w_out, causal=True), one_head)


def test_c04_the_order_of_the_heads_does_not_matter():
    x, *weights, w_out = tokens_and_weights(5, heads=3)
    order = jnp.array([2, 0, 1])
    permuted = [weight[:, order] for weight in weights]
    out = attn_jax.multi_head_self_attention(x, *weights, w_out)
    assert_close(attn_jax.multi_head_self_attention(x, *permuted, w_out[order]), out)
    assert_differs(attn_jax.multi_head_self_attention(x, *permuted, w_out), out)


def test_c05_zeros_in_the_output_matrix_prune_a_head():
    x, *weights, w_out = tokens_and_weights(6, heads=3)
    kept = jnp.array([0, 2])
    pruned = attn_jax.multi_head_self_attention(x, *[w[:, kept] for w in weights], w_out[kept])
    zeroed = attn_jax.multi_head_self_attention(x, *weights, w_out.at[1].set(0))
    assert_close(zeroed, pruned)
    assert_differs(attn_jax.multi_head_self_attention(x, *weights, w_out), pruned)


def test_c06_identical_heads_that_are_averaged_are_one_head():
    x, *weights, w_out = tokens_and_weights(7)
    same = [jnp.repeat(weight[:, :1], N, axis=1) for weight in weights]
    one_head = head(x, *weights, 0) @ jnp.mean(w_out, axis=0)
    assert_close(attn_jax.multi_head_self_attention(x, *same, w_out / N, causal=True), one_head)
    assert_differs(
        attn_jax.multi_head_self_attention(x, *weights, w_out / N, causal=True), one_head
    )


def grouped(seed, K, G=2):
    return draw(seed, (T, K * G, H), (S, K, H), (S, K, V))


def test_c07_a_key_head_for_each_query_head_is_multi_head_attention():
    query, key, value = grouped(8, K=3, G=1)
    heads = [attn_jax.attend(query[:, n], key[:, n], value[:, n]) for n in range(3)]
    out = attn_jax.dot_product_attention(query, key, value)
    assert_close(out, jnp.stack(heads, axis=1))
    assert_differs(out, jnp.stack(heads[::-1], axis=1))


def test_c08_shared_key_heads_are_repeated_key_heads():
    query, key, value = grouped(9, K=3)
    out = attn_jax.dot_product_attention(query, key, value)
    repeated = (jnp.repeat(array, 2, axis=1) for array in (key, value))
    tiled = (jnp.tile(array, (1, 2, 1)) for array in (key, value))
    assert_close(attn_jax.dot_product_attention(query, *repeated), out)
    assert_differs(attn_jax.dot_product_attention(query, *tiled), out)


def test_c08_one_key_head_serves_all_query_heads():
    query, key, value = grouped(10, K=1, G=4)
    heads = [attn_jax.attend(query[:, n], key[:, 0], value[:, 0]) for n in range(4)]
    assert_close(attn_jax.dot_product_attention(query, key, value), jnp.stack(heads, axis=1))


def test_c10_zeros_that_widen_a_head_change_nothing_at_a_fixed_scale():
    query, key, value = grouped(11, K=3)
    wide = [jnp.pad(array, ((0, 0), (0, 0), (0, 5))) for array in (query, key)]
    out = attn_jax.dot_product_attention(query, key, value)
    scale = 1 / np.sqrt(H).item()
    assert_close(attn_jax.dot_product_attention(*wide, value, scale=scale), out)
    assert_differs(attn_jax.dot_product_attention(*wide, value), out)
