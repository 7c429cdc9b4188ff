"""Gemma 2's local layers: grouped query heads, a soft cap on the logits, a causal window.

Gemma Team (2024), section 2, https://arxiv.org/abs/2408.00118, with a cap of 50 and a window of
4096; this example uses smaller sizes, and compares with plain jnp.
"""

import math

import jax
import jax.numpy as jnp

from attn_jax import block_mask, dot_product_attention
from attn_jax.masks import causal, sliding_window
from attn_jax.score_mods import soft_cap

B, T, N, K, H, WINDOW, CAP = 1, 1024, 4, 2, 16, 128, 50.0
rngs = jax.random.split(jax.random.key(0), 3)
query = 20 * jax.random.normal(rngs[0], (B, T, N, H))  # many logits exceed the cap
key, value = (jax.random.normal(rng, (B, T, K, H)) for rng in rngs[1:])

local = causal() & sliding_window(WINDOW - 1, 0)  # the query itself and WINDOW - 1 before it
out = dot_product_attention(query, key, value, mask=local, score_mod=soft_cap(CAP))

repeated_key, repeated_value = (jnp.repeat(array, N // K, axis=2) for array in (key, value))
logits = jnp.einsum("BTNH,BSNH->BNTS", query, repeated_key) / math.sqrt(H)
logits = CAP * jnp.tanh(logits / CAP)
distance = jnp.arange(T)[:, None] - jnp.arange(T)[None, :]
weights = jax.nn.softmax(logits, where=(distance >= 0) & (distance < WINDOW))
difference = jnp.abs(out - jnp.einsum("BNTS,BSNH->BTNH", weights, repeated_value)).max()
print(f"differs from plain jnp by {difference:.0e}")
assert difference < 1e-4

tiles = block_mask(local, T, T, tile=(64, 64))
print(tiles)
assert tiles.sparsity > 0.8
