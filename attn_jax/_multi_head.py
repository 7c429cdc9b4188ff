"""`attend` mapped by `vmap` over batch, key/value heads and the query heads that share them."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import masks, score_mods
from attn_jax._attend import Scale
from attn_jax._base import checks, concrete, numerics
from attn_jax._base.distance import check_int32
from attn_jax._block_mask import BlockMask
from attn_jax._engine.dispatch import Implementation, check_name
from attn_jax._heads import attend_heads_out


def dot_product_attention(
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
) -> Float[Array, "*B T N V"]:
    """Scaled dot-product attention of many heads on many batch examples.

    Vaswani et al. (2017), eq. 1 and section 3.2.2, https://arxiv.org/abs/1706.03762; several query
    heads may share one key/value head (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245). It
    takes the arguments of `jax.nn.dot_product_attention` by the same names. It differs in three
    points: a fully masked query returns zeros, `is_causal` requires positions where T ≠ S, and
    values may have a width of their own.

      logits[n, t, s] = scale * query[t, n] · key[s, n // (N/K)] + bias[n, t, s]

    Args:
      query: N heads; any number of batch axes. A batch axis of size 1, here or in key and value,
        is shared by all batch examples without a copy: one memory for many queries, for example.
      key: K heads; each is shared by N/K consecutive query heads.
      value: K heads; their width V may differ from H.
      bias: added to the logits after scaling; each axis of full size or 1, the last one full.
      mask: True where a query may attend to a key; each axis of full size or 1, the last one full.
        Or a callable or a `BlockMask` as in `attend`, whose arrays may have leading batch and head
        axes, full or 1.
      score_mod: as in `attend`, after bias; its arrays may have leading batch and head axes too.
      scale: factor on the dot products; 1/√H by default.
      is_causal: whether a query attends only to keys at its own position and before.
      query_seq_lengths: for each batch example how many queries are real: the first rows,
        whatever their positions. The others return zeros.
      key_value_seq_lengths: for each batch example how many keys are unmasked: the first rows,
        whatever their positions.
      local_window_size: (left, right): to how many *other* positions on each side a query attends;
        one number stands for both sides.
      query_position: the position of each query in its sequence, for `is_causal`, the window and
        other rules that compare positions; 0, 1, 2, … by default where T = S.
      key_position: the position of each key; required together with `query_position`.
      query_row: the row number of each query in the whole sequence; see `attend`.
      key_row: the row number of each key; see `attend`.
      sink: one more logit a head in the denominator; see `attend`.
      dropout_rate: the probability with which a weight is dropped after the softmax.
      dropout_rng: one PRNG key, from which each head of each batch example gets random bits of its
        own; or PRNG keys with axes [*B N], each axis full or 1, which are used as they are.
      implementation: the name of an implementation; None lets the library choose, and `explain`
        reports the choice.

    Returns:
      Attention output in the query's dtype.

    Raises:
      ValueError: shapes, heads, lengths or window do not fit; `is_causal` or a window with T ≠ S
        and without positions, or with those of one side alone; see `attend` for others.
      TypeError: arrays are not floating point of one dtype, or the mask is not boolean.
      NotImplementedError: the named implementation cannot compute the call; the message says why.

    Warns:
      UserWarning: there are many more heads than positions, as where axes are (B, N, T, H).

    Numerics:
      As `attend`: logits, softmax and sums in float32 (float64 for float64). Arrays that are
      sharded over batch examples or heads give the same numbers to 4 units in the last place of the
      greatest one, and the same bits where the CPU's matmuls do not depend on their shapes.

    Cost:
      O(B N T S (H + V)) time less the tiles that the mask leaves empty; O(B N T (H + V)) memory
      with "blockwise", and 16 MiB of logits at most, or 128×128 a head. Shared heads and batch
      examples are not repeated. The gradient of a shared memory is held once for each batch example
      before it is summed.

    Example:
      >>> rng = jax.random.key(0)
      >>> query, key, value = (jax.random.normal(r, (2, 5, 4, 8)) for r in jax.random.split(rng, 3))
      >>> ours = attn_jax.dot_product_attention(query, key, value, is_causal=True)
      >>> jaxs = jax.nn.dot_product_attention(query, key, value, is_causal=True)
      >>> bool(jnp.allclose(ours, jaxs, atol=1e-6))
      True

    See also: `attend` for your own score function.
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
    return attend_heads_out(*operands, **static)


def checked_heads(
    query,
    key,
    value,
    bias=None,
    mask=None,
    *,
    score_mod=None,
    scale=None,
    is_causal=False,
    query_seq_lengths=None,
    key_value_seq_lengths=None,
    local_window_size=None,
    query_position=None,
    key_position=None,
    query_row=None,
    key_row=None,
    sink=None,
    dropout_rate=0.0,
    dropout_rng=None,
    implementation=None,
) -> tuple[tuple, dict[str, Any]]:
    """The arguments of `dot_product_attention`, checked: operands and options of `attend_heads`."""
    sizes = checks.check_shapes(
        query=(query, "*B T N H"), key=(key, "*#B S K H"), value=(value, "*#B S K V")
    )
    checks.check_floating(query=query, key=key, value=value)
    B, (T,), (N,), (S,), (K,), (H,) = (sizes[axis] for axis in ("*B", "T", "N", "S", "K", "H"))
    if H == 0:
        raise ValueError("query must have a head width H of at least 1; got 0")
    if K == 0 or N % K:
        raise ValueError(f"query heads ({N}) must be a multiple of key/value heads ({K})")
    checks.warn_of_other_layout(T, S, N)
    _check_pairs(bias, mask, (*B, N, T, S))
    _check_sink(sink, N)
    query_seq_lengths = _lengths("query_seq_lengths", query_seq_lengths, B, T)
    key_value_seq_lengths = _lengths("key_value_seq_lengths", key_value_seq_lengths, B, S)
    _check_rows(B, T, query_position=query_position, query_row=query_row)
    _check_rows(B, S, key_position=key_position, key_row=key_row)
    checks.check_scale(scale)
    check_name(implementation)
    checks.check_dropout(dropout_rate, dropout_rng)
    _check_keys(dropout_rng, (*B, N))
    rule = _rule(is_causal, local_window_size)
    if rule is not None:
        what = "is_causal or local_window_size"
        checks.check_aligned(what, query_position, key_position, T, S)
    if isinstance(mask, BlockMask):
        _check_alone(rule, query_seq_lengths, key_value_seq_lengths)
    dtype = numerics.accumulation_dtype(query.dtype)
    options = {
        "bias": bias,
        "rules": (masks.as_pytree(mask) if callable(mask) else mask, rule),
        "score_mod": None if score_mod is None else score_mods.as_pytree(score_mod, dtype),
        "sink": None if sink is None else jnp.asarray(sink, dtype),
        "lengths": (query_seq_lengths, key_value_seq_lengths),
        "positions": (query_position, key_position),
        "rows": (query_row, key_row),
        "dropout_rng": dropout_rng if dropout_rate else None,
        "scale": numerics.as_scalar(1 / math.sqrt(H) if scale is None else scale, dtype),
    }
    static = {"dropout_rate": dropout_rate, "implementation": implementation}
    return (query, key, value, concrete.at_run_time(options, beside=query)), static


def _check_pairs(bias: Array | None, mask: Any, full: tuple[int, ...]) -> None:
    axes = " ".join(["B"] * (len(full) - 3) + ["N", "T", "S"])
    if bias is not None:
        checks.check_floating(bias=bias)
        checks.check_broadcastable("bias", bias, full, axes)
    if mask is not None and not callable(mask) and not isinstance(mask, BlockMask):
        checks.check_boolean("mask", mask, additive="bias=")
        checks.check_broadcastable("mask", mask, full, axes)


def _check_keys(rng: Key[Array, "..."] | None, full: tuple[int, ...]) -> None:
    shape = () if rng is None else rng.shape
    fits = len(shape) == len(full) and all(
        got in (1, size) for got, size in zip(shape, full, strict=True)
    )
    if shape and not fits:
        raise ValueError(
            f"dropout_rng must be one key, or keys of examples and heads, {list(full)}, each axis "
            f"full or 1; got {list(shape)}"
        )


def _check_sink(sink: Any, N: int) -> None:
    if sink is not None and jnp.shape(sink) != (N,):
        raise ValueError(f"sink must have one entry a head, [{N}]; got {list(jnp.shape(sink))}")


def _check_alone(*others: object) -> None:
    """A BlockMask was made for one mask; another rule beside it would make its tile lists wrong."""
    if any(other is not None for other in others):
        raise ValueError(
            "mask is a BlockMask and comes with is_causal, local_window_size or lengths: make it "
            "of all rules together, attn_jax.block_mask(rule & attn_jax.masks.causal(), T, S)"
        )


def _lengths(name: str, lengths: Any, B: tuple[int, ...], L: int) -> Array | None:
    """Lengths of the queries or of the keys as an array, checked."""
    if lengths is None:
        return None
    lengths = jnp.asarray(lengths)
    if len(lengths.shape) != len(B) or any(
        got not in (1, size) for got, size in zip(lengths.shape, B, strict=True)
    ):
        raise ValueError(
            f"{name} must have one entry an example, {list(B)}, or 1 for what all share; got "
            f"{list(lengths.shape)}"
        )
    checks.check_lengths(name, lengths, L)
    return lengths


def _check_rows(B: tuple[int, ...], L: int, **named: Array | None) -> None:
    """Checks positions and numbers of the queries or of the keys."""
    for name, numbers in named.items():
        if numbers is None:
            continue
        check_int32(name, numbers)
        if numbers.ndim == 1 and numbers.shape != (L,):
            raise ValueError(f"{name} must have one entry a row, [{L}]; got {list(numbers.shape)}")
        if numbers.ndim > 1:
            axes = " ".join([*("B" for _ in B), "L"])
            checks.check_broadcastable(name, numbers, (*B, L), axes)


def _rule(is_causal: bool, window: int | tuple[int, int] | None) -> masks.Mask | None:
    if window is None:
        return masks.causal() if is_causal else None
    pair = (window, window) if isinstance(window, int) else window
    checks.check_window("local_window_size", pair)
    near = masks.sliding_window(*pair)
    return masks.causal() & near if is_causal else near
