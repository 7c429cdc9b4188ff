"""`attend` over batch, key/value heads and the query heads that share them: nothing but `vmap`."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attn_jax import _checks, _numerics, masks, scores
from attn_jax.attend import Implementation, Scale, attend


def dot_product_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K V"],
    bias: Float[Array, "*#B #N #T S"] | None = None,
    mask: Bool[Array, "*#B #N #T S"] | None = None,
    *,
    scale: Scale | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, " *B"] | None = None,
    key_value_seq_lengths: Int[Array, " *B"] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    query_position: Int[Array, "*#B T"] | None = None,
    key_position: Int[Array, "*#B S"] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "*B T N V"]:
    """Scaled dot-product attention of many heads on many examples.

    Vaswani et al. (2017), eq. 1 and section 3.2.2, https://arxiv.org/abs/1706.03762; several query
    heads may share one key/value head (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245). It
    takes what `jax.nn.dot_product_attention` takes, by the same names, and differs where that one
    is silent: a query that may read nothing returns zeros, `is_causal` asks for positions where T ≠
    S, values may have a width of their own.

      logits[n, t, s] = scale * query[t, n] · key[s, n // (N/K)] + bias[n, t, s]

    Args:
      query: N heads; any number of batch axes.
      key: K heads, of which each serves N/K query heads in order.
      value: K heads, in a width of their own.
      bias: added to the logits after scaling; each axis of full size or 1, the last one full.
      mask: True where a query may read a key; each axis of full size or 1, the last one full.
      scale: factor on the dot products; 1/√H by default.
      is_causal: whether a query may read only keys at its own position and before.
      query_seq_lengths: how many queries of each example are real, in positions; the others return
        zeros.
      key_value_seq_lengths: how many keys of each example may be read, in positions.
      local_window_size: (left, right): how many *other* positions on each side a query may read;
        one number is both.
      query_position: where each query stands in its sequence, for `is_causal` and the window.
      key_position: where each key stands; from 0 on.
      implementation: a backend by name, or None to let the library choose.

    Returns:
      Attention output in the query's dtype.

    Raises:
      ValueError: shapes, heads, lengths or window do not fit; `is_causal` or a window with T ≠ S
        and without `query_position`.
      TypeError: arrays are not floating point of one dtype, or the mask is not boolean.

    Numerics:
      As `attend`: logits, softmax and sums in float32 (float64 for float64).

    Cost:
      O(B N T S (H + V)) time, O(B N T S) memory. Shared heads are not repeated.

    Example:
      >>> rng = jax.random.key(0)
      >>> query, key, value = (jax.random.normal(r, (2, 5, 4, 8)) for r in jax.random.split(rng, 3))
      >>> ours = attn_jax.dot_product_attention(query, key, value, is_causal=True)
      >>> jaxs = jax.nn.dot_product_attention(query, key, value, is_causal=True)
      >>> bool(jnp.allclose(ours, jaxs, atol=1e-6))
      True

    See also: `attend` for your own score function, mask rule or change to a logit.
    """
    sizes = _checks.check_shapes(
        query=(query, "*B T N H"), key=(key, "*B S K H"), value=(value, "*B S K V")
    )
    _checks.check_floating(query=query, key=key, value=value)
    B, (T,), (N,), (S,), (K,), (H,) = (sizes[axis] for axis in ("*B", "T", "N", "S", "K", "H"))
    if H == 0:
        raise ValueError("query must have a head width H of at least 1; got 0")
    if K == 0 or N % K:
        raise ValueError(f"query heads ({N}) must be a multiple of key/value heads ({K})")
    _check_pairs(bias, mask, (*B, N, T, S))
    _check_lengths("query_seq_lengths", query_seq_lengths, B, T)
    _check_lengths("key_value_seq_lengths", key_value_seq_lengths, B, S)
    _check_positions("query_position", query_position, B, T)
    _check_positions("key_position", key_position, B, S)
    _checks.check_scale(scale)
    rule = _rule(is_causal, local_window_size)
    if rule is not None and query_position is None and T != S:
        raise ValueError(
            f"query_position is needed with is_causal or local_window_size when T={T} differs "
            f"from S={S}: for queries at the end pass query_position=jnp.arange(S - T, S)"
        )
    scale = 1 / math.sqrt(H) if scale is None else scale
    return _attention(
        query,
        key,
        value,
        bias,
        mask,
        _numerics.as_scalar(scale, _numerics.accumulation_dtype(query.dtype)),
        (query_seq_lengths, key_value_seq_lengths),
        (query_position, key_position),
        rule=rule,
        implementation=implementation,
    )


def _check_pairs(bias: Array | None, mask: Array | None, full: tuple[int, ...]) -> None:
    axes = " ".join(["B"] * (len(full) - 3) + ["N", "T", "S"])
    if bias is not None:
        _checks.check_floating(bias=bias)
        _checks.check_broadcastable("bias", bias, full, axes)
    if mask is not None:
        _checks.check_boolean("mask", mask)
        _checks.check_broadcastable("mask", mask, full, axes)


def _check_lengths(name: str, lengths: Array | None, B: tuple[int, ...], limit: int) -> None:
    if lengths is None:
        return
    if lengths.shape != B:
        raise ValueError(f"{name} must have one entry an example, {list(B)}; got {lengths.shape}")
    _checks.check_lengths(name, lengths, limit)


def _check_positions(name: str, position: Array | None, B: tuple[int, ...], L: int) -> None:
    if position is None:
        return
    if position.ndim == 1 and position.shape != (L,):
        raise ValueError(f"{name} must have one entry a row, [{L}]; got {list(position.shape)}")
    if position.ndim > 1:
        axes = " ".join([*("B" for _ in B), "L"])
        _checks.check_broadcastable(name, position, (*B, L), axes)


def _rule(is_causal: bool, window: int | tuple[int, int] | None) -> masks.Mask | None:
    if window is None:
        return masks.causal() if is_causal else None
    pair = (window, window) if isinstance(window, int) else window
    _checks.check_window("local_window_size", pair)
    near = masks.sliding_window(*pair)
    return masks.causal() & near if is_causal else near


@functools.partial(jax.jit, static_argnames=("rule", "implementation"))
def _attention(
    query, key, value, bias, mask, scale, lengths, positions, *, rule, implementation
) -> Float[Array, "*B T N V"]:
    """Splits the query heads into groups, one a key/value head, and maps one head over them all."""
    *B, T, N, H = query.shape
    K, G, batch = key.shape[-2], N // key.shape[-2], len(B)
    query = query.reshape(*B, T, K, G, H)
    operands = {
        "query": jnp.moveaxis(query, batch, -2),
        "key": jnp.moveaxis(key, batch, -2)[..., None, :, :],
        "value": jnp.moveaxis(value, batch, -2)[..., None, :, :],
        "bias": _split_heads(bias, batch, K, G),
        "mask": _split_heads(mask, batch, K, G),
        "lengths": jax.tree.map(lambda length: _int32(length)[..., None, None], lengths),
        "positions": jax.tree.map(lambda at: _lead_with_ones(_int32(at), batch + 3), positions),
    }
    head = functools.partial(_head, scale=scale, rule=rule, implementation=implementation)
    out = _vmap_leading(head, batch + 2)(operands)
    return jnp.moveaxis(out, -2, batch).reshape(*B, T, N, value.shape[-1])


def _head(operands: dict, *, scale, rule, implementation) -> Float[Array, "T V"]:
    """One head of one example: everything optional becomes a score or a mask of `attend`."""
    query, key, bias = operands["query"], operands["key"], operands["bias"]
    readable = operands["mask"]
    rows = jnp.arange(query.shape[0], dtype=jnp.int32)
    columns = jnp.arange(key.shape[0], dtype=jnp.int32)
    query_length, key_length = operands["lengths"]
    if query_length is not None:
        readable = _both(readable, rows[:, None] < query_length)
    if key_length is not None:
        readable = _both(readable, columns[None, :] < key_length)
    if rule is not None:
        query_position, key_position = operands["positions"]
        rows = rows if query_position is None else query_position
        columns = columns if key_position is None else key_position
        readable = _both(readable, masks.evaluate(rule, rows, columns))
    if readable is not None:
        readable = jnp.broadcast_to(readable, (readable.shape[0], key.shape[0]))

    def biased(query: Float[Array, "T H"], key: Float[Array, "S H"]) -> Float[Array, "T S"]:
        logits = scale * scores.dot(query, key)
        return logits if bias is None else logits + bias.astype(logits.dtype)

    return attend(
        query, key, operands["value"], score=biased, mask=readable, implementation=implementation
    )


def _int32(counts: Int[Array, "..."]) -> Int[Array, "..."]:
    return counts.astype(jnp.int32)


def _both(first: Bool[Array, "..."] | None, second: Bool[Array, "..."]) -> Bool[Array, "..."]:
    return second if first is None else first & second


def _split_heads(pairs: Array | None, batch: int, K: int, G: int) -> Array | None:
    """[*B N|1 T S] to [*B K|1 G|1 T S]."""
    if pairs is None:
        return None
    heads = (1, 1) if pairs.shape[batch] == 1 else (K, G)
    return pairs.reshape(*pairs.shape[:batch], *heads, *pairs.shape[batch + 1 :])


def _lead_with_ones(position: Int[Array, "*B L"], rank: int) -> Int[Array, "..."]:
    """[*B L] or [L] to rank axes: ones for heads and groups before L, and for a batch not given."""
    *B, L = position.shape
    shape = (*B, 1, 1, L)
    return position.reshape((1,) * (rank - len(shape)) + shape)


def _vmap_leading(function: Callable, count: int) -> Callable:
    """Maps over `count` leading axes of a tree of arrays; an axis of size 1 is shared by all."""
    if count == 0:
        return function
    inner = _vmap_leading(function, count - 1)

    def mapped(operands):
        axes = jax.tree.map(lambda leaf: None if leaf.shape[0] == 1 else 0, operands)
        unmapped = jax.tree.map(lambda leaf: leaf[0] if leaf.shape[0] == 1 else leaf, operands)
        if not jax.tree.leaves(axes):
            return inner(unmapped)[None]
        return jax.vmap(inner, in_axes=(axes,))(unmapped)

    return mapped
