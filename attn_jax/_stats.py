"""Statistics of attention weights, without writing the weights out."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attn_jax import scores
from attn_jax._attend import MaskLike, Scale
from attn_jax._base import checks, numerics
from attn_jax._base.axes import Layout, unmapped
from attn_jax._base.grid import TileShape
from attn_jax._base.sharding import axes_of, on_automatic_axes
from attn_jax._base.tables import Table
from attn_jax._engine import tile_shape
from attn_jax._engine.call import Call, prepare
from attn_jax._engine.fold import Walk, fold
from attn_jax._engine.tile import logits
from attn_jax._engine.tile_sum import tile_sum
from attn_jax.score_mods import ScoreModFunction


class AttentionStats(NamedTuple):
    """Statistics of attention weights for each query or key; of many heads with axes in front.

    `attention_stats` and `dot_product_attention_stats` return it. A fully masked query has
    log-sum-exp and greatest logit −inf, entropy 0 and weights 0.

    Example:
      >>> x = jnp.zeros((4, 2))
      >>> stats = attn_jax.attention_stats(x, x, mask=attn_jax.masks.causal())
      >>> print(np.exp(stats.entropy).round(2))   # the effective number of keys
      [1. 2. 3. 4.]
    """

    logsumexp: Float[Array, "*B T"]
    max_logit: Float[Array, "*B T"]
    entropy: Float[Array, "*B T"]
    received: Float[Array, "*B S"]
    top_weight: Float[Array, "*B T k"]
    top_key: Int[Array, "*B T k"]


def attention_stats(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreModFunction | None = None,
    scale: Scale | None = None,
    sink: Float[Array, ""] | float | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
    top: int = 4,
) -> AttentionStats:
    """Log-sum-exp, greatest logit, entropy, mass received and greatest weights.

    H2O keeps the keys with the greatest mass received (Zhang et al. 2023,
    https://arxiv.org/abs/2306.14048). Entropy near zero is a sign of unstable training (Zhai et al.
    2023, https://arxiv.org/abs/2303.06296).

      entropy[t] = -Σ_s weights[t, s] log weights[t, s]      received[s] = Σ_t weights[t, s]

    Args:
      query: as in `attend`; the other arguments likewise.
      key: see `attend`.
      score: see `attend`.
      mask: see `attend`.
      score_mod: see `attend`.
      scale: see `attend`.
      sink: see `attend`; it takes its share of each query's weights, and is in `logsumexp`.
      query_position: see `attend`.
      key_position: see `attend`.
      query_row: see `attend`.
      key_row: see `attend`.
      top: how many of the greatest weights of each query to return, greatest first.

    Returns:
      An `AttentionStats` in float32 (float64 for float64), with no gradients; entropy in nats,
      `top_key` as indices into `key`. Where fewer than `top` keys are unmasked, the last weights
      are 0.

    Raises:
      ValueError: as `attend`; or `top` is not between 1 and the number of keys.
      TypeError: as `attend`.

    Numerics:
      As `attend`. Entropy and weights come from sums in which nothing cancels, so that their
      absolute error does not grow with the logits beyond that of the logits themselves.

    Cost:
      The time of two attention calls; memory O(T top + S).

    Example:
      >>> key = jnp.array([[0.0], [3.0], [1.0]])
      >>> stats = attn_jax.attention_stats(jnp.ones((1, 1)), key, top=2)
      >>> stats.top_key.tolist(), stats.top_weight.round(2).tolist()
      ([[1, 2]], [[0.8399999737739563, 0.10999999940395355]])
    """
    checks.check_one_head(query=(query, "T H"), key=(key, "S E"))
    checks.check_floating(query=query, key=key)
    if not isinstance(top, int) or not 1 <= top <= key.shape[0]:
        raise ValueError(f"top must be an int between 1 and S = {key.shape[0]}; got {top!r}")
    call = prepare(
        query,
        key,
        jnp.zeros((key.shape[0], 1), jnp.result_type(key)),
        score=score,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        query_position=query_position,
        key_position=key_position,
        query_row=query_row,
        key_row=key_row,
        dropout=None,
    )
    sink = None if sink is None else numerics.as_scalar(sink, call.operands.scale.dtype)
    return _stats(*jax.lax.stop_gradient((call, sink)), top=top)


def _specs(call: Call, _: Array | None) -> AttentionStats:
    query, key = (axes_of((side.values, 0)) for side in (call.operands.query, call.operands.key))
    return AttentionStats._make([query, query, query, key, query, query])


@functools.partial(jax.jit, static_argnames="top")
@on_automatic_axes(_specs)
def _stats(call: Call, sink: Float[Array, ""] | None, *, top: int) -> AttentionStats:
    total, spread, best, top_key = _by_query(call, top)
    max_logit = best[:, 0]
    shift = max_logit if sink is None else jnp.maximum(max_logit, sink)
    shift = jnp.where(shift == -jnp.inf, 0, shift)
    total, spread = _shifted(total, spread, max_logit, shift)
    share_of_sink = 0 if sink is None else jnp.exp(sink - shift)
    nothing = total + share_of_sink == 0
    denominator = jnp.where(nothing, 1, total + share_of_sink)
    return AttentionStats(
        logsumexp=jnp.where(nothing, -jnp.inf, shift + jnp.log(denominator)),
        max_logit=max_logit,
        entropy=(total * jnp.log(denominator) + spread) / denominator,
        received=_received(call, shift, denominator),
        top_weight=jnp.exp(best - shift[:, None]) / denominator[:, None],
        top_key=top_key,
    )


def _by_query(call: Call, top: int) -> tuple[Array, Array, Array, Array]:
    """Σ e and Σ e (m - logit) with e = exp(logit - m) and m the greatest logit; the best keys.

    No term of either sum is negative, so nothing cancels, however large the logits are.
    """
    (T, S), dtype, tile = call.sizes, call.operands.scale.dtype, _tile(call)
    rows = (
        Table(jnp.zeros(T, dtype), "query"),
        Table(jnp.zeros(T, dtype), "query"),
        Table(jnp.full((T, top), -jnp.inf, dtype), "query"),
        Table(jnp.zeros((T, top), jnp.int32), "query"),
    )
    start = jax.tree.map(lambda x: x[:1].repeat(tile.queries, axis=0), rows)
    numbered = call.operands, Table(jnp.arange(S, dtype=jnp.int32), "key")
    layout = Layout((unmapped(call.pairs), unmapped(numbered)), (unmapped(rows), None))
    walk = Walk(start, _step, finish=lambda row: row)
    done, _ = fold(walk, call.pairs, numbered, (rows, None), layout, tile)
    return tuple(table.values for table in done)


def _step(row, tile, unmasked):
    """Adds one tile to the sums and the best keys of its queries."""
    (total, spread, best, best_key), (operands, number) = row, tile
    logit = logits(operands, unmasked)
    column = jnp.broadcast_to(number.values[None, :], logit.shape)
    both = jnp.concatenate([best.values, logit], axis=1)
    top, where = jax.lax.top_k(both, best.values.shape[1])
    keys = jnp.concatenate([best_key.values, column], axis=1)
    keys = jnp.take_along_axis(keys, where, axis=1)
    maximum = jnp.where(top[:, 0] == -jnp.inf, 0, top[:, 0])
    total, spread = _shifted(total.values, spread.values, best.values[:, 0], maximum)
    below = jnp.where(logit == -jnp.inf, 0, maximum[:, None] - logit)
    weight = jnp.exp(logit - maximum[:, None])
    total, spread = total + jnp.sum(weight, axis=1), spread + jnp.sum(weight * below, axis=1)
    return tuple(Table(values, "query") for values in (total, spread, top, keys)), None


def _shifted(
    total: Float[Array, " t"], spread: Float[Array, " t"], old: Float[Array, " t"], new: Array
) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Both sums of `_by_query` for a greater m; they are 0 where the old one is −inf."""
    rise = jnp.where(old == -jnp.inf, 0, new - old)
    fade = jnp.exp(-rise)
    return fade * total, fade * (spread + rise * total)


def _received(call: Call, shift: Float[Array, " T"], denominator: Float[Array, " T"]) -> Array:
    """For each key, the sum of its weights over all queries."""
    # The padding of the last tiles is 0: a share of 0 adds nothing, a denominator of 0 gives NaN.
    inputs = call.operands, Table(shift, "query"), Table(1 / denominator, "query")
    result = Table(jax.ShapeDtypeStruct((call.sizes[1],), shift.dtype), "key")
    layout = Layout((unmapped(call.pairs), unmapped(inputs)), unmapped(result))
    return tile_sum(_mass, call.pairs, inputs, layout).values


def _mass(tile, unmasked) -> Table:
    operands, shift, share = tile
    weights = jnp.exp(logits(operands, unmasked) - shift.values[:, None])
    return Table(jnp.sum(weights * share.values[:, None], axis=0), "key")


def _tile(call: Call) -> TileShape:
    pairs, platform = call.pairs, jax.default_backend()
    return pairs.tile or tile_shape.choose(
        *call.sizes, 1, mask=pairs.mask, is_wide=pairs.is_wide, platform=platform
    )
