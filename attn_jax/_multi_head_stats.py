"""`attention_weights` and `attention_stats` of every head of every batch example."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

from attn_jax import masks, score_mods
from attn_jax._attend import Scale, attention_weights
from attn_jax._base.axes import in_front, map_levels
from attn_jax._block_mask import BlockMask
from attn_jax._heads import batch_of, lay_out
from attn_jax._multi_head import checked_heads
from attn_jax._stats import AttentionStats, attention_stats


def dot_product_attention_weights(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    bias: Float[Array, "*#B #N #T S"] | None = None,
    mask: Bool[Array, "*#B #N #T S"] | masks.MaskFunction | BlockMask | None = None,
    *,
    score_mod: score_mods.ScoreModFunction | None = None,
    scale: Scale | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, " *#B"] | Sequence[int] | None = None,
    key_value_seq_lengths: Int[Array, " *#B"] | Sequence[int] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    query_position: Int[Array, "*#B T"] | None = None,
    key_position: Int[Array, "*#B S"] | None = None,
    query_row: Int[Array, "*#B T"] | None = None,
    key_row: Int[Array, "*#B S"] | None = None,
) -> Float[Array, "*B N T S"]:
    """The weights with which `dot_product_attention` on the same arguments averages its values.

    Vaswani et al. (2017), figures 3 to 5, https://arxiv.org/abs/1706.03762, where they are drawn a
    head at a time.

      weights[n, t] = softmax(where(mask, scale * query[t, n] · key + bias[n, t], -inf))

    Args:
      query: as in `dot_product_attention`; the other arguments likewise.
      key: see `dot_product_attention`.
      bias: see `dot_product_attention`.
      mask: see `dot_product_attention`.
      score_mod: see `dot_product_attention`.
      scale: see `dot_product_attention`.
      is_causal: see `dot_product_attention`.
      query_seq_lengths: see `dot_product_attention`.
      key_value_seq_lengths: see `dot_product_attention`.
      local_window_size: see `dot_product_attention`.
      query_position: see `dot_product_attention`.
      key_position: see `dot_product_attention`.
      query_row: see `dot_product_attention`.
      key_row: see `dot_product_attention`.

    Returns:
      Weights in float32 (float64 for float64), before dropout. Each row sums to 1, or is all zeros
      for a fully masked query.

    Raises:
      ValueError: as `dot_product_attention`.
      TypeError: as `dot_product_attention`.

    Numerics:
      As `dot_product_attention`.

    Cost:
      O(B N T S H) time and O(B N T S) memory: for inspection, not for training.

    Example:
      >>> x = jnp.zeros((3, 2, 4))   # 3 positions, 2 heads
      >>> weights = attn_jax.dot_product_attention_weights(x, x, is_causal=True)
      >>> print(np.asarray(weights[1]).round(2))
      [[1.   0.   0.  ]
       [0.5  0.5  0.  ]
       [0.33 0.33 0.33]]

    See also: `attention_weights`, the same of one head; `dot_product_attention_stats` for
    statistics whose memory does not grow with T S.
    """
    options = {
        "bias": bias,
        "mask": mask,
        "score_mod": score_mod,
        "scale": scale,
        "is_causal": is_causal,
        "query_seq_lengths": query_seq_lengths,
        "key_value_seq_lengths": key_value_seq_lengths,
        "local_window_size": local_window_size,
        "query_position": query_position,
        "key_position": key_position,
        "query_row": query_row,
        "key_row": key_row,
    }
    return of_heads(attention_weights, query, key, options)


def dot_product_attention_stats(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    bias: Float[Array, "*#B #N #T S"] | None = None,
    mask: Bool[Array, "*#B #N #T S"] | masks.MaskFunction | BlockMask | None = None,
    *,
    score_mod: score_mods.ScoreModFunction | None = None,
    scale: Scale | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, " *#B"] | Sequence[int] | None = None,
    key_value_seq_lengths: Int[Array, " *#B"] | Sequence[int] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    query_position: Int[Array, "*#B T"] | None = None,
    key_position: Int[Array, "*#B S"] | None = None,
    query_row: Int[Array, "*#B T"] | None = None,
    key_row: Int[Array, "*#B S"] | None = None,
    sink: Float[Array, " N"] | None = None,
    top: int = 4,
) -> AttentionStats:
    """Log-sum-exp, entropy, mass received and greatest weights of every head.

    `attention_stats` of many heads, for watching the entropy of each head during training (Zhai et
    al. 2023, https://arxiv.org/abs/2303.06296).

    Args:
      query: as in `dot_product_attention`; the other arguments likewise.
      key: see `dot_product_attention`.
      bias: see `dot_product_attention`.
      mask: see `dot_product_attention`.
      score_mod: see `dot_product_attention`.
      scale: see `dot_product_attention`.
      is_causal: see `dot_product_attention`.
      query_seq_lengths: see `dot_product_attention`.
      key_value_seq_lengths: see `dot_product_attention`.
      local_window_size: see `dot_product_attention`.
      query_position: see `dot_product_attention`.
      key_position: see `dot_product_attention`.
      query_row: see `dot_product_attention`.
      key_row: see `dot_product_attention`.
      sink: see `dot_product_attention`; it takes its share of each query's weights, and is in
        `logsumexp`.
      top: how many of the greatest weights of each query to return, greatest first.

    Returns:
      An `AttentionStats` whose arrays have axes [*B N] in front, with no gradients.

    Raises:
      ValueError: as `dot_product_attention`; or `top` is not between 1 and the number of keys.
      TypeError: as `dot_product_attention`.

    Numerics:
      As `attention_stats`.

    Cost:
      The time of two attention calls; memory O(B N (T top + S)).

    Example:
      >>> x = jnp.zeros((4, 2, 8))   # 4 positions, 2 heads
      >>> stats = attn_jax.dot_product_attention_stats(x, x, is_causal=True)
      >>> print(np.exp(stats.entropy).round(2))   # the effective number of keys
      [[1. 2. 3. 4.]
       [1. 2. 3. 4.]]

    See also: `attention_stats`, the same of one head.
    """
    options = {
        "bias": bias,
        "mask": mask,
        "score_mod": score_mod,
        "scale": scale,
        "is_causal": is_causal,
        "query_seq_lengths": query_seq_lengths,
        "key_value_seq_lengths": key_value_seq_lengths,
        "local_window_size": local_window_size,
        "query_position": query_position,
        "key_position": key_position,
        "query_row": query_row,
        "key_row": key_row,
        "sink": sink,
    }
    return of_heads(attention_stats, query, key, options, top=top)


def of_heads(function: Any, query: Array, key: Array, options: dict[str, Any], **more: Any) -> Any:
    """A function of one head's query and key, mapped over all heads: results are [*B N …].

    Options are those of `dot_product_attention`; those without effect on weights are left out.
    """
    (*_, checked), _ = checked_heads(query, key, key, **options)
    others = {"dropout_rng"} if function is attention_stats else {"dropout_rng", "sink"}

    def head(query: Array, key: Array, _: Array, options: dict) -> Any:
        known = {name: option for name, option in options.items() if name not in others}
        return function(query, key, **known, **more)

    operands, inputs, _ = lay_out(query, key, key, checked)
    levels = len(inputs[0].at)
    results = map_levels(head, inputs, in_front(levels))(*operands)
    front = (*batch_of(query, key), query.shape[-2])
    return jax.tree.map(lambda x: x.reshape(*front, *x.shape[levels:]), results)
