"""Attention of one head on one batch example: the function that all others map, wrap or train.

logits  = scale * score(query, key)
logits  = score_mod(logits, query_position, key_position)
weights = softmax(where(mask(query_position, key_position), logits, -inf))
out     = weights @ value
"""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import masks, scores
from attn_jax._base import checks
from attn_jax._base.sharding import axes_of, on_automatic_axes
from attn_jax._block_mask import BlockMask
from attn_jax._engine.call import Call, prepare
from attn_jax._engine.dispatch import Implementation
from attn_jax._engine.kernels import reference
from attn_jax._engine.one_head import checked_call, compute_jitted, output_jitted
from attn_jax.score_mods import ScoreModFunction

type Scale = float | int | np.floating | Float[Array, ""]
type MaskLike = Bool[Array, "#T S"] | masks.MaskFunction | BlockMask


def attend(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreModFunction | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
    sink: Float[Array, ""] | float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Key[Array, ""] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "T V"]:
    """Attention of one head on one batch example.

    Vaswani et al., "Attention Is All You Need" (2017), eq. 1, https://arxiv.org/abs/1706.03762;
    with `score` it is also the attention of Bahdanau et al. (2014) and Luong et al. (2015). Map it
    over batch and heads with `jax.vmap`.

      softmax(where(mask, score_mod(scale * score(query, key)), -inf)) @ value

    Args:
      query: one row for each query position.
      key: one row for each key position; as wide as the query unless `score` takes another width.
      value: one row for each key.
      score: a function from all queries and keys to all logits: one of `attn_jax.scores` or a
        callable, which receives both in float32 (float64 for float64). None is the scaled dot
        product.
      mask: which queries may attend to which keys: an array (True = may attend), one of
        `attn_jax.masks`, or a callable `(query_position, key_position) -> bool` on scalars.
      score_mod: a callable `(logit, query_position, key_position) -> logit` on scalars, applied
        after `scale`. Its results and derivatives are used at unmasked pairs only.
      scale: factor on the scores; 1/√H for the scaled dot product, 1 where `score` is given.
      query_position: the position of each query in its sequence, for masks and score mods that
        compare positions; 0, 1, 2, … by default where T = S.
      key_position: the position of each key; required together with `query_position`.
      query_row: the row number of each query in the whole sequence; 0, 1, 2, … by default.
        `masks.segments`, `masks.from_array`, `score_mods.dense_bias` and dropout look it up. Pass
        it where a call has a part of the queries. Positions may restart, row numbers do not.
      key_row: the row number of each key; 0, 1, 2, … by default.
      sink: one more logit in the denominator, which has no value (Xiao et al. 2023,
        https://arxiv.org/abs/2309.17453); 0 is the off-by-one softmax.
      dropout_rate: the probability with which a weight is dropped after the softmax.
      dropout_rng: the PRNG key of this head; `dropout_mask` returns which weights it keeps.
      implementation: the name of an implementation; None lets the library choose, and `explain`
        reports the choice.

    Returns:
      The mean of the values under the attention weights, in the query's dtype. A fully masked query
      returns zeros and has gradients of exactly zero.

    Raises:
      ValueError: shapes disagree; a mask or score_mod compares positions while T ≠ S and no
        positions are given, or those of one side alone; a mask or score_mod looks rows up in an
        array that does not have T or S entries, and no row numbers are given; the scale is not
        finite and positive; the implementation is unknown.
      TypeError: arrays are not floating point of one dtype, or the mask array is not boolean.
      NotImplementedError: the named implementation cannot compute the call; the message says why.

    Numerics:
      Logits, softmax and both sums in float32 (float64 for float64). NaN in a row that is
      masked for every query never reaches the output or a gradient.

    Cost:
      O(T S (H + V)) time, less the tiles that the mask leaves empty, and O(T V + S) memory with
      "blockwise", and with "mosaic_tpu", a fused kernel for TPUs. "reference", for small calls,
      writes the T×S logits out. "cudnn" is NVIDIA's kernel for full and causal attention in half
      precision.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> out = attn_jax.attend(x, x, x, mask=attn_jax.masks.causal())
      >>> print(np.asarray(out).round(3))
      [[1.    0.   ]
       [0.33  0.67 ]
       [0.752 0.752]]
      >>> def near(logit, i, j):   # the logit falls with distance: each query attends to itself
      ...     return logit - 100 * abs(i - j)
      >>> attn_jax.attend(x, x, x, score_mod=near).tolist()
      [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]

    See also: `attend_with_logsumexp` to merge attention over parts of the keys,
      `attention_weights` for the weights, `dot_product_attention` for batch and heads.
    """
    call, sink = checked_call(
        query,
        key,
        value,
        score=score,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        query_position=query_position,
        key_position=key_position,
        query_row=query_row,
        key_row=key_row,
        sink=sink,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        implementation=implementation,
    )
    return output_jitted(call, sink, implementation=implementation)


