"""The predicted time of an attention call by the fused TPU kernel, for `explain`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax import _roofline
from attn_jax._base import tables
from attn_jax._engine import tpu_tiles
from attn_jax._engine.call import Call, Work


def forward_on_chip(call: Call, work: Work) -> _roofline.Work | None:
    """What the chip does for one head in the forward pass; None where the roofline cannot tell."""
    if tpu_tiles.present_chip() not in _roofline.CHIPS or work.tile is None or not _is_known(call):
        return None
    query, value = call.operands.query.values, call.operands.value.values
    rules = call.pairs.mask, call.operands.score_mod
    sizes = *call.sizes, query.shape[1], value.shape[1], query.dtype.itemsize
    visited, partial = (jnp.sum(tiles, dtype="float32") for tiles in (work.needed, work.partial))
    tiles = _roofline.Tiles(visited, partial, work.tile)
    head = _roofline.Call(*sizes, *rules)
    return _roofline.work_of(_roofline.FORWARD, head, tiles, streams=True)


def seconds_of(chip: str | None, heads: _roofline.Work | None) -> float | None:
    """The predicted time of all heads, one after another; `heads` has an entry for each of them."""
    if chip is None or heads is None:
        return None
    total = _roofline.Work(*(float(np.sum(amount)) for amount in heads))
    return _roofline.predict(chip, total).seconds


def _is_known(call: Call) -> bool:
    """Whether the roofline counts all work of the kernel.

    It knows the speed of bfloat16 alone. It counts neither random bits, nor arrays by pair, nor
    that a decoding step reads keys once for a group of heads.
    """
    operands = call.operands
    rules = jax.tree.leaves((call.pairs.mask, operands.score_mod), is_leaf=tables.is_table)
    return (
        operands.query.values.dtype == jnp.bfloat16
        and operands.dropout is None
        and not any(map(_is_by_pair, rules))
        and call.sizes[0] >= tpu_tiles.LANES
    )


def _is_by_pair(node: Any) -> bool:
    return tables.is_table(node) and node.over == "pair"
