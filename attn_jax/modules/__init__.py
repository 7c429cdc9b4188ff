"""Flax NNX layers: they hold parameters, the mathematics comes from the functions of `attn_jax`."""

from attn_jax.modules.additive import AdditiveAttention as AdditiveAttention
from attn_jax.modules.attention_fn import flax_attention as flax_attention
from attn_jax.modules.luong import LuongAttention as LuongAttention
from attn_jax.modules.self_attention import CausalSelfAttention as CausalSelfAttention
from attn_jax.modules.self_attention import MultiHeadSelfAttention as MultiHeadSelfAttention
from attn_jax.modules.self_attention import SelfAttention as SelfAttention
