"""Attention as its definition reads, in plain jnp: what every other backend must match.

Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762, with the score, the change to a
logit and the mask left open. It writes the T×S matrix out, so it is for being right, not for being
large.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attn_jax import _numerics, masks
from attn_jax.score_mods import ScoreMod
from attn_jax.scores import Score


def weights(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    *,
    score: Score,
    mask: Bool[Array, "#T S"] | masks.MaskFunction | None,
    score_mod: ScoreMod | None,
    scale: Float[Array, ""],
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
) -> tuple[Float[Array, "T S"], Float[Array, " T"]]:
    """Weights and log-sum-exp in the accumulation dtype: scale, score_mod, mask, softmax."""
    dtype = _numerics.accumulation_dtype(query.dtype)
    query, key = query.astype(dtype), key.astype(dtype)
    readable = readable_pairs(mask, query_position, key_position)
    if readable is not None:
        query = _keep(query, jnp.any(readable, axis=1))
        key = _keep(key, jnp.any(readable, axis=0))
    logits = scale * score(query, key).astype(dtype)
    if score_mod is not None:
        over_keys = jax.vmap(score_mod, in_axes=(0, None, 0))
        logits = jax.vmap(over_keys, in_axes=(0, 0, None))(logits, query_position, key_position)
    return _numerics.masked_softmax(logits, readable)


def attend(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    mask: Bool[Array, "#T S"] | masks.MaskFunction | None,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
    **options,
) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """The read itself: weights times values in the query's dtype, and log-sum-exp."""
    out_dtype = query.dtype
    value = value.astype(_numerics.accumulation_dtype(out_dtype))
    readable = readable_pairs(mask, query_position, key_position)
    if readable is not None:
        value = _keep(value, jnp.any(readable, axis=0))
    normalised, logsumexp = weights(
        query,
        key,
        mask=readable,
        query_position=query_position,
        key_position=key_position,
        **options,
    )
    out = jnp.einsum("TS,SV->TV", normalised, value)
    return out.astype(out_dtype), logsumexp


def readable_pairs(
    mask: Bool[Array, "#T S"] | masks.MaskFunction | None,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
) -> Bool[Array, "T S"] | None:
    """The mask written out, or None where everything may be read."""
    if mask is None:
        return None
    if callable(mask):
        return masks.evaluate(mask, query_position, key_position)
    return jnp.broadcast_to(mask, (query_position.size, key_position.size))


def _keep(rows: Float[Array, "L H"], used: Bool[Array, " L"]) -> Float[Array, "L H"]:
    """Puts zeros for rows nobody reads, so that NaN there meets no product, forward or backward."""
    return jnp.where(used[:, None], rows, 0)
