"""`python -m attn_jax.benchmark.pieces`: the time of an attention call beside that of its pieces.

The pieces are the two matmuls and the softmax of one tile. Each is timed alone, in a loop over as
many tiles as the call visits. The difference between the call and the sum of its pieces is the cost
of the loop over tiles; the pieces' own time is XLA's.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

import attn_jax
from attn_jax._base.grid import TileShape
from attn_jax._engine import tile_shape
from attn_jax._engine.matmul import matmul
from attn_jax.benchmark import machine
from attn_jax.benchmark.timing import Budget, alternate

T, N, H = 4096, 8, 64
BUDGET = Budget(rounds=7, seconds=40.0)
type Function = Callable[[int], object]


def main() -> None:
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    print(f"forward attention without a mask, B=1 T=S={T} N={N} H={H}, medians")
    for dtype in ("float32", "bfloat16"):
        report(dtype, {name: spread.median for name, spread in measured(dtype).items()})


def report(dtype: str, seconds: dict[str, float]) -> None:
    """Prints the times of the call and of its pieces, and the call's over the pieces' sum."""
    call, *pieces = seconds.values()
    print(f"\n{dtype}, tile {_tile().queries}×{_tile().keys}")
    for name, median in seconds.items():
        print(f"  {name:24}{1e3 * median:9.1f} ms")
    print(f"  {'call over its pieces':24}{call / sum(pieces):9.2f}×", flush=True)


def measured(dtype: str, budget: Budget = BUDGET, length: int = T) -> dict:
    """The times of the call and of each piece, by name."""
    arrays = [
        jax.random.normal(rng, (length, N, H), jnp.dtype(dtype))
        for rng in jax.random.split(jax.random.key(0), 3)
    ]
    tile = _tile(length)
    tiles = -(-length // tile.queries) * -(-length // tile.keys)
    call = jax.jit(functools.partial(attn_jax.dot_product_attention, implementation="blockwise"))
    heads_first = [array.swapaxes(0, 1) for array in arrays]
    loops = {
        "call": lambda: call(*arrays),
        "logits": lambda: _logits(*heads_first[:2], tile, tiles),
        "softmax": lambda: _softmax(tile, tiles),
        "weighted values": lambda: _weighted_values(heads_first[2], tile, tiles),
    }
    return alternate({name: _runner(loop) for name, loop in loops.items()}, budget)


def _tile(length: int = T) -> TileShape:
    platform = jax.default_backend()
    return tile_shape.choose(length, length, N, mask=None, is_wide=False, platform=platform)


def _runner(loop: Callable[[], Array]) -> Function:
    return lambda _: jax.block_until_ready(loop())


def _rows(array: Array, n: Array, size: int) -> Array:
    """The n-th tile of `size` rows; after the last tile the first one follows."""
    first = n % (array.shape[1] // size) * size
    return jax.lax.dynamic_slice_in_dim(array, first, size, axis=1)


@functools.partial(jax.jit, static_argnames=("tile", "tiles"))
def _logits(query: Array, key: Array, tile: TileShape, tiles: int) -> Array:
    def one(n: Array, _: Array) -> Array:
        rows = _rows(query, n, tile.queries), _rows(key, n, tile.keys)
        return matmul("nth,nsh->nts", *rows, query.dtype)

    return jax.lax.fori_loop(0, tiles, one, jnp.zeros((N, *tile), jnp.float32))


@functools.partial(jax.jit, static_argnames=("tile", "tiles"))
def _softmax(tile: TileShape, tiles: int) -> Array:
    """The maximum, the exponentials and their sum; the exponentials are the next tile's logits."""

    def one(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        logits, maximum, total = carry
        new_maximum = jnp.maximum(maximum, logits.max(axis=-1))
        weights = jnp.exp(0.125 * logits - new_maximum[..., None])
        rescale = jnp.exp(maximum - new_maximum)
        return weights, new_maximum, rescale * total + weights.sum(axis=-1)

    rows = jnp.zeros((N, tile.queries), jnp.float32)
    start = jnp.zeros((N, *tile), jnp.float32), rows, rows
    return jax.lax.fori_loop(0, tiles, one, start)[2]


@functools.partial(jax.jit, static_argnames=("tile", "tiles"))
def _weighted_values(value: Array, tile: TileShape, tiles: int) -> Array:
    weights = jnp.full((N, *tile), 1 / tile.keys, jnp.float32)

    def one(n: Array, total: Array) -> Array:
        return total + matmul("nts,nsv->ntv", weights, _rows(value, n, tile.keys), value.dtype)

    return jax.lax.fori_loop(0, tiles, one, jnp.zeros((N, tile.queries, H), jnp.float32))


if __name__ == "__main__":
    main()
