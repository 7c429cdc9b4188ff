"""Compiles a training step of GPT-2's size, with the fused TPU kernel, for a v6e pod of 256 chips.

Run it as compile_tpu_kernel.py; `--layers 12` is GPT-2's size. It prints a report in JSON. Batch
examples are divided over "data", heads, hidden units and the vocabulary over "tensor". XLA divides
the whole step but the kernel, which `jax.shard_map` calls on each chip.
"""

import argparse
import functools
import json
import re
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import attn_jax
from attn_jax import models
from attn_jax.modules import Rotary, multi_head_attention, sharding_rules

COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
DATA, TENSOR = 64, 4  # 12 heads are 3 a chip
TOKENS = 8192
VOCABULARY = 50_304  # GPT-2 has 50 257 tokens; padded, each chip holds as many


def pod() -> Mesh:
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v6e:16x16").devices
    return Mesh(np.array(chips).reshape(DATA, TENSOR), ("data", "tensor"))


def on_each_chip(mesh: Mesh, query: Any, key: Any, value: Any, **options: Any) -> Any:
    """Attention of the batch examples and heads that each chip holds."""
    heads = PartitionSpec("data", None, "tensor")
    attend = functools.partial(
        attn_jax.dot_product_attention, **options | {"implementation": "mosaic_tpu"}
    )
    divided = jax.shard_map(attend, mesh=mesh, in_specs=heads, out_specs=heads)
    return divided(query, key, value)


def step_of(graph: Any, optimiser: optax.GradientTransformation) -> Any:
    """One step of the optimiser, as a function of parameters, its state and tokens."""

    def step(parameters: Any, state: Any, tokens: Any) -> Any:
        def loss(parameters: Any) -> Any:
            logits = nnx.merge(graph, parameters)(tokens[:, :-1])
            return models.token_losses(logits, tokens[:, 1:])[0].mean()

        updates, state = optimiser.update(jax.grad(loss)(parameters), state, parameters)
        return optax.apply_updates(parameters, updates), state

    return step


def lowered(mesh: Mesh, layers: int) -> Any:
    config = models.DecoderConfig(
        vocab_size=VOCABULARY,
        num_layers=layers,
        max_length=TOKENS,
        rotary=Rotary(),
    )
    model = nnx.eval_shape(lambda: models.GPT(config, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graph, parameters = nnx.split(model)
    optimiser = optax.adam(1e-3)
    state = jax.eval_shape(optimiser.init, parameters)
    with nnx.logical_axis_rules(sharding_rules(mesh)):
        places = [nnx.get_named_sharding(tree, mesh) for tree in (parameters, state)]
    placed = [
        jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), *pair)
        for pair in zip((parameters, state), places, strict=True)
    ]
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    tokens = jax.ShapeDtypeStruct((DATA, TOKENS + 1), jnp.int32, sharding=by_batch)
    step = jax.jit(step_of(graph, optimiser), out_shardings=tuple(places), donate_argnums=(0, 1))
    divided = functools.partial(on_each_chip, mesh)
    with (
        mock.patch.object(multi_head_attention, "dot_product_attention", divided),
        jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    ):
        return step.lower(*placed, tokens)


def report(layers: int) -> dict[str, Any]:
    """What the compiler says of the step; bytes are those of one chip."""
    mesh = pod()
    traced = lowered(mesh, layers)
    start = time.perf_counter()
    compiled = traced.compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    found = COLLECTIVES.findall(text)
    return {
        "chips": mesh.size,
        "layers": layers,
        "compile_seconds": round(time.perf_counter() - start, 1),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "collectives": {name: found.count(name) for name in sorted(set(found))},
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    print(json.dumps(report(parser.parse_args().layers)))


if __name__ == "__main__":
    main()
