"""A `Transformer` with the weights of a torch.nn.Transformer, given by their names there."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from attn_jax.models import Transformer, TransformerConfig
from attn_jax.modules import FeedForward, MultiHeadAttention


def from_torch(config: TransformerConfig, weights) -> Transformer:
    """The model of `config`, its embeddings from table.source and table.target."""
    model = Transformer(config, rngs=nnx.Rngs(0))
    fill(model.source_embedding.table, weights["table.source"])
    fill(model.embedding.table, weights["table.target"])
    for i, block in enumerate(model.encoder):
        layer = f"encoder.layers.{i}."
        fill_attention(block.attention, weights, layer + "self_attn.")
        fill_norm(block.attention_residual.norm, weights, layer + "norm1.")
        fill_feed_forward(block.feed_forward, weights, layer)
        fill_norm(block.feed_forward_residual.norm, weights, layer + "norm2.")
    for i, block in enumerate(model.decoder):
        layer = f"decoder.layers.{i}."
        fill_attention(block.self_attention, weights, layer + "self_attn.")
        fill_norm(block.self_residual.norm, weights, layer + "norm1.")
        fill_attention(block.cross_attention, weights, layer + "multihead_attn.")
        fill_norm(block.cross_residual.norm, weights, layer + "norm2.")
        fill_feed_forward(block.feed_forward, weights, layer)
        fill_norm(block.feed_forward_residual.norm, weights, layer + "norm3.")
    fill_norm(model.encoder_norm, weights, "encoder.norm.")
    fill_norm(model.decoder_norm, weights, "decoder.norm.")
    return model


def fill(parameter: nnx.Param, values) -> None:
    parameter[...] = jnp.asarray(np.reshape(values, parameter.shape), parameter.dtype)


def fill_attention(layer: MultiHeadAttention, weights, name: str) -> None:
    """torch stacks query, key and value as rows; each matrix is output × input."""
    matrices = np.split(weights[name + "in_proj_weight"], 3)
    biases = np.split(weights[name + "in_proj_bias"], 3)
    for parameter, matrix in zip(
        (layer.w_query, layer.w_key, layer.w_value), matrices, strict=True
    ):
        fill(parameter, matrix.T)
    for parameter, bias in zip((layer.b_query, layer.b_key, layer.b_value), biases, strict=True):
        fill(parameter, bias)
    fill(layer.w_out, weights[name + "out_proj.weight"].T)
    fill(layer.b_out, weights[name + "out_proj.bias"])


def fill_feed_forward(layer: FeedForward, weights, name: str) -> None:
    fill(layer.w_up, weights[name + "linear1.weight"].T)
    fill(layer.b_up, weights[name + "linear1.bias"])
    fill(layer.w_down, weights[name + "linear2.weight"].T)
    fill(layer.b_down, weights[name + "linear2.bias"])


def fill_norm(norm: nnx.LayerNorm, weights, name: str) -> None:
    fill(norm.scale, weights[name + "weight"])
    fill(norm.bias, weights[name + "bias"])
