"""Documents packed into one row: each reads itself, as if it were alone.

Krell et al. (2021), https://arxiv.org/abs/2107.02027. The ids may be different in each example of
a batch: `segments(ids[:, None])` has an axis for the batch and one that all heads share.
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
        rows = jnp.flatnonzero(ids[example] == document)
        alone = (array[example, rows] for array in (query, key, value))
        expected = dot_product_attention(*alone, is_causal=True)
        assert jnp.allclose(packed[example, rows], expected, atol=1e-6)
print("each of 5 documents reads as it would alone")

assert jnp.all(packed[ids == PADDING] == 0)
print("padding reads nothing:", packed[0, -1, 0])
