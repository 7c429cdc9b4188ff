"""A read that is exported, written to bytes and loaded again computes the same, with gradients."""

import jax
import jax.numpy as jnp
import pytest
from cases import IMPLEMENTATIONS
from draws import draw
from tolerance import assert_close

import attn_jax
from attn_jax import masks, score_mods

B, T, N, K, H, V = 2, 24, 4, 2, 8, 5


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_was_written_to_bytes_computes_the_same(implementation, tiles):
    tiles(16, 8)
    documents = jnp.arange(T, dtype=jnp.int32) // 10

    @jax.jit
    def read(query, key, value, slopes):
        return attn_jax.dot_product_attention(
            query,
            key,
            value,
            mask=masks.segments(documents) & masks.causal(),
            score_mod=score_mods.alibi(slopes),
            implementation=implementation,
        )

    *arrays, cotangent = draw(
        5, (B, T, N, H), (B, T, K, H), (B, T, K, V), (1, N), (B, T, N, V), dtype=jnp.float32
    )
    written = jax.export.export(read, platforms=["cpu", "tpu", "cuda"])(*arrays)
    loaded = jax.export.deserialize(written.serialize(vjp_order=1))
    assert loaded.platforms == ("cpu", "tpu", "cuda")

    def output_and_gradients(function, *arrays):
        out, transpose = jax.vjp(function, *arrays)
        return out, *transpose(cotangent)

    computed, expected = (
        output_and_gradients(loaded.call, *arrays),
        output_and_gradients(read, *arrays),
    )
    for got, wanted in zip(computed, expected, strict=True):
        assert_close(got, wanted, gradient=True)
