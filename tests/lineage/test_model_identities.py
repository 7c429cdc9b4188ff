"""Identities of whole models: what is left of a Transformer and of GPT, with counterexamples."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import positions
from attn_jax.models import GPT, DecoderConfig, Transformer, TransformerConfig
from tests.helpers.draws import draw
from tests.helpers.tiny_models import drawn
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.usefixtures("x64")

T, S, D, N, F, K, L = 5, 7, 6, 3, 10, 9, 2  # tokens, source, model, heads, hidden, ids, layers
EPSILON = 1e-6


def transformer() -> Transformer:
    sizes = {"model_dim": D, "num_heads": N, "num_layers": L, "hidden_dim": F, "use_bias": True}
    config = TransformerConfig(K, placement="pre", norm_eps=EPSILON, dropout_rate=0.0, **sizes)
    return drawn(Transformer(config, rngs=nnx.Rngs(0)), dtype=jnp.float64)


def silence(*parameters):
    """Sets the last parameters of a sub-layer to zero, so that it adds nothing."""
    for parameter in parameters:
        parameter[...] = 0 * parameter[...]


def layer_norm(x, norm):
    """Ba et al. (2016), in numpy."""
    x = np.asarray(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return jnp.asarray(centred / spread * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...]))


def without_biases(attention):
    silence(attention.b_query, attention.b_key, attention.b_value, attention.b_out)
    return [getattr(attention, name)[...] for name in ("w_query", "w_key", "w_value", "w_out")]


def test_g01_a_decoder_block_with_its_other_sublayers_at_zero_is_cross_attention():
    x, memory = draw(1, (1, T, D), (1, S, D))
    block = transformer().decoder[0]
    w_query, w_key, w_value, w_out = without_biases(block.cross_attention)
    own, feed_forward = block.self_attention, block.feed_forward

    def cross_attention(x, memory):
        heads = (
            attn_jax.attend(x @ w_query[:, n], memory @ w_key[:, n], memory @ w_value[:, n])
            @ w_out[n]
            for n in range(N)
        )
        return sum(heads)

    expected = x[0] + cross_attention(layer_norm(x[0], block.cross_residual.norm), memory[0])
    assert_differs(block(x, memory)[0], expected)
    silence(own.w_out, own.b_out, feed_forward.w_down, feed_forward.b_down)
    assert_close(block(x, memory)[0], expected)


def test_g02_an_encoder_block_without_feed_forward_is_multi_head_attention():
    (x,) = draw(2, (1, T, D))
    block = transformer().encoder[0]
    weights = without_biases(block.attention)
    normed = layer_norm(x[0], block.attention_residual.norm)
    expected = x[0] + attn_jax.multi_head_self_attention(normed, *weights)
    assert_differs(block(x)[0], expected)
    silence(block.feed_forward.w_down, block.feed_forward.b_down)
    assert_close(block(x)[0], expected)


def gpt_from(decoder: Transformer) -> GPT:
    """A GPT with the parameters of a decoder, and its sinusoids as learned positions."""
    config = DecoderConfig(
        vocab_size=K,
        model_dim=D,
        num_layers=L,
        num_heads=N,
        hidden_dim=F,
        max_length=T,
        norm_eps=EPSILON,
        activation="relu",
        embed_scale=math.sqrt(D),
    )
    model = drawn(GPT(config, rngs=nnx.Rngs(1)), dtype=jnp.float64)
    pairs = [(model.embedding, decoder.embedding), (model.norm, decoder.decoder_norm)]
    for ours, theirs in zip(model.blocks, decoder.decoder, strict=True):
        pairs.append((ours.attention, theirs.self_attention))
        pairs.append((ours.attention_residual, theirs.self_residual))
        pairs.append((ours.feed_forward, theirs.feed_forward))
        pairs.append((ours.feed_forward_residual, theirs.feed_forward_residual))
    for ours, theirs in pairs:
        nnx.update(ours, nnx.state(theirs))
    model.position.table[...] = positions.sinusoidal(jnp.arange(T), D).astype(jnp.float64)
    return model


def test_g03_a_transformer_whose_decoder_ignores_the_source_is_a_gpt():
    decoder = transformer()
    gpt = gpt_from(decoder)
    tokens, source = jnp.array([3, 1, 4, 1, 5]), jnp.array([4, 8, 2])
    real = jnp.ones(source.shape, bool)
    expected = gpt(tokens[None])[0]
    assert_differs(decoder.logits(source, real, tokens), expected)
    for block in decoder.decoder:
        silence(block.cross_attention.w_out, block.cross_attention.b_out)
    assert_close(decoder.logits(source, real, tokens), expected)
    assert_close(decoder.logits(source[::-1], real, tokens), expected)
