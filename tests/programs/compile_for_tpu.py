"""Compiles attention and one data-parallel training step for TPUs; prints a report in JSON.

Run by test_tpu_compile.py in a process of its own, with the TPU compiler on its path and no TPU.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import attn_jax
from attn_jax import models
from attn_jax.modules import Rotary, sharding_rules

COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def report(compiled, mesh: Mesh) -> dict:
    found = COLLECTIVES.findall(compiled.as_text())
    return {
        "chips": mesh.size,
        "flops": compiled.cost_analysis()["flops"],
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "collectives": {name: found.count(name) for name in sorted(set(found))},
    }


def attention(mesh: Mesh) -> dict:
    """The gradient of causal attention with the batch split over the chips."""
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    B, T, N, K, H = 8, 256, 8, 2, 128
    query = jax.ShapeDtypeStruct((B, T, N, H), jnp.bfloat16, sharding=by_batch)
    key = value = jax.ShapeDtypeStruct((B, T, K, H), jnp.bfloat16, sharding=by_batch)

    def total(query, key, value):
        out = attn_jax.dot_product_attention(query, key, value, is_causal=True)
        return jnp.sum(out.astype(jnp.float32), axis=(1, 2, 3))

    def gradients(query, key, value, cotangent):
        return jax.vjp(total, query, key, value)[1](cotangent)

    cotangent = jax.ShapeDtypeStruct((B,), jnp.float32, sharding=by_batch)
    return report(jax.jit(gradients).lower(query, key, value, cotangent).compile(), mesh)


def long_attention(mesh: Mesh, T: int) -> dict:
    """The gradient of causal attention on long sequences, batch and heads split over the chips."""
    by_batch_and_heads = NamedSharding(mesh, PartitionSpec("data", None, "heads"))
    B, N, K, H = mesh.shape["data"], 16, 4, 128
    attend = functools.partial(
        attn_jax.dot_product_attention, is_causal=True, implementation="blockwise"
    )

    def array(heads):
        return jax.ShapeDtypeStruct((B, T, heads, H), jnp.bfloat16, sharding=by_batch_and_heads)

    def gradients(query, key, value, cotangent):
        return jax.vjp(attend, query, key, value)[1](cotangent)

    lowered = jax.jit(gradients).lower(array(N), array(K), array(K), array(N))
    return report(lowered.compile(), mesh)


def training_step(mesh: Mesh) -> dict:
    """One optimiser step of the encoder–decoder with Bahdanau's attention, data-parallel."""
    config = models.EncoderDecoderConfig(
        source_vocab=512,
        target_vocab=384,
        embed_dim=128,
        hidden_dim=256,
        align_dim=256,
        readout_dim=128,
    )
    model = nnx.eval_shape(lambda: models.EncoderDecoder(config, rngs=nnx.Rngs(0)))
    graph, parameters = nnx.split(model)
    optimiser = optax.adam(1e-3)

    def step(parameters, state, batch):
        def loss(parameters):
            return models.translation_loss(nnx.merge(graph, parameters), batch)[0]

        updates, state = optimiser.update(jax.grad(loss)(parameters), state)
        return optax.apply_updates(parameters, updates), state

    def placed(spec, leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    everywhere = functools.partial(placed, PartitionSpec())
    split = functools.partial(placed, PartitionSpec("data"))
    ids, mask = np.zeros((16, 24), np.int32), np.ones((16, 24), bool)
    batch = models.Batch(source=ids, source_mask=mask, target=ids[:, :20], target_mask=mask[:, :20])
    state = jax.eval_shape(optimiser.init, parameters)
    lowered = jax.jit(step).lower(
        jax.tree.map(everywhere, parameters),
        jax.tree.map(everywhere, state),
        jax.tree.map(split, batch),
    )
    return report(lowered.compile(), mesh)


def tensor_parallel_step(mesh: Mesh) -> dict:
    """One training step of two blocks with heads, hidden units and vocabulary sharded."""
    config = models.DecoderConfig(
        vocab_size=1024,
        model_dim=512,
        num_layers=2,
        num_heads=8,
        rotary=Rotary(),
        norm="rms",
        activation="silu",
        gated=True,
        use_bias=False,
        use_qkv_bias=False,
    )
    model = nnx.eval_shape(lambda: models.GPT(config, rngs=nnx.Rngs(0)))
    graph, parameters = nnx.split(model)
    with nnx.logical_axis_rules(sharding_rules(mesh)):
        places = nnx.get_named_sharding(parameters, mesh)

    def step(parameters, tokens):
        def loss(parameters):
            logits = nnx.merge(graph, parameters)(tokens[:, :-1])
            return models.token_losses(logits, tokens[:, 1:])[0].mean()

        gradient = jax.grad(loss)(parameters)
        return jax.tree.map(lambda x, g: x - 1e-3 * g, parameters, gradient)

    placed = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        parameters,
        places,
    )
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    tokens = jax.ShapeDtypeStruct((mesh.shape["data"], 257), jnp.int32, sharding=by_batch)
    lowered = jax.jit(step, out_shardings=places).lower(placed, tokens)
    return report(lowered.compile(), mesh)


def topology(name: str) -> np.ndarray:
    return np.array(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)


def main() -> None:
    v5e, v6e = topology("v5e:2x2"), topology("v6e:16x16")
    by_batch = Mesh(v5e, ("data",))
    meshes = {
        "v5e:2x2": Mesh(v5e.reshape(2, 2), ("data", "heads")),
        "v6e:16x16": Mesh(v6e.reshape(128, 2), ("data", "heads")),
    }
    long = {
        name: [long_attention(mesh, T) for T in (2**16, 2**18)] for name, mesh in meshes.items()
    }
    reports = {
        "dot_product_attention": attention(by_batch),
        "training_step": training_step(by_batch),
        "tensor_parallel_step": tensor_parallel_step(Mesh(v6e.reshape(32, 8), ("data", "tensor"))),
        "long_attention": long,
    }
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
