"""A reading of weights that are there already: whole, or of each row the greatest."""

from collections.abc import Callable
from typing import Any

import numpy as np

from attn_jax.viewer import _stats
from attn_jax.viewer._arrays import as_heads, check_sizes
from attn_jax.viewer._pack import pack, pack_masks
from attn_jax.viewer._reading import Reading, pack_overview, pooled, pooling
from attn_jax.viewer._tokens import as_tokens, as_words

WHOLE = 2**21  # numbers of a page's weights, beyond which it keeps the greatest of each row
KEPT = 32
TOLERANCE = 1e-2  # of a row's sum: weights in bfloat16 are a few thousandths off


def reading_of_weights(
    name: str,
    weights: Any,
    tokens: Any,
    key_tokens: Any,
    *,
    logits: Any = None,
    bias: Any = None,
    mask: Any = None,
    normalised: bool = True,
    words: Any = None,
    key_words: Any = None,
    notes: tuple[str, ...] = (),
) -> Reading:
    """See `AttentionView.from_weights`."""
    heads = as_heads("weights", weights)
    L, N, T, S = heads.shape
    is_self = key_tokens is None and T == S
    queries = as_tokens("tokens", tokens, T, f"weights' axis T (queries) of {list(heads.shape)}")
    if key_tokens is None and not is_self and tokens is not None:
        raise ValueError(
            f"key_tokens is needed: weights has T={T} queries and S={S} keys, and tokens names "
            f"the queries"
        )
    named = queries if is_self else key_tokens
    keys = as_tokens("key_tokens", named, S, f"weights' axis S (keys) of {list(heads.shape)}")
    may_read = _mask(mask, heads)
    if normalised:
        _check_rows("weights", heads)
    content = _whole(heads, logits, bias) if heads.size <= WHOLE else _greatest(heads)
    content["masks"] = pack_masks(may_read, *heads.shape)
    content["normalised"] = normalised
    if content["form"] == "top":
        if logits is not None or bias is not None:
            notes += ("Logits and bias were left out: the page would be too large.",)
        notes += (f"Of each row the {KEPT} greatest weights are kept; the rest is one number.",)
    entropy, distance = _of_heads(heads, is_self)
    query_words = as_words("words", words, queries)
    return Reading(
        name=name,
        queries=queries,
        keys=keys,
        query_words=query_words,
        key_words=query_words if is_self else as_words("key_words", key_words, keys),
        is_self=is_self,
        sizes=(L, N),
        content=content,
        entropy=entropy,
        distance=distance,
        weights=lambda layer, head: heads[layer, head],
        may_read=None if may_read is None else _one_head(may_read, heads.shape),
        notes=(*notes, *pooling(T, S)),
    )


def _one_head(mask: np.ndarray, sizes: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
    whole = np.broadcast_to(mask, sizes)
    return lambda layer, head: whole[layer, head]


def _mask(mask: Any, heads: np.ndarray) -> np.ndarray | None:
    if mask is None:
        return None
    may_read = as_heads("mask", mask)
    check_sizes("mask", may_read, heads.shape, "weights")
    if may_read.dtype != np.bool_:
        raise TypeError("mask must be bool (True = may read); an additive mask is a bias=")
    if np.any(np.where(may_read, 0, np.nan_to_num(heads, nan=1.0)) != 0):
        raise ValueError(
            "mask is False where a weight is not 0; True means may read: did you mean ~mask?"
        )
    return may_read


def _check_rows(name: str, heads: np.ndarray) -> None:
    """Every row sums to 1, is all zeros, or has a number that is none, which the page marks."""
    sums = heads.sum(axis=-1)
    if not heads.shape[-1] or not heads.shape[-2]:
        return
    wrong = np.isfinite(sums) & (np.abs(sums - 1) > TOLERANCE) & np.any(heads != 0, axis=-1)
    if wrong.any():
        layer, head, row = (int(i) for i in np.argwhere(wrong)[0])
        transposed = np.allclose(heads.sum(axis=-2), 1, atol=TOLERANCE)
        advice = (
            f"its columns do: did you mean {name}.swapaxes(-1, -2)?"
            if transposed
            else "pass weights after the softmax, or normalised=False to show them as they are"
        )
        raise ValueError(
            f"{name} does not sum to one over its keys (last axis): layer {layer}, head {head}, "
            f"row {row} has sum {sums[layer, head, row]:.4g}; {advice}"
        )
    if (np.nan_to_num(heads) < 0).any():
        raise ValueError(f"{name} is negative somewhere; pass normalised=False to show it as it is")


def _whole(heads: np.ndarray, logits: Any, bias: Any) -> dict[str, Any]:
    content = {"form": "dense", "weights": pack(heads, "f32")}
    for name, given in (("logits", logits), ("bias", bias)):
        if given is not None:
            values = as_heads(name, given)
            check_sizes(name, values, heads.shape, "weights")
            content[name] = pack(np.broadcast_to(values, heads.shape), "f32")
    return content


def _greatest(heads: np.ndarray) -> dict[str, Any]:
    count = min(KEPT, heads.shape[-1])
    order = np.where(np.isfinite(heads), heads, np.inf)  # a NaN is kept first of all
    ids = np.argpartition(-order, count - 1, axis=-1)[..., :count]
    kept = np.take_along_axis(heads, ids, axis=-1)
    pictures = np.stack([[pooled(head) for head in layer] for layer in heads])
    return {
        "form": "top",
        "ids": pack(ids, "u32"),
        "weights": pack(kept, "f32"),
        "rest": pack(heads.sum(axis=-1) - kept.sum(axis=-1), "f32"),
        "overview": pack_overview(pictures),
    }


def _of_heads(heads: np.ndarray, is_self: bool) -> tuple[list, list | None]:
    """Entropy and distance, in the mean over rows."""
    entropy = [[_stats.mean(_stats.row_entropy(head)) for head in layer] for layer in heads]
    if not is_self:
        return entropy, None
    return entropy, [[_stats.mean(_stats.row_distance(head)) for head in layer] for layer in heads]
