"""T5's relative bias: a learned number for each head and bucket of distances.

Raffel et al. (2019), section 2.1, https://arxiv.org/abs/1910.10683. The bias is looked up when
a logit is computed, so no bias array [N T S] is stored. The example compares it with such an array.
"""

import jax
import jax.numpy as jnp

from attn_jax import dot_product_attention
from attn_jax.score_mods import relative_bias, relative_bucket

B, T, N, H, BUCKETS = 2, 40, 3, 8, 32
query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H))
table = jax.random.normal(jax.random.key(1), (N, BUCKETS))


def with_lookup(table):
    mod = relative_bias(table[None], bidirectional=True)  # [1 N R]: shared by the batch
    return dot_product_attention(query, key, value, score_mod=mod, scale=1.0)  # T5 does not scale


def with_array(table):
    distance = jnp.arange(T)[None, :] - jnp.arange(T)[:, None]
    bias = table[:, relative_bucket(distance, num_buckets=BUCKETS, bidirectional=True)]
    return dot_product_attention(query, key, value, bias=bias[None], scale=1.0)


difference = jnp.abs(with_lookup(table) - with_array(table)).max()
print(f"lookup and bias array differ by {difference:.0e}")
assert difference < 1e-5

gradient, expected = (jax.grad(lambda x, f=f: f(x).var())(table) for f in (with_lookup, with_array))
assert jnp.allclose(gradient, expected, atol=1e-6)
used = jnp.any(gradient != 0, axis=0)
print(f"{used.sum()} of {BUCKETS} buckets have a gradient: no distance is over {T - 1} here")
assert 0 < used.sum() < BUCKETS
