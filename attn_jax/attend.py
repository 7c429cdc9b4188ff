"""Attention of one head on one example: the function that everything else here maps, wraps or
trains.

logits  = scale * score(query, key)
logits  = score_mod(logits, query_position, key_position)
weights = softmax(where(mask(query_position, key_position), logits, -inf))
out     = weights @ value
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax import _checks, _numerics, masks, scores
from attn_jax.backends import reference
from attn_jax.score_mods import ScoreMod

type Implementation = Literal["reference"]
type Scale = float | int | np.floating | Float[Array, ""]
type MaskLike = Bool[Array, "#T S"] | masks.MaskFunction

_BACKENDS = {"reference": reference.attend}


def attend(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreMod | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
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
        after `scale`. It is called on every pair, so it and its derivative must be finite on those
        that the mask hides, too.
      scale: factor on the scores; 1/√H for the scaled dot product, 1 where `score` is given.
      query_position: where each query stands in its sequence; from 0 on where T = S.
      key_position: where each key stands; from 0 on.
      implementation: a backend by name, or None to let the library choose.

    Returns:
      The mean of the values under the attention weights, in the query's dtype. A query that may
      read nothing returns zeros, and sends back gradients of exactly zero.

    Raises:
      ValueError: shapes disagree; a mask or score_mod compares positions while T ≠ S and no
        `query_position` is given; the scale is not finite and positive; the implementation is
        unknown.
      TypeError: arrays are not floating point of one dtype, or the mask array is not boolean.

    Numerics:
      Logits, softmax and both sums in float32 (float64 for float64). NaN in a row that no query may
      read never reaches the output or a gradient.

    Cost:
      O(T S (H + V)) time, O(T S) memory.

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
    out, _ = attend_with_logsumexp(
        query,
        key,
        value,
        score=score,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        query_position=query_position,
        key_position=key_position,
        implementation=implementation,
    )
    return out


def attend_with_logsumexp(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    value: Float[Array, "S V"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreMod | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
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
      implementation: see `attend`.

    Returns:
      The output in the query's dtype, and log-sum-exp in float32 (float64 for float64),
      differentiable; −inf for a query that may read nothing.

    Raises:
      ValueError: as `attend`.
      TypeError: as `attend`.

    Numerics:
      As `attend`.

    Cost:
      As `attend`.

    Example:
      >>> query, key = jnp.zeros((1, 2)), jnp.ones((4, 2))
      >>> _, logsumexp = attn_jax.attend_with_logsumexp(query, key, key)
      >>> float(jnp.exp(logsumexp[0]))   # four keys, each with logit 0
      4.0
    """
    _checks.check_shapes(query=(query, "T H"), key=(key, "S E"), value=(value, "S V"))
    _checks.check_floating(query=query, key=key, value=value)
    if implementation is not None and implementation not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise ValueError(f"implementation {implementation!r} is unknown; choose from {known}")
    backend = _BACKENDS[implementation or "reference"]
    options = _options(query, key, score, mask, score_mod, scale, query_position, key_position)
    return backend(query, key, value, **options)


def attention_weights(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    *,
    score: scores.Score | None = None,
    mask: MaskLike | None = None,
    score_mod: ScoreMod | None = None,
    scale: Scale | None = None,
    query_position: Int[Array, " T"] | None = None,
    key_position: Int[Array, " S"] | None = None,
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
    _checks.check_shapes(query=(query, "T H"), key=(key, "S E"))
    _checks.check_floating(query=query, key=key)
    options = _options(query, key, score, mask, score_mod, scale, query_position, key_position)
    weights, _ = reference.weights(query, key, **options)
    return weights


def _options(query, key, score, mask, score_mod, scale, query_position, key_position) -> dict:
    """The backend's options: checked, with every default filled in."""
    (T, H), (S, E) = query.shape, key.shape
    if score is None and E != H:
        raise ValueError(f"key must be as wide as query, H = {H}; got {E}; or pass score=")
    _checks.check_scale(scale)
    if mask is not None and not callable(mask):
        _checks.check_boolean("mask", mask)
        _checks.check_broadcastable("mask", mask, (T, S), "T S")
    by_position = (callable(mask) and masks.is_aligned(mask)) or score_mod is not None
    if by_position and query_position is None and T != S:
        raise ValueError(
            f"query_position is needed: mask or score_mod compares positions, and T={T} queries "
            f"can be aligned with S={S} keys in more than one way; for queries at the end pass "
            f"query_position=jnp.arange(S - T, S)"
        )
    default_scale = 1.0 if score is not None else 1 / math.sqrt(max(H, 1))
    scale = default_scale if scale is None else scale
    return {
        "score": scores.dot if score is None else score,
        "mask": mask,
        "score_mod": score_mod,
        "scale": _numerics.as_scalar(scale, _numerics.accumulation_dtype(query.dtype)),
        "query_position": _positions("query_position", query_position, T),
        "key_position": _positions("key_position", key_position, S),
    }


def _positions(name: str, position: Int[Array, " L"] | None, L: int) -> Int[Array, " L"]:
    if position is None:
        return jnp.arange(L, dtype=jnp.int32)
    if position.shape != (L,):
        raise ValueError(
            f"{name} must have shape [{L}], one entry a row; got {list(position.shape)}"
        )
    return position.astype(jnp.int32)
