"""`python -m attn_jax.benchmark.pieces`: what an attention call costs beside its pieces.

The pieces are the two matmuls and the softmax of one tile, each alone in a loop over as many tiles
as the call visits, compiled by the same XLA in the same process. What a call takes beyond their sum
is what the walk over tiles costs; what they take is XLA's own.
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
from attn_jax.benchmark.timing import Patience, alternate

T, N, H = 4096, 8, 64
PATIENCE = Patience(rounds=7, seconds=40.0)
type Function = Callable[[int], object]


def main() -> None:
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    print(f"forward attention, B=1 T=S={T} N={N} H={H}, medians; all pairs are read")
    for dtype in ("float32", "bfloat16"):
        report(dtype, {name: spread.median for name, spread in measured(dtype).items()})


def report(dtype: str, seconds: dict[str, float]) -> None:
    """Prints the seconds of the call and of its pieces, and how they compare."""
    call, *pieces = seconds.values()
    print(f"\n{dtype}, tile {_tile().queries}×{_tile().keys}")
    for name, median in seconds.items():
        print(f"  {name:24}{1e3 * median:9.1f} ms")
    print(f"  {'call over its pieces':24}{call / sum(pieces):9.2f}×", flush=True)


def measured(dtype: str, patience: Patience = PATIENCE, length: int = T) -> dict:
    """The spread of the call, and of each piece alone."""
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
        "weighed values": lambda: _weighed(heads_first[2], tile, tiles),
    }
    return alternate({name: _runner(loop) for name, loop in loops.items()}, patience)


def _tile(length: int = T) -> TileShape:
    platform = jax.default_backend()
    return tile_shape.choose(length, length, N, mask=None, is_wide=False, platform=platform)


def _runner(loop: Callable[[], Array]) -> Function:
    return lambda _: jax.block_until_ready(loop())


def _rows(array: Array, n: Array, size: int) -> Array:
    """The n-th tile of rows, from the first one again after the last."""
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
    """The greatest logit, the exponentials and their sum; these are the next tile's logits."""

    def one(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        logits, maximum, total = carry
        greatest = jnp.maximum(maximum, logits.max(axis=-1))
        weights = jnp.exp(0.125 * logits - greatest[..., None])
        fade = jnp.exp(maximum - greatest)
        return weights, greatest, fade * total + weights.sum(axis=-1)

    rows = jnp.zeros((N, tile.queries), jnp.float32)
    start = jnp.zeros((N, *tile), jnp.float32), rows, rows
    return jax.lax.fori_loop(0, tiles, one, start)[2]


@functools.partial(jax.jit, static_argnames=("tile", "tiles"))
def _weighed(value: Array, tile: TileShape, tiles: int) -> Array:
    weights = jnp.full((N, *tile), 1 / tile.keys, jnp.float32)

    def one(n: Array, total: Array) -> Array:
        return total + matmul("nts,nsv->ntv", weights, _rows(value, n, tile.keys), value.dtype)

    return jax.lax.fori_loop(0, tiles, one, jnp.zeros((N, tile.queries, H), jnp.float32))


if __name__ == "__main__":
    main()
