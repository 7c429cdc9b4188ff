"""Attention as its definition reads, in plain jnp: what every other backend must match.

Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762, with the score, the change to a
logit and the mask left open. It writes the T×S matrix out, so it is for being right, not for being
large.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax import masks, scores
from attn_jax._base import numerics
from attn_jax._base.tables import on_readable_pairs, on_readable_rows
from attn_jax._block_mask import BlockMask
from attn_jax._engine.call import Call, Work


def attend(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """The read itself: weights times values in the query's dtype, and log-sum-exp."""
    value = call.value.astype(call.scale.dtype)
    readable = _readable(call)
    if readable is not None:
        value = _keep(value, jnp.any(readable, axis=0))
    shares, total, logsumexp = numerics.exponentials(_logits(call, readable), readable)
    if call.dropout is not None:
        shares = jnp.where(call.dropout.keeps(), shares / (1 - call.dropout.rate), 0)
    out = jnp.einsum("TS,SV->TV", shares, value) / total
    return out.astype(call.query.dtype), logsumexp[:, 0]


def refuses(call: Call) -> str | None:
    """It takes every call."""
    del call
    return None


def work(call: Call, heads: int) -> Work:
    """Every pair, whatever the mask."""
    del heads
    return Work(jnp.ones((1, 1), bool), pairs=call.query.shape[0] * call.key.shape[0])


def weights(call: Call) -> Float[Array, "T S"]:
    """Weights in the accumulation dtype."""
    readable = _readable(call)
    return numerics.masked_softmax(_logits(call, readable), readable)[0]


def _logits(call: Call, readable: Bool[Array, "T S"] | None) -> Float[Array, "T S"]:
    """Scale, then score_mod where a pair may be read."""
    dtype = call.scale.dtype
    query, key = call.query.astype(dtype), call.key.astype(dtype)
    if call.score is not None:
        score = on_readable_rows(numerics.wide(call.score), query, key, readable)
    else:
        if readable is not None:
            query = _keep(query, jnp.any(readable, axis=1))
            key = _keep(key, jnp.any(readable, axis=0))
        score = scores.dot(query, key)
    logits = call.scale * score
    if call.score_mod is not None and logits.size:
        i, j = call.query_position[:, None], call.key_position[None, :]
        logits = on_readable_pairs(numerics.wide(call.score_mod), logits, i, j, readable)
    return logits


def _readable(call: Call) -> Bool[Array, "T S"] | None:
    """The mask written out, or None where everything may be read."""
    mask = call.mask.mask if isinstance(call.mask, BlockMask) else call.mask
    if mask is None:
        return None
    return masks.evaluate(mask, call.query_position, call.key_position)


def _keep(rows: Float[Array, "L H"], used: Bool[Array, " L"]) -> Float[Array, "L H"]:
    """Puts zeros for rows nobody reads, so that NaN there meets no product, forward or backward."""
    return jnp.where(used[:, None], rows, 0)
