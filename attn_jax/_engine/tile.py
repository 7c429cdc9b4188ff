"""One read on one tile: its logits, and the sums of what they weigh."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax._base.numerics import across, put
from attn_jax._base.tables import Table, on_readable_pairs, on_readable_rows
from attn_jax._engine.call import Read
from attn_jax._engine.contract import contract

type Readable = Bool[Array, "t s"] | None


def logits(read: Read, readable: Readable) -> Float[Array, "t s"]:
    """scale * score, then score_mod, then −inf where nothing may be read."""
    query, key = read.query.values, read.key.values
    if read.score is None:
        query, key = _keep(query, readable, 1), _keep(key, readable, 0)
        scores = contract("th,sh->ts", query, key, read.product_dtype, read.precision)
    else:
        query, key = (rows.astype(read.scale.dtype) for rows in (query, key))
        scores = on_readable_rows(read.score, query, key, readable)
    changed = jax.lax.mul(across(read.scale, scores), scores)
    if read.score_mod is not None:
        i, j = read.query_position.values[:, None], read.key_position.values[None, :]
        changed = on_readable_pairs(read.score_mod, changed, i, j, readable)
    return changed if readable is None else put(changed, jax.lax.bitwise_not(readable), -jnp.inf)


def weighed_values(
    weights: Float[Array, "t s"], read: Read, readable: Readable
) -> Float[Array, "t V"]:
    """Σ weights value over the keys of the tile, with weights dropped where the call says so."""
    if read.dropout is not None:
        weights = jnp.where(read.dropout.keeps(), weights / (1 - read.dropout.rate), 0)
    value = _keep(read.value.values, readable, 0)
    return contract("ts,sv->tv", weights, value, read.product_dtype, read.precision)


def weigh(operands: tuple[Read, Table], readable: Readable) -> tuple[Table, Table]:
    """Σ exp(logit - logsumexp) and Σ exp(logit - logsumexp) value, for each query of the tile.

    What a query that reads nothing has there is 0 and has no derivative, whatever comes back to it.
    """
    read, logsumexp = operands
    nothing = jax.lax.eq(logsumexp.values, jax.lax.full_like(logsumexp.values, -jnp.inf))
    shift = put(logsumexp.values, nothing, 0)
    logit = logits(read, readable)
    weights = jax.lax.exp(jax.lax.sub(logit, across(shift, logit)))
    total = put(jax.lax.reduce_sum(weights, (1,)), nothing, 0)
    mean = put(weighed_values(weights, read, readable), nothing, 0)
    return Table(total, "query"), Table(mean, "query")


def _keep(rows: Float[Array, "L H"], readable: Readable, others: int) -> Float[Array, "L H"]:
    """Puts zeros for rows that nothing in the tile reads: NaN there must meet no product."""
    if readable is None:
        return rows
    return put(rows, jax.lax.bitwise_not(jax.lax.reduce_or(readable, (others,))), 0)
