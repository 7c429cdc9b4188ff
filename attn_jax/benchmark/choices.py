"""`python -m attn_jax.benchmark.choices`: the engine's design choices beside their alternatives.

The time of each alternative over that of the choice, timed in turns in one process (docs/adr/0008).
"""

import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

import attn_jax
from attn_jax._engine.matmul import matmul
from attn_jax.benchmark import machine
from attn_jax.benchmark.timing import Budget, alternate

TILES = ((64, 128), (128, 128), (128, 256), (256, 128), (256, 256), (512, 256), (512, 512))
HEADS = {"1 head": (1, 4096, 1), "8 heads": (1, 4096, 8), "96 heads": (8, 512, 12)}
WINDOW = attn_jax.masks.sliding_window(512, 0)
type Function = Callable[..., object]


def main() -> None:
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    for name, (B, T, N) in HEADS.items():
        for dtype in ("float32", "bfloat16"):
            report(
                f"tiles, {name}, {dtype}, causal", _tiles(B, T, N, dtype, attn_jax.masks.causal())
            )
    report("tiles, 8 heads, float32, window 512 at 8k", _tiles(1, 8192, 8, "float32", WINDOW))
    for T in (1, 64):
        report(f"keys a tile, {T} queries on 64k keys, 8 heads, float32", _few_queries(T))
    for dtype in ("float32", "bfloat16"):
        report(f"heads together or one after another, {dtype}", _heads(dtype))
        report(f"a matmul over the first axes of both, {dtype}", _matmuls(dtype))
    report("exponentials of a tile", _exponentials())


def report(title: str, runners: dict[str, Function]) -> None:
    """Times the runners in turns; prints each one's median, and its ratio to the first one's."""
    spreads = alternate(runners, Budget(rounds=7, seconds=30))
    first = next(iter(spreads.values())).median
    print(f"\n{title}")
    for name, spread in spreads.items():
        print(
            f"  {name:28} {1e3 * spread.median:9.3f} ms  {spread.median / first:5.2f}×", flush=True
        )


def _tiles(B: int, T: int, N: int, dtype: str, mask: attn_jax.masks.Mask) -> dict[str, Function]:
    """Output and gradients with the tile shape that the library chooses, and with others."""
    arrays = _draw(dtype, *[(B, T, N, 64)] * 4)
    shapes = [shape for shape in TILES if max(shape) <= T]
    masks = {f"{t}×{s}": attn_jax.block_mask(mask, T, T, tile=(t, s)) for t, s in shapes}
    return {name: _with_gradients(arrays, mask=m) for name, m in {"chosen": mask, **masks}.items()}


def _few_queries(T: int) -> dict[str, Function]:
    """T queries on 64k keys, with the library's choice and with other numbers of keys a tile."""
    query, *rest = _draw("float32", (1, T, 8, 64), *[(1, 65536, 8, 64)] * 2)
    all_keys, position = attn_jax.masks.key_padding(65536), jnp.full(T, 65536)

    def with_tile(keys: int) -> Function:
        mask = attn_jax.block_mask(
            all_keys, T, 65536, query_position=position, tile=(min(T, 256), keys)
        )
        return _forward((query, *rest), mask=mask)

    chosen = _forward((query, *rest), implementation="blockwise")
    return {"chosen": chosen} | {f"{keys}": with_tile(keys) for keys in (512, 2048, 8192, 65536)}


def _forward(arrays: tuple[Array, ...], **options) -> Function:
    attention = jax.jit(functools.partial(attn_jax.dot_product_attention, **options))
    return lambda _: jax.block_until_ready(attention(*arrays))


def _with_gradients(arrays: list[Array], **options) -> Function:
    @jax.jit
    def output_and_gradients(query, key, value, cotangent):
        attention = functools.partial(attn_jax.dot_product_attention, **options)
        out, vjp = jax.vjp(attention, query, key, value)
        return out, *vjp(cotangent)

    return lambda _: jax.block_until_ready(output_and_gradients(*arrays))


def _heads(dtype: str) -> dict[str, Function]:
    arrays = _draw(dtype, *[(8, 2048, 64)] * 3)
    one_head = functools.partial(attn_jax.attend, implementation="blockwise")
    together = jax.jit(jax.vmap(one_head))
    in_turn = jax.jit(lambda *arrays: jax.lax.map(lambda head: one_head(*head), arrays))
    return {
        "together": lambda _: jax.block_until_ready(together(*arrays)),
        "one after another": lambda _: jax.block_until_ready(in_turn(*arrays)),
    }


def _matmuls(dtype: str) -> dict[str, Function]:
    """Σ_t weights[t, s] rows[t, v] for 8 heads, fifty times."""
    weights, rows = _draw(dtype, (8, 256, 256), (8, 256, 64))
    transposing = jax.vmap(lambda a, b: matmul("ts,tv->sv", a, b, dtype))
    einsum = functools.partial(jnp.einsum, "nts,ntv->nsv", preferred_element_type=jnp.float32)

    def repeat(product: Function) -> Function:
        def step(_, total):
            # Each step depends on the one before, so XLA cannot move the matmul out of the loop.
            zero = (0 * total[0, 0, 0]).astype(weights.dtype)
            return total + product(weights + zero, rows)

        start = jnp.zeros((8, 256, 64), jnp.float32)
        loop = jax.jit(lambda: jax.lax.fori_loop(0, 50, step, start))
        return lambda _: loop().block_until_ready()

    return {"smaller operand transposed": repeat(transposing), "plain einsum": repeat(einsum)}


def _exponentials() -> dict[str, Function]:
    (logits,) = _draw("float32", (8, 256, 256))
    exp, exp2 = jax.jit(jnp.exp), jax.jit(lambda x: jnp.exp2(1.44269504 * x))
    return {
        "exp": lambda _: exp(logits).block_until_ready(),
        "exp2": lambda _: exp2(logits).block_until_ready(),
    }


def _draw(dtype: str, *shapes: tuple[int, ...]) -> list[Array]:
    rngs = jax.random.split(jax.random.key(0), len(shapes))
    return [
        jax.random.normal(rng, shape, jnp.dtype(dtype))
        for rng, shape in zip(rngs, shapes, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
