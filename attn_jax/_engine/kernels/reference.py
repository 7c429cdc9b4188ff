"""Attention as its definition reads, in plain jnp: what every kernel must match.

Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762, with the score, the change to a
logit and the mask left open. It writes the T×S matrix out, so it is for being right, not for being
large.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax import masks, scores
from attn_jax._base import numerics
from attn_jax._base.tables import on_readable_pairs, on_readable_rows
from attn_jax._engine.call import Call, Pairs, Read, Work

divided_by = "compiler"


def attend(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """Weights times values in the query's dtype, and log-sum-exp."""
    read, readable = call.read, _readable(call.pairs)
    value = read.value.values.astype(read.scale.dtype)
    if readable is not None:
        value = _keep(value, jnp.any(readable, axis=0))
    shares, total, logsumexp = numerics.exponentials(_logits(read, readable), readable)
    if read.dropout is not None:
        shares = jnp.where(read.dropout.keeps(), shares / (1 - read.dropout.rate), 0)
    out = jnp.einsum("TS,SV->TV", shares, value) / total
    return out.astype(read.query.values.dtype), logsumexp[:, 0]


def refuses(call: Call, platform: str | None) -> str | None:
    """It takes every call, on every platform."""
    del call, platform
    return None


def work(call: Call, heads: int, platform: str) -> Work:
    """Every pair, whatever the mask."""
    del heads, platform
    return Work(jnp.ones((1, 1), bool), pairs=math.prod(call.sizes))


def weights(call: Call) -> Float[Array, "T S"]:
    """Weights in the accumulation dtype."""
    readable = _readable(call.pairs)
    return numerics.masked_softmax(_logits(call.read, readable), readable)[0]


def _logits(read: Read, readable: Bool[Array, "T S"] | None) -> Float[Array, "T S"]:
    """Scale, then score_mod where a pair may be read."""
    dtype = read.scale.dtype
    query, key = read.query.values.astype(dtype), read.key.values.astype(dtype)
    if read.score is not None:
        score = on_readable_rows(numerics.wide(read.score), query, key, readable)
    else:
        if readable is not None:
            query = _keep(query, jnp.any(readable, axis=1))
            key = _keep(key, jnp.any(readable, axis=0))
        score = scores.dot(query, key)
    logits = read.scale * score
    if read.score_mod is not None and logits.size:
        i, j = read.query_position.values[:, None], read.key_position.values[None, :]
        logits = on_readable_pairs(numerics.wide(read.score_mod), logits, i, j, readable)
    return logits


def _readable(pairs: Pairs) -> Bool[Array, "T S"] | None:
    """The mask written out, or None where everything may be read."""
    if pairs.mask is None:
        return None
    return masks.evaluate(pairs.mask, pairs.query_position.values, pairs.key_position.values)


def _keep(rows: Float[Array, "L H"], used: Bool[Array, " L"]) -> Float[Array, "L H"]:
    """Puts zeros for rows nobody reads, so that NaN there meets no product, forward or backward."""
    return jnp.where(used[:, None], rows, 0)
