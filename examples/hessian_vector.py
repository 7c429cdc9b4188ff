"""A Hessian-vector product through attention: forward over reverse mode, in linear memory.

Pearlmutter, "Fast Exact Multiplication by the Hessian" (1994),
https://doi.org/10.1162/neco.1994.6.1.147. Derivatives of blockwise attention of any order are
sums over tiles, so neither the T×S weights nor the Hessian is stored in full.
"""

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.masks import causal
from attn_jax.score_mods import soft_cap

T, H = 300, 2
query, key, value, one, other = jax.random.normal(jax.random.key(0), (5, T, H))


def loss(query):
    options = {"mask": causal(), "score_mod": soft_cap(5.0), "implementation": "blockwise"}
    return jnp.sum(attend(query, key, value, **options) ** 2)


@jax.jit
def times_hessian(vector):
    return jax.jvp(jax.grad(loss), (query,), (vector,))[1]


product = times_hessian(one)
one_way, other_way = jnp.vdot(other, product), jnp.vdot(one, times_hessian(other))
print(f"the Hessian is symmetric: {one_way:.5f} = {other_way:.5f}")
assert jnp.allclose(one_way, other_way, rtol=1e-3)

step = 1e-2
slopes = jax.grad(loss)(query + step * one), jax.grad(loss)(query - step * one)
difference = jnp.abs(product - (slopes[0] - slopes[1]) / (2 * step)).max()
print(f"a central difference of gradients is within {difference:.0e} of at most", end=" ")
print(f"{jnp.abs(product).max():.2f}")
assert difference < 1e-2 * jnp.abs(product).max()
