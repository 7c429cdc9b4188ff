"""`dot_product_attention`, and the log of each softmax denominator."""

from collections.abc import Sequence

from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import masks, score_mods
from attn_jax._attend import Scale
from attn_jax._block_mask import BlockMask
from attn_jax._engine.dispatch import Implementation
from attn_jax._heads import attend_heads
from attn_jax._multi_head import checked_heads


def dot_product_attention_with_logsumexp(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    value: Float[Array, "*#B S K V"],
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
    dropout_rate: float = 0.0,
    dropout_rng: Key[Array, ""] | Key[Array, "*#B #N"] | None = None,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "*B T N V"], Float[Array, "*B T N"]]:
    """`dot_product_attention`, and the log of each softmax denominator, for merging.

    Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867; it is what
    `jax.nn.dot_product_attention` returns beside the output for `return_residual=True`, here in
    float32 and with gradients.

      logsumexp[t, n] = log Σ_s exp(logits[n, t, s])   over the keys that query t attends to

    Args:
      query: as in `dot_product_attention`; the other arguments likewise.
      key: see `dot_product_attention`.
      value: see `dot_product_attention`.
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
      sink: see `dot_product_attention`.
      dropout_rate: see `dot_product_attention`.
      dropout_rng: see `dot_product_attention`.
      implementation: see `dot_product_attention`.

    Returns:
      The output in the query's dtype, and log-sum-exp in float32 (float64 for float64),
      differentiable; −inf for a fully masked query.

    Raises:
      ValueError: as `dot_product_attention`.
      TypeError: as `dot_product_attention`.
      NotImplementedError: as `dot_product_attention`.

    Numerics:
      As `dot_product_attention`. Dropout does not change log-sum-exp.

    Cost:
      As `dot_product_attention`; with "cudnn", one more pass over the tiles.

    Example:
      >>> query, key = jnp.zeros((1, 3, 2)), jnp.ones((4, 3, 2))   # 3 heads, 4 keys
      >>> _, logsumexp = attn_jax.dot_product_attention_with_logsumexp(query, key, key)
      >>> print(np.asarray(jnp.exp(logsumexp)).round(3))   # each key has logit 0
      [[4. 4. 4.]]

    See also: `merge_partials`; `attend_with_logsumexp`, the same of one head.
    """
    operands, static = checked_heads(
        query,
        key,
        value,
        bias,
        mask,
        score_mod=score_mod,
        scale=scale,
        is_causal=is_causal,
        query_seq_lengths=query_seq_lengths,
        key_value_seq_lengths=key_value_seq_lengths,
        local_window_size=local_window_size,
        query_position=query_position,
        key_position=key_position,
        query_row=query_row,
        key_row=key_row,
        sink=sink,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        implementation=implementation,
    )
    return attend_heads(*operands, **static)
