"""Attention on one tile: its logits, and its weighted sums."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax._base.numerics import across, put
from attn_jax._base.tables import Table, on_unmasked_pairs, on_unmasked_rows
from attn_jax._engine.call import Operands
from attn_jax._engine.matmul import matmul

type Unmasked = Bool[Array, "t s"] | None


def logits(operands: Operands, unmasked: Unmasked) -> Float[Array, "t s"]:
    """scale * score, then score_mod, then −inf at masked pairs."""
    query, key = operands.query.values, operands.key.values
    if operands.score is None:
        query, key = _keep(query, unmasked, 1), _keep(key, unmasked, 0)
        scores = matmul("th,sh->ts", query, key, operands.product_dtype, operands.precision)
    else:
        query, key = (rows.astype(operands.scale.dtype) for rows in (query, key))
        scores = on_unmasked_rows(operands.score, query, key, unmasked)
    logit = jax.lax.mul(across(operands.scale, scores), scores)
    if operands.score_mod is not None:
        i, j = operands.query_position.values[:, None], operands.key_position.values[None, :]
        logit = on_unmasked_pairs(operands.score_mod, logit, i, j, unmasked)
    return logit if unmasked is None else put(logit, jax.lax.bitwise_not(unmasked), -jnp.inf)


def weighted_values(
    weights: Float[Array, "t s"], operands: Operands, unmasked: Unmasked
) -> Float[Array, "t V"]:
    """Σ weights value over the keys of the tile, after dropout."""
    if operands.dropout is not None:
        weights = jnp.where(operands.dropout.keeps(), weights / (1 - operands.dropout.rate), 0)
    value = _keep(operands.value.values, unmasked, 0)
    return matmul("ts,sv->tv", weights, value, operands.product_dtype, operands.precision)


def weighted_sums(primals: tuple[Operands, Table], unmasked: Unmasked) -> tuple[Table, Table]:
    """Σ exp(logit - logsumexp) and Σ exp(logit - logsumexp) value, for each query of the tile.

    For a fully masked query both are 0 and have no derivative, whatever its cotangent is.
    """
    operands, logsumexp = primals
    nothing = jax.lax.eq(logsumexp.values, jax.lax.full_like(logsumexp.values, -jnp.inf))
    shift = put(logsumexp.values, nothing, 0)
    logit = logits(operands, unmasked)
    weights = jax.lax.exp(jax.lax.sub(logit, across(shift, logit)))
    total = put(jax.lax.reduce_sum(weights, (1,)), nothing, 0)
    mean = put(weighted_values(weights, operands, unmasked), nothing, 0)
    return Table(total, "query"), Table(mean, "query")


def _keep(rows: Float[Array, "L H"], unmasked: Unmasked, others: int) -> Float[Array, "L H"]:
    """Zeros for rows that are masked in the whole tile, so that NaN there enters no matmul."""
    if unmasked is None:
        return rows
    return put(rows, jax.lax.bitwise_not(jax.lax.reduce_or(unmasked, (others,))), 0)
