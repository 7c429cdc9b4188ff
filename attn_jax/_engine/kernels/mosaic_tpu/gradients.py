"""The backward pass: sums over tiles, row by row, column by column, or tile by tile.

Gradients by query and of whole arrays are added along the rows of tiles, gradients by key along the
columns, and the gradient of an array by pair over the heads that share it. So each block of a
result is complete before the next one begins, and nothing is added in memory. Where heads share an
array, as query heads share a key, they are a group, and the kernel adds over its members too.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, DTypeLike

from attn_jax._base.grid import TileShape
from attn_jax._engine.kernels.mosaic_tpu import tile
from attn_jax._engine.kernels.mosaic_tpu.arrays import Prepared
from attn_jax._engine.kernels.mosaic_tpu.folding import summed_to
from attn_jax._engine.kernels.mosaic_tpu.gradient_tile import TileGradient, tile_gradient
from attn_jax._engine.kernels.mosaic_tpu.launch import Kind, Launch, Output, Step, launch
from attn_jax._engine.kernels.mosaic_tpu.tile import Gradient, Inputs, Program
from attn_jax._engine.kernels.mosaic_tpu.visits import (
    FIRST,
    FULL,
    LAST,
    PARTIAL,
    Order,
    Visit,
    visits,
)

_ORDER: dict[Kind, Order] = {
    "query rows": "row",
    "query": "row",
    "total": "row",
    "distance": "row",
    "key rows": "column",
    "key": "column",
    "pair": "tile",
}


class Sum(NamedTuple):
    """A gradient: what each tile adds to it, and what it looks like for all heads.

    A leading axis of size 1 in `leading` is summed over. `share` returns what a tile adds, with
    keys on the first axis, except for rows.
    """

    kind: Kind
    shape: tuple[int, int]
    dtype: DTypeLike
    leading: tuple[int, ...]
    share: Callable[[Program, TileGradient], Array]
    needs: str | None = None  # "scale" or "score_mod"


def gradients(
    prepared: Prepared, gradient: Gradient, how: Launch, sums: dict[Any, Sum]
) -> dict[Any, Array]:
    """The gradients, each with the leading axes that it asks for."""
    program, inputs, kinds = prepared[:3]
    found: dict[Any, Array] = {}
    for group in _launches(sums):
        own = {name: sums[name] for name in group}
        order = _ORDER[sums[group[0]].kind]
        grouped = tuple(all(s.leading[n] == 1 for s in own.values()) for n in range(len(how.sizes)))
        lead = tuple(1 if g else n for n, g in zip(how.sizes, grouped, strict=True))
        outputs = [_output(one, lead) for one in own.values()]
        results = launch(
            f"gradients_by_{order}",
            functools.partial(_gradients, program, (inputs, gradient), tuple(own.values())),
            how,
            grouped,
            visits(kinds, order, how.sizes, grouped),
            (inputs, gradient),
            outputs,
            _accumulators(program.tile, own.values()),
            keep=order == "tile",
        )
        for (name, one), result in zip(own.items(), results, strict=True):
            found[name] = summed_to(result, one.leading).astype(one.dtype)
    return found


def _launches(sums: dict[Any, Sum]) -> list[list[Any]]:
    """The names of the gradients that are computed together; each one by pair is alone."""
    by_order = [
        [name for name, one in sums.items() if _ORDER[one.kind] == order]
        for order in ("row", "column")
    ]
    alone = [[name] for name, one in sums.items() if _ORDER[one.kind] == "tile"]
    return [names for names in (*by_order, *alone) if names]


def _output(one: Sum, lead: tuple[int, ...]) -> Output:
    """In float32 where it is still to be summed over heads."""
    is_summed = any(own == 1 and held != 1 for own, held in zip(one.leading, lead, strict=True))
    return Output(one.kind, one.shape, jnp.float32 if is_summed else one.dtype)


def _accumulators(shape: TileShape, sums: Any) -> list[Any]:
    t, s = shape
    shapes = {
        "query rows": lambda one: (t, one.shape[1]),
        "key rows": lambda one: (s, one.shape[1]),
        "query": lambda one: (1, t),
        "key": lambda one: (s, 1),
        "pair": lambda one: (s, t),
    }
    return [pltpu.VMEM(shapes[one.kind](one), jnp.float32) for one in sums if one.kind in shapes]


def _gradients(
    program: Program,
    given: tuple[Inputs, Gradient],
    sums: tuple[Sum, ...],
    step: Step,
    refs: tuple[Inputs, Gradient],
    outputs: Any,
    scratch: Any,
) -> None:
    visit, accumulators = step.visit, iter(scratch)
    in_blocks, whole = [], []
    for one, out in zip(sums, outputs, strict=True):
        if one.kind in ("total", "distance"):
            whole.append((one, out))
        else:
            in_blocks.append((one, out, next(accumulators)))

    @pl.when(visit.has(FIRST))
    def _():
        for _, _, total in in_blocks:
            total[...] = jnp.zeros_like(total)

    @pl.when(step.starts_head)
    def _():
        for _, out in whole:
            out[...] = jnp.zeros_like(out)

    def add(*, is_partial: bool) -> None:
        needs = {one.needs for one in sums}
        moved = _of_tile(program, given, refs, visit, needs, is_partial=is_partial)
        for one, _, total in in_blocks:
            total[...] += one.share(program, moved)
        for one, out in whole:
            _add_whole(program, visit, one, out, one.share(program, moved))

    pl.when(visit.has(FULL))(functools.partial(add, is_partial=False))
    pl.when(visit.has(PARTIAL))(functools.partial(add, is_partial=True))

    @pl.when(visit.has(LAST))
    def _():
        for one, out, total in in_blocks:
            out[...] = _as_block(one.kind, total[...]).astype(out.dtype)


def _of_tile(
    program: Program,
    given: tuple[Inputs, Gradient],
    refs: tuple[Inputs, Gradient],
    visit: Visit,
    needs: set[str | None],
    *,
    is_partial: bool,
) -> TileGradient:
    """The gradient of one tile, from the blocks that belong to its visit."""
    inputs: Inputs = tile.loaded(program, given[0], refs[0], visit)
    gradient: Gradient = tile.loaded(program, given[1], refs[1], visit)
    here = tile.look(program, inputs, visit, is_partial=is_partial)
    of = {f"of_{name}": name in needs for name in ("scale", "score_mod")}
    return tile_gradient(program, here, gradient, **of)


def _add_whole(program: Program, visit: Visit, one: Sum, out: Any, share: Array) -> None:
    """Adds to a result that stays in vector memory for all tiles of a head."""
    if one.kind == "total":
        out[...] += share
        return
    t, s = program.tile
    here = pl.ds(tile.first_distance(program, visit), s + t)
    out[:, here] += tile.sum_by_distance(share)


def _as_block(kind: Kind, total: Array) -> Array:
    """A sum over tiles as a block of the result."""
    if kind == "pair":
        return jnp.transpose(total)
    if kind == "key":
        return jnp.transpose(jnp.broadcast_to(total, (total.shape[0], 128)))[:1]
    return total
