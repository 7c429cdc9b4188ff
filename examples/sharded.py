"""Attention on eight devices: with arrays sharded over batch and heads, the call stays the same.

The eight devices are made of one CPU, so the program runs on any machine.
"""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")  # before the import of JAX

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from attn_jax import dot_product_attention
from attn_jax.score_mods import alibi, alibi_slopes

B, T, N, H = 4, 512, 8, 16
query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H))
slopes = alibi_slopes(N)


@jax.jit
def gradients(query, key, value, slopes):
    def loss(query, key, value, slopes):
        out = dot_product_attention(
            query, key, value, is_causal=True, score_mod=alibi(slopes[None])
        )
        return jnp.sum(out**2)

    return jax.grad(loss, argnums=(0, 1, 2, 3))(query, key, value, slopes)


mesh = jax.make_mesh((2, 4), ("data", "tensor"), devices=jax.devices("cpu")[:8])
batch_and_heads = NamedSharding(mesh, PartitionSpec("data", None, "tensor", None))
on_all = NamedSharding(mesh, PartitionSpec())
arrays = [jax.device_put(array, batch_and_heads) for array in (query, key, value)]
sharded = gradients(*arrays, jax.device_put(slopes, on_all))
share = sharded[0].addressable_shards[0].data.shape
print(f"gradient of the query: {sharded[0].shape}, and {share} on each device")

names = ("query", "key", "value", "slopes")
for name, ours, alone in zip(names, sharded, gradients(query, key, value, slopes), strict=True):
    difference = jnp.abs(jax.device_get(ours) - alone).max() / jnp.abs(alone).max()
    print(f"{name}: differs from the gradient on one device by {difference:.0e} of the greatest")
    assert difference < 1e-5
