"""Flax NNX layers: they hold parameters and call the functions of `attn_jax`."""

from attn_jax._base import needs_flax as _needs_flax  # noqa: F401
from attn_jax.lecture.layers import CausalSelfAttention as CausalSelfAttention
from attn_jax.lecture.layers import MultiHeadSelfAttention as MultiHeadSelfAttention
from attn_jax.lecture.layers import SelfAttention as SelfAttention
from attn_jax.modules.additive import AdditiveAttention as AdditiveAttention
from attn_jax.modules.attention_fn import flax_attention as flax_attention
from attn_jax.modules.decoder_block import TransformerDecoderBlock as TransformerDecoderBlock
from attn_jax.modules.embedding import Embedding as Embedding
from attn_jax.modules.encoder_block import TransformerEncoderBlock as TransformerEncoderBlock
from attn_jax.modules.feed_forward import FeedForward as FeedForward
from attn_jax.modules.flax_layer import from_flax as from_flax
from attn_jax.modules.flax_layer import to_flax as to_flax
from attn_jax.modules.luong import LuongAttention as LuongAttention
from attn_jax.modules.multi_head_attention import MultiHeadAttention as MultiHeadAttention
from attn_jax.modules.residual import Residual as Residual
from attn_jax.modules.rotary import Rotary as Rotary
from attn_jax.modules.sharding import sharding_rules as sharding_rules
