"""Compiles the fused TPU kernel for absent TPUs: a row and a line of JSON for each case.

    make tpu
    PYTHONPATH=.tpu:. JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4 \\
      TPU_WORKER_HOSTNAMES=localhost .venv/bin/python tests/programs/compile_tpu_kernel.py \\
      --options causal "ALiBi slopes" --widths 64 128 --out compiled.jsonl

Cases that the file has already are left out. A case that fails is a row with its error. Nothing
runs on a TPU: compiled programs show memory and kernel calls, and no speed.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import attn_jax
from tests.programs.tpu_kernel_options import B, Case, N, option_classes

CHIPS = {"v5e": "v5e:2x2", "v6e": "v6e:16x16", "tpu7x": "tpu7x:2x2x1"}
WIDTHS = (64, 128, 256)
DTYPES = ("bfloat16", "float32")
PASSES = ("forward", "gradient")
TOKENS = 2048
MIB = 2**20
ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]+)\](\{[^}]*\})?")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2}


def one_chip(chip: str) -> Mesh:
    """The first chip of a topology that is not there."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip])
    return Mesh(np.array(topology.devices[:1]), ("chip",))


def compile_case(mesh: Mesh, case: Case, H: int, dtype: Any, which: str) -> dict[str, Any]:
    """What the compiler says of one case; `which` is "forward" or "gradient"."""
    query = ShapeDtypeStruct((B, case.T, N, H), dtype)
    key = ShapeDtypeStruct((B, case.S, case.key_heads, H), dtype)
    count = 3 + len(case.trained)

    def attend(query: Any, key: Any, value: Any, *arrays: Any) -> Any:
        options = case.options(*arrays)
        return attn_jax.dot_product_attention(
            query, key, value, implementation="mosaic_tpu", **options
        )

    def gradients(d_out: Any, *arrays: Any) -> Any:
        trained, fixed = arrays[:count], arrays[count:]
        out, pull = jax.vjp(lambda *trained: attend(*trained, *fixed), *trained)
        return out, pull(d_out)

    arrays = query, key, key, *case.trained, *case.fixed
    sizes = (case.T, case.S)
    if which == "forward":
        return compiled(mesh, attend, arrays, sizes)
    return compiled(mesh, gradients, (query, *arrays), sizes)


def compiled(mesh: Mesh, function: Callable, arrays: Any, sizes: tuple[int, int]) -> dict[str, Any]:
    """Compiles a function of arrays on one chip.

    `temporary_bytes` are those in the chip's main memory. The compiler keeps some arrays in on-chip
    memory instead, which it does not count: `largest_on_chip_bytes` is the size of the largest.
    `cpu_seconds` are those of all threads that compile, so other work on the machine hardly counts.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(
        lambda x: ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tuple(arrays)
    )
    start = time.perf_counter()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = jax.jit(function).lower(*placed)
    middle, cpu = time.perf_counter(), time.process_time()
    program = lowered.compile()
    seconds, cpu_seconds = time.perf_counter() - middle, time.process_time() - cpu
    memory, text = program.memory_analysis(), program.as_text()
    return {
        "lower_seconds": round(middle - start, 1),
        "compile_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "temporary_bytes": memory.temp_size_in_bytes,
        "largest_on_chip_bytes": largest_on_chip(text),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "pair_arrays": pair_arrays(text, sizes),
    }


def pair_arrays(text: str, sizes: tuple[int, int]) -> list[str]:
    """The types in a compiled program that have an axis of T and one of S, padded to 512 or not."""
    T, S = ({size, -(-size // 512) * 512} for size in sizes)
    found = set()
    for dtype, shape, _ in ARRAY.findall(text):
        axes = [int(axis) for axis in shape.split(",")]
        by_query = [n for n, axis in enumerate(axes) if axis in T]
        by_key = [n for n, axis in enumerate(axes) if axis in S]
        if any(one != other for one in by_query for other in by_key):
            found.add(f"{dtype}[{shape}]")
    return sorted(found)


def largest_on_chip(text: str) -> int:
    """The bytes of the largest array that a compiled program keeps in on-chip memory, S(1)."""
    sizes = [
        (BYTES.get(dtype) or int(dtype[1:]) // 8) * math.prod(map(int, shape.split(",")))
        for dtype, shape, layout in ARRAY.findall(text)
        if "S(1)" in layout
    ]
    return max(sizes, default=0)


def load() -> float:
    """Processes that wait for a core, beside this one: seconds are true where it is below 1."""
    return round(os.getloadavg()[0], 1)


def rows(names: Any, done: set[tuple]) -> Any:
    """The rows of all cases that are not done, one after another."""
    meshes = {chip: one_chip(chip) for chip in names.chips}
    product = itertools.product(names.dtypes, names.widths, names.chips, names.passes)
    for dtype, H, chip, which in product:
        cases = option_classes(names.tokens, jnp.dtype(dtype))
        for option in names.options or cases:
            place = {"chip": chip, "option": option, "H": H, "dtype": dtype, "pass": which}
            if tuple(place.values()) in done:
                continue
            before = load()
            try:
                found = compile_case(meshes[chip], cases[option], H, jnp.dtype(dtype), which)
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}"[:600]}
            yield place | {"T": names.tokens} | found | {"load": max(before, load())}


def described(row: dict[str, Any]) -> str:
    place = f"{row['chip']:6}{row['option']:26}{row['H']:4} {row['dtype']:9}{row['pass']:9}"
    if "error" in row:
        return f"{place}{row['error'].splitlines()[0]}"
    temporaries = row["temporary_bytes"] / MIB
    pairs = ", ".join(row["pair_arrays"]) or "none"
    return (
        f"{place}{row['cpu_seconds']:6.1f} s of CPU {temporaries:7.2f} MiB "
        f"{row['kernels']} kernels; arrays by pair: {pairs}"
    )


def versions() -> dict[str, str]:
    """The versions of what compiled, and the day."""
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    return found | {"date": datetime.date.today().isoformat()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--options", nargs="+", choices=option_classes(TOKENS, jnp.float32))
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--tokens", type=int, default=TOKENS, help="T and S")
    parser.add_argument("--out", type=Path, help="the file of JSON lines to add to")
    return parser.parse_args()


def main() -> None:
    names = arguments()
    lines = names.out.read_text("utf-8").splitlines() if names.out and names.out.exists() else []
    keys = ("chip", "option", "H", "dtype", "pass")
    done = {tuple(row[key] for key in keys) for row in map(json.loads, lines)}
    for row in rows(names, done):
        print(described(row), flush=True)
        if names.out:
            with names.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | versions()) + "\n")


if __name__ == "__main__":
    main()
