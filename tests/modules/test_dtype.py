"""Layers store parameters in `param_dtype` and compute in `dtype`, like flax's layers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from attn_jax import caches, masks
from attn_jax.modules import (
    AdditiveAttention,
    CausalSelfAttention,
    Embedding,
    FeedForward,
    LuongAttention,
    MultiHeadAttention,
    MultiHeadSelfAttention,
    Residual,
    Rotary,
    SelfAttention,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
    from_flax,
    to_flax,
)
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_equal

B, T, S, N, D, E = 2, 5, 7, 2, 8, 6
HALF = jnp.bfloat16


def attention(**options):
    known = {"qk_norm": True, "rotary": Rotary(), "use_sink": True, "use_bias": True}
    return MultiHeadAttention(D, N, mask=masks.causal(), **known | options, rngs=nnx.Rngs(0))


def encoder_block(**options):
    parts = attention(**options), FeedForward(D, 12, **options, rngs=nnx.Rngs(1))
    return TransformerEncoderBlock(*parts, **options, placement="both", rngs=nnx.Rngs(2))


def decoder_block(**options):
    cross = MultiHeadAttention(D, N, memory_dim=E, **options, rngs=nnx.Rngs(3))
    parts = attention(**options), cross, FeedForward(D, 12, **options, rngs=nnx.Rngs(1))
    return TransformerDecoderBlock(*parts, **options, rngs=nnx.Rngs(2))


def gated(**options):
    return FeedForward(D, 12, activation="silu", gated=True, **options, rngs=nnx.Rngs(0))


def residual(**options):
    layer = Residual(D, placement="post", **options, rngs=nnx.Rngs(0))
    return lambda x: layer(x, lambda x, rng: 3 * x)


def logits(**options):
    return Embedding(11, D, **options, rngs=nnx.Rngs(0)).attend


def attention_output(make):
    """An attention layer as a function of a query and annotations."""

    def attend(query, annotations):
        layer, mask = make, jnp.arange(S) < 6
        return layer(query, layer.project(annotations), annotations, mask)

    return attend


def additive(**options):
    layer = AdditiveAttention(D, E, 4, **options, rngs=nnx.Rngs(0))
    layer.v[...] = jnp.arange(1.0, 5.0)
    return attention_output(layer)


def luong(score):
    def make(**options):
        sizes = {"align_dim": 4, "window": 2}
        return attention_output(LuongAttention(D, E, score, **sizes, **options, rngs=nnx.Rngs(0)))

    return make


ONE, BOTH = ((T, D),), ((T, D), (S, E))
LAYERS = {
    "attention": (attention, ((B, T, D),)),
    "feed-forward": (gated, ((B, T, D),)),
    "residual": (residual, ((B, T, D),)),
    "logits": (logits, ((B, T, D),)),
    "encoder block": (encoder_block, ((B, T, D),)),
    "decoder block": (decoder_block, ((B, T, D), (B, T, E))),
    "additive": (additive, BOTH),
    "general": (luong("general"), BOTH),
    "concat": (luong("concat"), BOTH),
    "local": (luong("local"), BOTH),
    "self-attention": (lambda **o: SelfAttention(D, **o, rngs=nnx.Rngs(0)), ONE),
    "causal": (lambda **o: CausalSelfAttention(D, **o, rngs=nnx.Rngs(0)), ONE),
    "heads": (lambda **o: MultiHeadSelfAttention(N, D, **o, rngs=nnx.Rngs(0)), ONE),
}


@pytest.mark.parametrize(("make", "shapes"), LAYERS.values(), ids=LAYERS)
def test_a_layer_computes_in_its_dtype_for_inputs_of_any_dtype(make, shapes):
    arrays = draw(0, *shapes, dtype=jnp.float32)
    rounded = [array.astype(HALF) for array in arrays]
    out = make(dtype=HALF)(*arrays)
    assert out.dtype == HALF
    assert_equal(out, make()(*rounded))
    wide = make()(*arrays)
    assert wide.dtype == jnp.float32
    assert float(jnp.abs(out.astype(jnp.float32) - wide).max()) < 0.1 * float(jnp.abs(wide).max())
    assert_equal(make(dtype=jnp.float32)(*arrays), wide)


def test_parameters_stay_in_their_own_dtype():
    layer = encoder_block(dtype=HALF)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype(jnp.float32)}
    (x,) = draw(1, (B, T, D), dtype=jnp.float32)
    found = nnx.grad(lambda layer: jnp.sum(layer(x).astype(jnp.float32) ** 2))(layer)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_token_embeddings_have_the_dtype_of_the_layer():
    tokens, options = jnp.array([3, 0, 10]), {"rngs": nnx.Rngs(0)}
    table = Embedding(11, D, rngs=nnx.Rngs(0))(tokens)
    assert_equal(Embedding(11, D, dtype=HALF, **options)(tokens), table.astype(HALF))


def test_the_residual_stream_stays_float32_around_bfloat16_layers():
    """The residual stream stays float32 if the layers compute in bfloat16."""
    parts = attention(dtype=HALF), FeedForward(D, 12, dtype=HALF, rngs=nnx.Rngs(1))
    block = TransformerEncoderBlock(*parts, rngs=nnx.Rngs(2))
    (x,) = draw(2, (B, T, D), dtype=jnp.float32)
    out = block(x)
    assert out.dtype == jnp.float32
    assert jnp.any(out != out.astype(HALF).astype(jnp.float32))


def test_a_cache_stores_the_tokens_of_a_bfloat16_layer():
    layer = attention(dtype=HALF)
    (x,) = draw(3, (B, T, D), dtype=jnp.float32)
    cache, out = caches.contiguous(B, T, N, D // N, dtype=HALF), []
    for chunk in jnp.split(x, [2], axis=1):
        of_chunk, cache = layer.extend(chunk, cache)
        out.append(of_chunk)
    together = jnp.concatenate(out, axis=1)
    assert together.dtype == HALF
    error = jnp.abs(together.astype(jnp.float32) - layer(x).astype(jnp.float32)).max()
    assert float(error) < 0.02 * float(jnp.abs(layer(x)).max())


@pytest.mark.parametrize("param_dtype", [jnp.float32, "the same"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_dtype_of_flaxs_layer_is_kept_from_flax_and_to_flax(dtype, param_dtype):
    param_dtype = dtype if param_dtype == "the same" else param_dtype
    flaxs = nnx.MultiHeadAttention(
        N, D, decode=False, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0)
    )
    ours = from_flax(flaxs)
    (x,) = draw(4, (B, T, D), dtype=jnp.float32)
    for given in (x, x.astype(dtype)):
        with jax.numpy_dtype_promotion("standard"):
            wanted = flaxs(given)
        out = ours(given)
        assert out.dtype == wanted.dtype == dtype
        error = jnp.abs(out.astype(jnp.float32) - wanted.astype(jnp.float32)).max()
        assert float(error) < 0.03 * float(jnp.abs(wanted.astype(jnp.float32)).max())
    back = to_flax(ours)
    assert (back.dtype, back.param_dtype) == (dtype, param_dtype)
