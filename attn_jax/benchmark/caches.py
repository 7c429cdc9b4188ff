"""`python -m attn_jax.benchmark.caches`: memory, rounding error and step time of each cache.

The numbers are those of docs/caches.md. Memory is computed from shapes; nothing is allocated.
"""

import functools
import math
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp

import attn_jax
from attn_jax import caches
from attn_jax.benchmark import machine
from attn_jax.benchmark.timing import Budget, alternate

MODELS = {"gpt2": (12, 12, 64), "llama-8b": (32, 8, 128)}  # layers, K, H
B, CAPACITY, WINDOW, CHUNK, PAGES = 8, 32768, 4095, 1, 4096
STEPS = 16


def main() -> None:
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    print(
        f"\nmemory of all layers, B={B}, capacity {CAPACITY}, window {WINDOW}, {PAGES} pages of 16"
    )
    for model, (layers, K, H) in MODELS.items():
        for kind, make in makers(B, CAPACITY, WINDOW, K, H, PAGES).items():
            sizes = (layers * gibibytes(functools.partial(make, **d)) for d in DTYPES.values())
            print(f"  {model:9} {kind:11}", *(f"{gib:8.2f} GiB" for gib in sizes))
    print("\nrounding error of int8, H=128, normal keys and values")
    for name, error in errors().items():
        print(f"  {name:52} {error:.2e}")
    print("\none decode step of one sequence, N=K=12, H=64, float32: append, attend to S slots")
    for S in (1024, 4096, 16384):
        for name, seconds in step_times(S).items():
            print(f"  S={S:<6} {name:24} {1e6 * seconds:10.0f} µs", flush=True)


DTYPES = {
    "float32": {"dtype": jnp.float32},
    "bfloat16": {"dtype": jnp.bfloat16},
    "int8": {"int8": True},
}


def makers(
    B: int, capacity: int, window: int, K: int, H: int, pages: int | None = None
) -> dict[str, Callable[..., caches.Cache]]:
    """For each kind of cache a function that makes an empty one; it takes `dtype` or `int8`."""
    return {
        "contiguous": functools.partial(caches.contiguous, B, capacity, K, H),
        "sliding": functools.partial(caches.sliding, B, window, K, H, chunk=CHUNK),
        "paged": functools.partial(caches.paged, B, capacity, K, H, pages=pages),
    }


def gibibytes(make: Callable[[], caches.Cache]) -> float:
    """The size of a cache in GiB, from the shapes of its arrays."""
    leaves = jax.tree.leaves(jax.eval_shape(make))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves) / 2**30


def errors(T: int = 1024, K: int = 4, H: int = 128) -> dict[str, float]:
    """Rounding errors of an int8 cache: of one entry, of all entries, and of attention's output."""
    query, key, value = jax.random.normal(jax.random.key(0), (3, 1, T, K, H))
    exact, rounded = (
        caches.contiguous(1, T, K, H, int8=int8).append(key, value)[1] for int8 in (False, True)
    )
    off = jnp.abs(rounded.key - key) / jnp.max(jnp.abs(key), axis=-1, keepdims=True)
    outputs = [attn_jax.cached_attention(query, held) for held in (exact, rounded)]

    def relative(array, other):
        return float(jnp.linalg.norm(array - other) / jnp.linalg.norm(other))

    return {
        "largest of an entry, over the largest of its vector": float(off.max()),
        "root mean square of all entries, relative": relative(rounded.key, key),
        "root mean square of attention's output, relative": relative(outputs[1], outputs[0]),
    }


def step_times(S: int, K: int = 12, H: int = 64) -> dict[str, float]:
    """Seconds a decode step for each cache; the caches take turns."""
    runners = {}
    for kind, make in makers(1, S, S - 1, K, H).items():
        for int8 in (False, True):
            name = f"{kind}, int8" if int8 else kind
            runners[name] = _steps(functools.partial(make, int8=int8), S, K, H)
    plain = functools.partial(caches.contiguous, 1, S, K, H)
    for splits in (2, 4):
        runners[f"contiguous, {splits} splits"] = _steps(plain, S, K, H, splits)
    spreads = alternate(runners, Budget(rounds=7, seconds=60))
    return {name: spread.median / STEPS for name, spread in spreads.items()}


def _steps(
    make: Callable[[], caches.Cache], S: int, K: int, H: int, splits: int = 1
) -> Callable[[int], object]:
    """A runner of `STEPS` decode steps that fill a cache's last slots, and a rewind after them."""
    draw = functools.partial(jax.random.normal, jax.random.key(0))
    tokens = draw((3, STEPS, 1, 1, K, H))

    def step(cache, token):
        cache, held = cache.append(*token[1:])
        return cache, attn_jax.cached_attention(token[0], held, splits=splits)

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(cache, tokens):
        cache, outs = jax.lax.scan(step, cache, tuple(tokens))
        return cache.rewind(cache.lengths - STEPS), outs

    fill = jax.jit(lambda cache, rows: cache.append(rows, rows)[0], donate_argnums=0)
    state = [fill(make(), draw((1, S - STEPS, K, H)))]

    def run(_: int) -> object:
        state[0], outs = jax.block_until_ready(loop(state[0], tokens))
        return outs

    return run


if __name__ == "__main__":
    sys.exit(main())
