"""`python -m attn_jax.benchmark.first_step`: seconds to trace, lower and compile a first gradient.

Each contender does so for causal attention in a new process, where nothing is cached yet; the
contenders take turns. Then it counts the calls of this library's functions in one trace, a number
that does not depend on the load of the machine.
"""

import collections
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import attn_jax
from attn_jax.benchmark import machine

B, T, N, H = 2, 1024, 8, 64
ROUNDS = 5
CONTENDERS = {
    "attn_jax": attn_jax.dot_product_attention,
    "jax.nn": jax.nn.dot_product_attention,
}
STAGES = ("trace", "lower", "compile")
_FOLDER = str(Path(attn_jax.__file__).parent)


class Calls(NamedTuple):
    """How many functions of this library were called, and how many calls that were in all."""

    distinct: int
    all: int


def main() -> None:
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    print(f"\nfirst gradient of causal attention, B={B} T={T} N={N} H={H}, float32: seconds")
    medians = {
        name: [statistics.median(row) for row in zip(*rows, strict=True)] for name, rows in runs()
    }
    ratios = [ours / theirs for ours, theirs in zip(*medians.values(), strict=True)]
    print(f"  {'':10}" + "".join(f"{stage:>10}" for stage in STAGES))
    for name, row in medians.items():
        print(f"  {name:10}" + "".join(f"{seconds:10.3f}" for seconds in row))
    print(f"  {'ratio':10}" + "".join(f"{ratio:9.1f}×" for ratio in ratios))
    print("\nfunctions of this library: distinct, calls")
    ours = CONTENDERS["attn_jax"]
    for what, function in {"forward": causal(ours), "gradient": gradient_of(ours)}.items():
        counted = calls(functools.partial(lowered, function))
        print(f"  {what:10}{counted.distinct:>10}{counted.all:>10}")


def runs() -> list[tuple[str, list[list[float]]]]:
    """For each contender the seconds of each stage, one row for each process."""
    rows = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name in CONTENDERS:
            command = [sys.executable, "-m", "attn_jax.benchmark.first_step", name]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[name].append(json.loads(run.stdout))
    return list(rows.items())


def first_step(name: str) -> list[float]:
    """Seconds of each stage in this process, after a small computation has initialised JAX."""
    jax.jit(jnp.sin)(0.0).block_until_ready()
    start = time.perf_counter()
    traced = jax.jit(gradient_of(CONTENDERS[name])).trace(*arguments())
    after_trace = time.perf_counter()
    lowered = traced.lower()
    after_lower = time.perf_counter()
    lowered.compile()
    moments = start, after_trace, after_lower, time.perf_counter()
    return [after - before for before, after in itertools.pairwise(moments)]


def causal(attention: Callable) -> Callable:
    return lambda query, key, value: attention(query, key, value, is_causal=True)


def gradient_of(attention: Callable) -> Callable:
    function = causal(attention)
    return jax.grad(lambda *operands: jnp.sum(function(*operands)), argnums=(0, 1, 2))


def arguments() -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct((B, T, N, H), jnp.float32),) * 3


def lowered(function: Callable) -> jax.stages.Lowered:
    jax.clear_caches()
    return jax.jit(function).lower(*arguments())


def calls(work: Callable[[], object]) -> Calls:
    """Counts the calls of this library's functions while `work` runs."""
    counts = collections.Counter()

    def count(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_FOLDER):
            counts[code] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return Calls(len(counts), counts.total())


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(first_step(sys.argv[1])))
    else:
        main()
