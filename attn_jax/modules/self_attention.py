"""The former place of `attn_jax.lecture.layers`: old imports and pickles still work."""

from attn_jax.lecture.layers import CausalSelfAttention as CausalSelfAttention
from attn_jax.lecture.layers import MultiHeadSelfAttention as MultiHeadSelfAttention
from attn_jax.lecture.layers import SelfAttention as SelfAttention
