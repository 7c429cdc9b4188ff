"""One block of a `GPT`: causal self-attention, then a feed-forward network, as a config says."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

from attn_jax import masks, score_mods
from attn_jax.models.decoder_config import DecoderConfig
from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerEncoderBlock


class DecoderBlock(TransformerEncoderBlock):
    """A decoder block without cross-attention: causal self-attention, then feed-forward.

    Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3. It is
    a `TransformerEncoderBlock` whose attention is causal; its layers follow `config`.
    Matrices start at N(0, 0.02²); `w_out` and `w_down`, which end a sub-layer, are divided by
    √(2 num_layers).

    Args:
      config: sizes and choices of the model.
      layer: the block's index, for its window.
      param_dtype: of the parameters; norms stay float32.
      rngs: random keys of the initial parameters.

    Example:
      >>> from attn_jax.models import DecoderConfig
      >>> from attn_jax.models.decoder_block import DecoderBlock
      >>> block = DecoderBlock(DecoderConfig(7, 8, 2, 2), 0, rngs=nnx.Rngs(0))
      >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
      >>> bool(jnp.allclose(block(x)[:, :3], block(x[:, :3]), atol=1e-6))   # causal
      True
    """

    def __init__(
        self,
        config: DecoderConfig,
        layer: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        options = {
            "kernel_init": nnx.initializers.normal(0.02),
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        attention = _causal_self_attention(config, layer, options)
        feed_forward = _feed_forward(config, options)
        for last in (attention.w_out, feed_forward.w_down):
            last[...] = last[...] / math.sqrt(2 * config.num_layers)
        super().__init__(
            attention,
            feed_forward,
            placement=config.placement,
            norm=config.norm,
            norm_eps=config.norm_eps,
            dropout_rate=config.dropout_rate,
            rngs=rngs,
        )


def _causal_self_attention(
    config: DecoderConfig, layer: int, options: dict[str, Any]
) -> MultiHeadAttention:
    window, cap = config.window(layer), config.logits_soft_cap
    mask = masks.causal() if window is None else masks.causal() & masks.sliding_window(window, 0)
    return MultiHeadAttention(
        config.model_dim,
        config.num_heads,
        num_kv_heads=config.kv_heads,
        head_dim=config.head_width,
        use_bias=config.use_qkv_bias,
        use_out_bias=config.use_bias,
        qk_norm=config.qk_norm,
        rotary=config.rotary,
        mask=mask,
        score_mod=None if cap is None else score_mods.soft_cap(cap),
        scale=config.scale,
        norm_eps=config.norm_eps,
        dropout_rate=config.dropout_rate,
        **options,
    )


def _feed_forward(config: DecoderConfig, options: dict[str, Any]) -> FeedForward:
    return FeedForward(
        config.model_dim,
        4 * config.model_dim if config.hidden_dim is None else config.hidden_dim,
        activation=config.activation,
        gated=config.gated,
        use_bias=config.use_bias,
        **options,
    )
