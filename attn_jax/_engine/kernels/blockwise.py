"""Attention in linear memory, tile by tile, on anything that XLA compiles for.

Dao et al., "FlashAttention" (2022), https://arxiv.org/abs/2205.14135, with the score, the change to
a logit and the mask left open, as in Dong et al., "Flex Attention" (2024),
https://arxiv.org/abs/2412.05496. Tiles that the mask leaves empty cost nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax._base.grid import Grid, TileShape
from attn_jax._base.tables import Table
from attn_jax._block_mask import BlockMask, kinds, kinds_listed
from attn_jax._engine import tile_op
from attn_jax._engine.call import Call, Work
from attn_jax._engine.fold import Plan
from attn_jax._engine.online_softmax import online_softmax
from attn_jax._engine.tile import Read


def attend(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """Output in the query's dtype, and log-sum-exp."""
    if call.key.shape[0] == 0 or call.query.shape[0] == 0:
        return _nothing(call)
    visited, shape = plan(call)
    out, logsumexp = online_softmax(visited, as_read(call), shape)
    return out.values.astype(call.query.dtype), logsumexp.values


def refuses(call: Call) -> str | None:
    """It takes every call."""
    del call
    return None


def work(call: Call, heads: int) -> Work:
    """The tiles that the mask leaves; one at the edge counts as a whole tile."""
    T, S = call.query.shape[0], call.key.shape[0]
    if T == 0 or S == 0:
        return Work(jnp.ones((0, 0), bool), pairs=0)
    visited, shape = plan(call)
    shape = shape or tile_op.choose(T, S, heads, mask=visited.mask, is_wide=visited.is_wide)
    if shape == (T, S):
        return Work(jnp.ones((1, 1), bool), pairs=T * S)
    grid = Grid.of(call.query_position, call.key_position, shape)
    left = kinds(visited.mask, grid) if visited.lists is None else kinds_listed(visited.lists)
    return Work(left.some, pairs=shape.queries * shape.keys)


def as_read(call: Call) -> Read:
    """The call with all that varies by query, key or pair in tables."""
    return Read(
        query=Table(call.query, "query"),
        key=Table(call.key, "key"),
        value=Table(call.value, "key"),
        query_position=Table(call.query_position, "query"),
        key_position=Table(call.key_position, "key"),
        scale=call.scale,
        score=call.score,
        score_mod=call.score_mod,
        dropout=call.dropout,
        product_dtype=str(call.query.dtype),
        precision=call.precision,
    )


def plan(call: Call) -> tuple[Plan, TileShape | None]:
    """Which tiles to visit, and their shape where the call brings a block mask."""
    where, is_wide = (call.query_position, call.key_position), call.score is not None
    if not isinstance(call.mask, BlockMask):
        return Plan(call.mask, *where, is_wide=is_wide), None
    return Plan(call.mask.mask, *where, call.mask.lists, is_wide), call.mask.tile


def _nothing(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    T, V = call.query.shape[0], call.value.shape[1]
    return jnp.zeros((T, V), call.query.dtype), jnp.full(T, -jnp.inf, call.scale.dtype)
