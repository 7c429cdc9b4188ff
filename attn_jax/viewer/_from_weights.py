"""A record that holds given weights: all of them, or the greatest of each row."""

from collections.abc import Callable
from typing import Any

import numpy as np

from attn_jax.viewer import _stats
from attn_jax.viewer._arrays import as_heads, check_sizes
from attn_jax.viewer._json_arrays import array_to_json, masks_to_json
from attn_jax.viewer._overview import overview_notes, overview_of, overviews_to_json
from attn_jax.viewer._record import AttentionRecord
from attn_jax.viewer._tokens import as_tokens, as_words

LARGEST = 2**21  # most weights that a page stores in full; of more, the greatest of each row
KEPT = 32  # weights stored of each row beyond that
TOLERANCE = 1e-2  # of a row's sum: bfloat16 weights sum to 1 within a few thousandths


def record_from_weights(
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
) -> AttentionRecord:
    """The record of `AttentionView.from_weights`, which documents the arguments."""
    heads = as_heads("weights", weights)
    L, N, T, S = heads.shape
    is_self = key_tokens is None and T == S
    queries = as_tokens("tokens", tokens, T, f"weights' axis T (queries) of {list(heads.shape)}")
    if key_tokens is None and not is_self and tokens is not None:
        raise ValueError(
            f"key_tokens is needed: weights has T={T} queries and S={S} keys, and tokens are "
            f"the texts of the queries; pass {S} key_tokens"
        )
    given = queries if is_self else key_tokens
    keys = as_tokens("key_tokens", given, S, f"weights' axis S (keys) of {list(heads.shape)}")
    mask_array = _checked_mask(mask, heads)
    if normalised:
        _check_rows("weights", heads)
    content = _dense(heads, logits, bias) if heads.size <= LARGEST else _greatest(heads)
    content["masks"] = masks_to_json(mask_array, *heads.shape)
    content["normalised"] = normalised
    if content["form"] == "top":
        if logits is not None or bias is not None:
            notes += ("Logits and bias are left out, because the page would be too large.",)
        notes += (
            f"This page stores the {KEPT} greatest weights of each row, and the sum of the others.",
        )
    entropy, distance = _statistics(heads, is_self)
    query_words = as_words("words", words, queries)
    return AttentionRecord(
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
        mask=None if mask_array is None else _mask_function(mask_array, heads.shape),
        notes=(*notes, *overview_notes(T, S)),
    )


def _mask_function(mask: np.ndarray, sizes: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
    full = np.broadcast_to(mask, sizes)
    return lambda layer, head: full[layer, head]


def _checked_mask(mask: Any, heads: np.ndarray) -> np.ndarray | None:
    """The mask as an array; False only where the weight is 0."""
    if mask is None:
        return None
    array = as_heads("mask", mask)
    check_sizes("mask", array, heads.shape, "weights")
    if array.dtype != np.bool_:
        raise TypeError(
            f"mask must be bool (True = may attend); got {array.dtype}; pass an additive "
            f"mask as bias="
        )
    if np.any(np.where(array, 0, np.nan_to_num(heads, nan=1.0)) != 0):
        raise ValueError(
            "mask is False where a weight is not 0; True marks the unmasked pairs: did you mean "
            "~mask?"
        )
    return array


def _check_rows(name: str, heads: np.ndarray) -> None:
    """Checks that no weight is negative, and that a finite row sums to 1 or is all zeros."""
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
        raise ValueError(
            f"{name} has negative entries; pass normalised=False to show them as they are"
        )


def _dense(heads: np.ndarray, logits: Any, bias: Any) -> dict[str, Any]:
    content = {"form": "dense", "weights": array_to_json(heads, "f32")}
    for name, given in (("logits", logits), ("bias", bias)):
        if given is not None:
            values = as_heads(name, given)
            check_sizes(name, values, heads.shape, "weights")
            content[name] = array_to_json(np.broadcast_to(values, heads.shape), "f32")
    return content


def _greatest(heads: np.ndarray) -> dict[str, Any]:
    count = min(KEPT, heads.shape[-1])
    order = np.where(np.isfinite(heads), heads, np.inf)  # NaN and ∞ are kept first
    ids = np.argpartition(-order, count - 1, axis=-1)[..., :count]
    kept = np.take_along_axis(heads, ids, axis=-1)
    overviews = np.stack([[overview_of(head) for head in layer] for layer in heads])
    return {
        "form": "top",
        "ids": array_to_json(ids, "u32"),
        "weights": array_to_json(kept, "f32"),
        "rest": array_to_json(heads.sum(axis=-1) - kept.sum(axis=-1), "f32"),
        "overview": overviews_to_json(overviews),
    }


def _statistics(heads: np.ndarray, is_self: bool) -> tuple[list, list | None]:
    """Entropy and distance of each head, averaged over rows."""

    def of_heads(statistic: Callable[[np.ndarray], np.ndarray]) -> list:
        return [[_stats.finite_mean(statistic(head)) for head in layer] for layer in heads]

    return of_heads(_stats.row_entropy), of_heads(_stats.row_distance) if is_self else None