def attend_with_logsumexp(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreModFunction | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
    sink: Float[Array, ""] | float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Key[Array, ""] | None = None,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """`attend`, and the log of each softmax denominator, for merging attention over parts.

    Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867: outputs over two disjoint sets of
    keys combine, with weights softmax([logsumexp_1, logsumexp_2]), to the output over their union.

      logsumexp[t] = log Σ_s exp(logits[t, s])   over the keys that query t attends to

    Args:
      query: as in `attend`; the other arguments likewise.
      key: see `attend`.
      value: see `attend`.
      score: see `attend`.
      mask: see `attend`.
      score_mod: see `attend`.
      scale: see `attend`.
      query_position: see `attend`.
      key_position: see `attend`.
      query_row: see `attend`.
      key_row: see `attend`.
      sink: see `attend`.
      dropout_rate: see `attend`.
      dropout_rng: see `attend`.
      implementation: see `attend`.

    Returns:
      The output in the query's dtype, and log-sum-exp in float32 (float64 for float64),
      differentiable; −inf for a fully masked query.

    Raises:
      ValueError: as `attend`.
      TypeError: as `attend`.
      NotImplementedError: as `attend`.

    Numerics:
      As `attend`.

    Cost:
      As `attend`; with "cudnn", one more pass over the tiles.

    Example:
      >>> query, key = jnp.zeros((1, 2)), jnp.ones((4, 2))
      >>> _, logsumexp = attn_jax.attend_with_logsumexp(query, key, key)
      >>> float(jnp.exp(logsumexp[0]))   # four keys, each with logit 0
      4.0
    """
    call, sink = checked_call(
        query,
        key,
        value,
        score=score,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        query_position=query_position,
        key_position=key_position,
        query_row=query_row,
        key_row=key_row,
        sink=sink,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        implementation=implementation,
    )
    return compute_jitted(call, sink, implementation=implementation)


def attention_weights(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreModFunction | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
    query_row: Int[Array, " T"] | None = None,
    key_row: Int[Array, " S"] | None = None,
) -> Float[Array, "T S"]:
    """The weights with which `attend` on the same arguments averages its values.

    Bahdanau et al. (2014), eq. 6 and figure 3, https://arxiv.org/abs/1409.0473, where they are
    drawn as an alignment.

      weights[t] = softmax(where(mask, score_mod(scale * score(query, key)), -inf))[t]

    Args:
      query: as in `attend`; the other arguments likewise.
      key: see `attend`.
      score: see `attend`.
      mask: see `attend`.
      score_mod: see `attend`.
      scale: see `attend`.
      query_position: see `attend`.
      key_position: see `attend`.
      query_row: see `attend`.
      key_row: see `attend`.

    Returns:
      Weights in float32 (float64 for float64). Each row sums to 1, or is all zeros for a fully
      masked query.

    Raises:
      ValueError: as `attend`.
      TypeError: as `attend`.

    Numerics:
      As `attend`.

    Cost:
      O(T S H) time and O(T S) memory: for inspection, not for training.

    Example:
      >>> x = jnp.array([[0.0], [0.0], [0.0]])
      >>> weights = attn_jax.attention_weights(x, x, mask=attn_jax.masks.causal())
      >>> print(np.asarray(weights).round(2))
      [[1.   0.   0.  ]
       [0.5  0.5  0.  ]
       [0.33 0.33 0.33]]
    """
    checks.check_one_head(query=(query, "T H"), key=(key, "S E"))
    checks.check_floating(query=query, key=key)
    call = prepare(
        query,
        key,
        key,
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
    return _weights(call)


@jax.jit
@on_automatic_axes(
    lambda call: axes_of((call.operands.query.values, 0), (call.operands.key.values, 0))
)
def _weights(call: Call) -> Float[Array, "T S"]:
    return reference.weights(call)
