"""Bahdanau's score on 8192 keys, with gradients, in the memory of one tile.

Bahdanau et al. (2014), appendix A.1.2, https://arxiv.org/abs/1409.0473. The score of each query
and key has a hidden layer of A units. "blockwise" computes the hidden layer of one tile at a time.
"""

import functools

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.scores import additive

T, S, A, V = 64, 8192, 32, 16
rngs = jax.random.split(jax.random.key(0), 4)
query, key, value = (
    jax.random.normal(rng, shape)
    for rng, shape in zip(rngs, [(T, A), (S, A), (S, V)], strict=False)
)
v = jax.random.normal(rngs[3], (A,))


def loss(v, query, implementation):
    score = functools.partial(additive, out_kernel=v)
    return jnp.mean(attend(query, key, value, score=score, implementation=implementation) ** 2)


gradients, megabytes = {}, {}
for implementation in ("reference", "blockwise"):
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    compiled = gradient.lower(v, query, implementation).compile()
    gradients[implementation] = compiled(v, query)
    megabytes[implementation] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    print(f"{implementation}: {megabytes[implementation]:.0f} MiB of temporary memory")
print(f"the hidden layer of all pairs: {T * S * A * 4 / 2**20:.0f} MiB")
for one, other in zip(*gradients.values(), strict=True):
    assert jnp.allclose(one, other, rtol=1e-3, atol=1e-6)
assert megabytes["blockwise"] < T * S * A * 4 / 2**20
