"""`attention_stats` and `attention_weights` of every head of every example."""

from typing import Any

import jax
from jaxtyping import Array, Float

from attn_jax._attend import attention_weights
from attn_jax._base.axes import in_front, map_levels
from attn_jax._heads import batch_of, lay_out
from attn_jax._multi_head import checked_heads
from attn_jax._stats import AttentionStats, attention_stats


def head_stats(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    *,
    top: int,
    **options: Any,
) -> AttentionStats:
    """Figures with axes [*B N] in front; options as those of `dot_product_attention`."""
    (*_, checked), _ = checked_heads(query, key, key, **options)

    def head(query, key, _, options: dict) -> AttentionStats:
        rules = {name: options[name] for name in ("mask", "score_mod", "scale", "sink")}
        sides = ("query_position", "key_position", "query_row", "key_row")
        places = {name: options[name] for name in sides}
        return attention_stats(query, key, **rules, **places, top=top)

    operands, inputs, _ = lay_out(query, key, key, checked)
    levels = len(inputs[0].at)
    stats = map_levels(head, inputs, in_front(levels))(*operands)
    front = (*batch_of(query, key), query.shape[-2])
    return jax.tree.map(lambda figure: figure.reshape(*front, *figure.shape[levels:]), stats)


def head_weights(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    **options: Any,
) -> Float[Array, "*B N T S"]:
    """Weights before dropout; options as those of `dot_product_attention`, but no sink."""
    (*_, checked), _ = checked_heads(query, key, key, **options)

    def head(query, key, _, options: dict) -> Float[Array, "T S"]:
        others = ("sink", "dropout_rng")
        return attention_weights(query, key, **{n: options[n] for n in options if n not in others})

    operands, inputs, _ = lay_out(query, key, key, checked)
    weights = map_levels(head, inputs, in_front(len(inputs[0].at)))(*operands)
    T, N = query.shape[-3:-1]
    return weights.reshape(*batch_of(query, key), N, T, key.shape[-3])
