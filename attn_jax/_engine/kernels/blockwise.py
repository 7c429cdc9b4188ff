"""Attention in linear memory, tile by tile, on anything that XLA compiles for.

Dao et al., "FlashAttention" (2022), https://arxiv.org/abs/2205.14135, with any score, score mod and
mask, as in Dong et al., "Flex Attention" (2024), https://arxiv.org/abs/2412.05496. Empty tiles cost
nothing.
"""

import jax.numpy as jnp

from attn_jax._base.axes import Layout
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine import online_softmax, tile_shape
from attn_jax._engine.call import Call, Operands, Pairs, Work
from attn_jax._engine.fold import kinds_of_tiles
from attn_jax._engine.online_softmax import Residuals

divided_by = "compiler"


def refuses(call: Call, platform: str | None) -> str | None:
    """None: every call, on every platform."""
    del call, platform
    return None


def forward(call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
    """Output and log-sum-exp, both in the accumulation dtype."""
    return online_softmax.forward(call, layout, tile)


def backward(
    pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
) -> Operands:
    """The gradients that are wanted, and None for the others."""
    return online_softmax.backward(pairs, residuals, layout, wanted)


def work(call: Call, heads: int, platform: str) -> Work:
    """The tiles that are not empty; one at the edge counts as a whole tile."""
    (T, S), pairs, operands = call.sizes, call.pairs, call.operands
    if T == 0 or S == 0:
        return Work(jnp.ones((0, 0), bool), pairs_per_tile=0)
    tile = pairs.tile or tile_shape.choose(
        T,
        S,
        heads,
        mask=pairs.mask,
        is_wide=pairs.is_wide,
        platform=platform,
        operands=operands,
    )
    if tile == (T, S):
        return Work(jnp.ones((1, 1), bool), pairs_per_tile=T * S)
    return Work(kinds_of_tiles(pairs, tile).some, pairs_per_tile=tile.queries * tile.keys)
