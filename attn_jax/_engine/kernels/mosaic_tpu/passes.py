"""The forward and the backward pass of a call: its arrays are prepared, then kernels run."""

from typing import Any

from attn_jax._base.axes import Layout, unmapped
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine import tpu_tiles
from attn_jax._engine.call import Call, Operands, Pairs, Work
from attn_jax._engine.fold import kinds_of_tiles
from attn_jax._engine.kernels.mosaic_tpu import arrays, groups, results
from attn_jax._engine.kernels.mosaic_tpu import forward as online_softmax
from attn_jax._engine.kernels.mosaic_tpu.arrays import Prepared
from attn_jax._engine.kernels.mosaic_tpu.folding import unfolded
from attn_jax._engine.kernels.mosaic_tpu.gradients import gradients
from attn_jax._engine.kernels.mosaic_tpu.launch import Launch
from attn_jax._engine.online_softmax import Residuals

# The compiler writes out the cipher's hundred operations for all pairs of a tile.
_SIDE_WITH_DROPOUT = 256
# It writes out the turns of a vector by distance too: ten for a side of 1024.
_SIDE_BY_DISTANCE = 512


def forward(call: Call, layout: Layout, interpret: Any) -> tuple[Table, Table]:
    """Output and log-sum-exp, both in the accumulation dtype."""
    own = groups.merged(call, layout.inputs, layout.sizes)
    prepared, how = _prepared(own.call, own.axes, own.sizes, interpret)
    out, logsumexp = online_softmax.forward(prepared, how, call.operands.scale.dtype)
    (T, _), (out_axes, row_axes) = prepared.program.sizes, layout.outputs
    out = own.separated(out[..., :T, :], layout.sizes)
    logsumexp = own.separated(logsumexp[..., 0, :T, None], layout.sizes)[..., 0]
    return (
        Table(unfolded(out, out_axes.values), "query"),
        Table(unfolded(logsumexp, row_axes.values), "query"),
    )


def backward(
    pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...], interpret: Any
) -> Operands:
    """The gradients that are wanted, and None for the others."""
    (pair_axes, axes), to = layout.inputs, layout.outputs
    operands, own = results.spread(residuals.operands, axes.operands, to, layout.sizes)
    call = Call(pairs, operands)
    prepared, how = _prepared(call, (pair_axes, own), layout.sizes, interpret)
    gradient = arrays.cotangents(prepared.program, residuals, axes)
    found = gradients(prepared, gradient, how, results.sums(prepared, operands, to, how.sizes))
    return results.gradients_of(prepared, operands, (own, to), found, wanted)


def work(call: Call) -> Work:
    """The tiles that are not empty; one at the edge counts as a whole tile."""
    axes = unmapped(call.pairs), unmapped(call.operands)
    tile = _tile(call, axes, arrays.rules_of(call, axes))
    some, every = kinds_of_tiles(call.pairs, tile)
    pairs = tile.queries * tile.keys
    return Work(some, pairs, each_head_alone=True, tile=tile, partial=some & ~every)


def _prepared(
    call: Call, axes: Any, sizes: tuple[int, ...], interpret: Any
) -> tuple[Prepared, Launch]:
    splits = arrays.rules_of(call, axes)
    tile = _tile(call, axes, splits)
    limit = tpu_tiles.vmem_limit_bytes(tpu_tiles.present_chip())
    how = Launch(tile, sizes[::-1], interpret, limit)
    return arrays.prepare(call, axes, sizes, splits, tile), how


def _tile(call: Call, axes: tuple[Pairs, Operands], splits: arrays.Splits) -> TileShape:
    """The tile of a block mask, else one that suits the chip."""
    (pairs, operands), (_, own) = call, axes
    if pairs.tile is not None:
        return pairs.tile
    (T, H), (S, V) = (
        at.values.core_shape(table.values.shape)
        for table, at in ((operands.query, own.query), (operands.value, own.value))
    )
    dtype = str(operands.query.values.dtype)
    tile = tpu_tiles.tile_of(
        tpu_tiles.present_chip(), head_dim=H, value_dim=V, dtype=dtype, T=T, S=S
    )
    parts = [part for cut in splits if cut is not None for part in cut.code.parts]
    by_distance = any(part.kind == "distance" for part in parts)
    most = _SIDE_BY_DISTANCE if by_distance else max(tile)
    if operands.dropout is not None:
        most = _SIDE_WITH_DROPOUT
    return TileShape(*(min(side, most) for side in tile))
