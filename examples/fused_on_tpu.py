"""A fused TPU kernel with trained ALiBi slopes and documents of each example, also without a TPU.

`make tpu-example` fetches the TPU compiler (libtpu) and compiles the loss and its gradients for a
v5e, which need not be there. On a machine with a TPU, `python -m examples.fused_on_tpu` also runs
them. Without libtpu the same call is compiled for the CPU, where "blockwise" computes it.
"""

import importlib.util

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, SingleDeviceSharding

from attn_jax import dot_product_attention, explain
from attn_jax.masks import causal, segments
from attn_jax.score_mods import alibi, alibi_slopes

B, T, N, H = 2, 2048, 4, 64
query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H), jnp.bfloat16)
ids = jnp.array([[0] * 600 + [1] * 1448, [0] * 1100 + [1] * 100 + [2] * 848])  # documents [B T]


def options(slopes, ids):
    return {"mask": causal() & segments(ids[:, None]), "score_mod": alibi(slopes[None])}


@jax.jit
@jax.value_and_grad
def loss_and_gradients(trained, ids):
    slopes, query, key, value = trained
    out = dot_product_attention(query, key, value, **options(slopes, ids))
    return jnp.mean(out.astype(jnp.float32) ** 2)


chip = jax.devices()[0]
if chip.platform == "cpu" and importlib.util.find_spec("libtpu"):
    chip = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
elif chip.platform == "cpu":
    print("Compiled for the CPU: no TPU compiler is here (`make tpu-example` fetches it).")
slopes = alibi_slopes(N)
explanation = explain(query, key, value, **options(slopes, ids), device=chip)
print(explanation)
assert (explanation.implementation == "mosaic_tpu") == (chip.platform == "tpu")

arguments, there = ((slopes, query, key, value), ids), SingleDeviceSharding(chip)
types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments)
with jax.sharding.use_abstract_mesh(Mesh([chip], "chip").abstract_mesh):
    compiled = loss_and_gradients.lower(*types).compile()
temporary = compiled.memory_analysis().temp_size_in_bytes
print(f"loss and gradients on one {chip.device_kind}: {temporary / 2**20:.1f} MiB of temporaries")
assert temporary < 4 * B * N * T * T  # the bytes of all logits

if chip in jax.devices():
    loss, (slope_gradient, *_) = compiled(*arguments)
    print(f"loss {loss:.4f}, gradient of the slopes {slope_gradient}")
    assert jnp.all(slope_gradient != 0)
