"""Attention of one head on one example: the function that everything else here maps, wraps or
trains.

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
from attn_jax._engine.read import checked, read, read_out
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
    """Reads from values what the queries ask of the keys, for one head of one example.

    Vaswani et al., "Attention Is All You Need" (2017), eq. 1, https://arxiv.org/abs/1706.03762;
    with `score` it is also the read of Bahdanau et al. (2014) and Luong et al. (2015). Batch and
    heads are `jax.vmap`.

      softmax(where(mask, score_mod(scale * score(query, key)), -inf)) @ value

    Args:
      query: one row for each position that asks.
      key: one row for each position that may be read; as wide as the query unless `score` says
        otherwise.
      value: what is read.
      score: all logits from all queries and keys, one of `attn_jax.scores` or a callable, which
        receives both in float32 (float64 for float64). None is the scaled dot product.
      mask: who may read whom: an array (True = may read), one of `attn_jax.masks`, or a callable
        `(query_position, key_position) -> bool` on scalars.
      score_mod: a callable `(logit, query_position, key_position) -> logit` on scalars, applied
        after `scale`. It is asked about pairs that may be read, and about no others.
      scale: factor on the scores; 1/√H for the scaled dot product, 1 where `score` is given.
      query_position: where each query stands in its sequence, for rules that compare positions;
        from 0 on where T = S.
      key_position: where each key stands; given where `query_position` is.
      query_row: the number of each query in the whole sequence, by which `masks.segments`,
        `masks.from_array` and `score_mods.dense_bias` look it up and weights are dropped; from 0
        on. To be given where a call has a part of the queries; positions may restart, rows do not.
      key_row: the number of each key; from 0 on.
      sink: one more logit in the denominator, with nothing to read: attention that goes nowhere
        (Xiao et al. 2023, https://arxiv.org/abs/2309.17453); 0 is the off-by-one softmax.
      dropout_rate: the probability with which a weight is dropped after the softmax.
      dropout_rng: which weights are dropped; `dropout_mask` shows them. One key a head.
      implementation: a backend by name, or None to let the library choose; `explain` says which.

    Returns:
      The mean of the values under the attention weights, in the query's dtype. A query that may
      read nothing returns zeros, and sends back gradients of exactly zero.

    Raises:
      ValueError: shapes disagree; a mask or score_mod compares positions while T ≠ S and none are
        given, or those of one side alone; it looks rows up in an array that has not T or S entries,
        and none are given; the scale is not finite and positive; the implementation is unknown.
      TypeError: arrays are not floating point of one dtype, or the mask array is not boolean.
      NotImplementedError: the backend that was named cannot honour the call; the message says why.

    Numerics:
      Logits, softmax and both sums in float32 (float64 for float64). NaN in a row that no query may
      read never reaches the output or a gradient.

    Cost:
      O(T S (H + V)) time, less the tiles that the mask leaves empty, and O(T V + S) memory with
      "blockwise"; "reference", which small reads get, writes the T×S logits out. "cudnn" is
      NVIDIA's kernel for plain and causal reads of half precision.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> out = attn_jax.attend(x, x, x, mask=attn_jax.masks.causal())
      >>> print(np.asarray(out).round(3))
      [[1.    0.   ]
       [0.33  0.67 ]
       [0.752 0.752]]
      >>> def near(logit, i, j):   # a logit falls with distance: each query sees itself alone
      ...     return logit - 100 * abs(i - j)
      >>> attn_jax.attend(x, x, x, score_mod=near).tolist()
      [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]

    See also: `attend_with_logsumexp` to merge reads over parts of the keys, `attention_weights` to
      look, `dot_product_attention` for batch and heads.
    """
    call, sink = checked(
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
    return read_out(call, sink, implementation=implementation)


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
    """`attend`, and the log of each softmax denominator, by which reads of parts merge.

    Milakov & Gimelshein (2018), https://arxiv.org/abs/1805.02867: two reads over disjoint keys
    combine to the read over their union with weights softmax([logsumexp_1, logsumexp_2]).

      logsumexp[t] = log Σ_s exp(logits[t, s])   over the keys that t may read

    Args:
      query: as `attend`, and so all that follow.
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
      differentiable; −inf for a query that may read nothing.

    Raises:
      ValueError: as `attend`.
      TypeError: as `attend`.
      NotImplementedError: as `attend`.

    Numerics:
      As `attend`.

    Cost:
      As `attend`; with "cudnn", a pass over the tiles besides.

    Example:
      >>> query, key = jnp.zeros((1, 2)), jnp.ones((4, 2))
      >>> _, logsumexp = attn_jax.attend_with_logsumexp(query, key, key)
      >>> float(jnp.exp(logsumexp[0]))   # four keys, each with logit 0
      4.0
    """
    call, sink = checked(
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
    return read(call, sink, implementation=implementation)


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
      query: as `attend`, and so all that follow.
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
      Weights in float32 (float64 for float64). Each row sums to 1, or is all zeros for a query that
      may read nothing.

    Raises:
      ValueError: as `attend`.
      TypeError: as `attend`.

    Numerics:
      As `attend`.

    Cost:
      O(T S H) time and O(T S) memory: for looking, not for training.

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
@on_automatic_axes(lambda call: axes_of((call.read.query.values, 0), (call.read.key.values, 0)))
def _weights(call: Call) -> Float[Array, "T S"]:
    return reference.weights(call)
