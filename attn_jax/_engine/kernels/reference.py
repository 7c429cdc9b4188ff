"""The definition of attention in plain jnp, which every kernel must match.

Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762, with any score, score mod and mask.
It writes the T×S logits out, so it serves small calls.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax import masks, scores
from attn_jax._base import numerics
from attn_jax._base.tables import on_unmasked_pairs, on_unmasked_rows
from attn_jax._engine.call import Call, Operands, Pairs, Work

divided_by = "compiler"


def attend(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """Weights times values in the query's dtype, and log-sum-exp."""
    operands, unmasked = call.operands, _unmasked(call.pairs)
    value = operands.value.values.astype(operands.scale.dtype)
    if unmasked is not None:
        value = _keep(value, jnp.any(unmasked, axis=0))
    shares, total, logsumexp = numerics.exponentials(_logits(operands, unmasked), unmasked)
    if operands.dropout is not None:
        shares = jnp.where(operands.dropout.keeps(), shares / (1 - operands.dropout.rate), 0)
    out = jnp.einsum("TS,SV->TV", shares, value) / total
    return out.astype(operands.query.values.dtype), logsumexp[:, 0]


def refuses(call: Call, platform: str | None) -> str | None:
    """None: every call, on every platform."""
    del call, platform
    return None


def work(call: Call, heads: int, platform: str) -> Work:
    """Every pair, whatever the mask."""
    del heads, platform
    return Work(jnp.ones((1, 1), bool), pairs_per_tile=math.prod(call.sizes))


def weights(call: Call) -> Float[Array, "T S"]:
    """Weights in the accumulation dtype."""
    unmasked = _unmasked(call.pairs)
    return numerics.masked_softmax(_logits(call.operands, unmasked), unmasked)[0]


def _logits(operands: Operands, unmasked: Bool[Array, "T S"] | None) -> Float[Array, "T S"]:
    """scale * score, then score_mod at unmasked pairs."""
    dtype = operands.scale.dtype
    query, key = operands.query.values.astype(dtype), operands.key.values.astype(dtype)
    if operands.score is not None:
        score = on_unmasked_rows(numerics.wide(operands.score), query, key, unmasked)
    else:
        if unmasked is not None:
            query = _keep(query, jnp.any(unmasked, axis=1))
            key = _keep(key, jnp.any(unmasked, axis=0))
        score = scores.dot(query, key)
    logits = operands.scale * score
    if operands.score_mod is not None and logits.size:
        i, j = operands.query_position.values[:, None], operands.key_position.values[None, :]
        logits = on_unmasked_pairs(numerics.wide(operands.score_mod), logits, i, j, unmasked)
    return logits


def _unmasked(pairs: Pairs) -> Bool[Array, "T S"] | None:
    """The mask written out, or None where there is none."""
    if pairs.mask is None:
        return None
    return masks.evaluate(pairs.mask, pairs.query_position.values, pairs.key_position.values)


def _keep(rows: Float[Array, "L H"], used: Bool[Array, " L"]) -> Float[Array, "L H"]:
    """Zeros for rows that are fully masked, so that NaN there enters no matmul."""
    return jnp.where(used[:, None], rows, 0)
