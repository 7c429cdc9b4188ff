"""Compiles a Pallas kernel on sharded arrays for several TPUs; prints a report in JSON.

Run by test_tpu_compile.py in a process of its own, with the TPU compiler on its path and no TPU.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import attn_jax
from attn_jax._engine import dispatch
from tests.helpers.toy_kernel import ToyKernel
from tests.programs.compile_for_tpu import COLLECTIVES

T, S, H, V = 16, 32, 128, 256
SPECS = {
    "batch": PartitionSpec("data"),
    "heads": PartitionSpec(None, None, "heads"),
    "both": PartitionSpec("data", None, "heads"),
    "neither": PartitionSpec(),
}
KERNEL = re.compile(r"= \(?f32\[(\d+),.*custom-call\(.*tpu_custom_call")
attend = functools.partial(attn_jax.dot_product_attention, implementation="toy")


def report(function, *arrays) -> dict:
    """The collectives of a program, and how many heads each call of the kernel computes."""
    try:
        text = jax.jit(function).lower(*arrays).compile().as_text()
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    found = COLLECTIVES.findall(text)
    return {
        "collectives": {name: found.count(name) for name in sorted(set(found))},
        "heads": [int(heads) for heads in KERNEL.findall(text)],
    }


def operands(mesh: Mesh, spec: PartitionSpec, key_heads: int) -> list:
    """Query, key, value and the cotangent of the output; key heads that are few are whole."""
    B, N = (2 * mesh.shape[name] for name in ("data", "heads"))
    is_whole = key_heads % mesh.shape["heads"] != 0
    of_keys = PartitionSpec(*spec[:2]) if is_whole else spec
    shapes = [
        ((B, T, N, H), spec),
        ((B, S, key_heads, H), of_keys),
        ((B, S, key_heads, V), of_keys),
        ((B, T, N, V), spec),
    ]
    return [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in shapes
    ]


def with_gradients(query, key, value, cotangent):
    out, transpose = jax.vjp(attend, query, key, value)
    return out, *transpose(cotangent)


def partitioned(x):
    """One more than x, by the callbacks that custom partitioning has for the compiler."""
    function = custom_partitioning(lambda x: x + 1)

    def partition(mesh, operands, result):
        return mesh, lambda x: x + 1, result.sharding, (operands[0].sharding,)

    function.def_partition(partition, sharding_rule="i -> i")
    return function(x)


def of_named_vmap(query, key, value):
    """One head of each example; `vmap` says over which mesh axis."""
    attend_one = functools.partial(attn_jax.attend, implementation="toy")
    return jax.vmap(attend_one, spmd_axis_name="data")(query, key, value)


def explicit(devices: np.ndarray, specs: list[str]) -> dict:
    """By layout and number of key heads, of which there are as many as query heads, half, or one.

    Gradients are computed with the output, as in training.
    """
    mesh = Mesh(devices, ("data", "heads"), axis_types=(AxisType.Explicit,) * 2)
    heads = mesh.shape["heads"]
    reports = {}
    for spec in specs:
        for name, key_heads in {"all": 2 * heads, "half": heads, "one": 1}.items():
            arrays = operands(mesh, SPECS[spec], key_heads)
            reports[f"{spec}, {name}"] = report(with_gradients, *arrays)
    return reports | {"forward": report(attend, *operands(mesh, SPECS["both"], heads)[:3])}


def automatic(devices: np.ndarray) -> dict:
    mesh = Mesh(devices, ("data", "heads"), axis_types=(AxisType.Auto,) * 2)
    spec = SPECS["both"]
    arrays = operands(mesh, spec, mesh.shape["heads"])
    chosen = functools.partial(attn_jax.dot_product_attention, implementation=None)
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    one_head = [
        jax.ShapeDtypeStruct((mesh.shape["data"], *shape), jnp.float32, sharding=by_example)
        for shape in ((T, H), (S, H), (S, V))
    ]
    vector = jax.ShapeDtypeStruct((mesh.shape["data"],), jnp.float32, sharding=by_example)
    reports = {
        "named kernel": report(attend, *arrays[:3]),
        "library's choice": report(chosen, *arrays[:3]),
        "custom partitioning": report(partitioned, vector),
    }
    with jax.set_mesh(mesh):
        reports["spmd_axis_name"] = report(of_named_vmap, *one_head)
        for check_vma in (True, False):
            mapped = jax.shard_map(
                with_gradients, in_specs=spec, out_specs=spec, check_vma=check_vma
            )
            reports[f"shard_map, check_vma={check_vma}"] = report(mapped, *arrays)
    return reports


def main() -> None:
    dispatch._CANDIDATES["toy"] = dispatch.Candidate(ToyKernel(), "it is a toy")
    v5e, v6e = (
        np.array(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
        for name in ("v5e:2x2", "v6e:16x16")
    )
    reports = {
        "v5e:2x2": explicit(v5e.reshape(2, 2), list(SPECS)),
        "v6e:16x16": explicit(v6e.reshape(32, 8), ["both"]),
        "automatic": automatic(v5e.reshape(2, 2)),
    }
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
