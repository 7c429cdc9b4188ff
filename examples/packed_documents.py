"""Documents packed into one sequence: tokens attend only within their document.

Krell et al. (2021), https://arxiv.org/abs/2107.02027. The ids may differ between batch
examples: `ids[:, None]` has a batch axis, and an axis of size 1 that all heads share.
"""

import jax
import jax.numpy as jnp

from attn_jax import dot_product_attention
from attn_jax.masks import causal, draw, segments

B, T, N, H = 2, 8, 2, 4
PADDING = -1
ids = jnp.array([[0, 0, 0, 1, 1, 1, 1, PADDING], [0, 0, 1, 1, 1, 2, 2, 2]])
query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H))

print(draw(causal() & segments(ids[0]), T, T))
packed = dot_product_attention(query, key, value, mask=causal() & segments(ids[:, None]))

for example in range(B):
    for document in range(ids[example].max() + 1):
        tokens = jnp.flatnonzero(ids[example] == document)
        alone = (array[example, tokens] for array in (query, key, value))
        expected = dot_product_attention(*alone, is_causal=True)
        assert jnp.allclose(packed[example, tokens], expected, atol=1e-6)
print("each of 5 documents has the same output as alone")

assert jnp.all(packed[ids == PADDING] == 0)
print("padding tokens are fully masked:", packed[0, -1, 0])
