"""A record that holds queries and keys: the page computes each row of weights from them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer import _stats
from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._json_arrays import array_to_json, masks_to_json
from attn_jax.viewer._masks_and_score_mods import (
    mask_arrays,
    one_per_head,
    one_per_layer,
    query_positions,
)
from attn_jax.viewer._overview import max_pool, overview_notes, overview_side, overviews_to_json
from attn_jax.viewer._record import AttentionRecord
from attn_jax.viewer._recorded_score_mod import RecordedScoreMod
from attn_jax.viewer._tokens import as_tokens, as_words

CELLS = 2**22  # most weights of a head that are computed at once
LARGEST = 2.0**12  # the greatest entry after scaling, well inside float16's range


@dataclasses.dataclass(frozen=True)
class Heads:
    """Queries [L N T H], keys [L K S H], a scale for each layer, the mask and the score mods."""

    query: np.ndarray
    key: np.ndarray
    scale: np.ndarray
    mask: np.ndarray | None  # [1|L 1|N 1|T 1|S]
    score_mods: Sequence[RecordedScoreMod]  # one for each layer

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The numbers of layers, heads, queries and keys."""
        return (*self.query.shape[:3], self.key.shape[2])

    def head_mask(self, layer: int, head: int) -> np.ndarray:
        """The mask of one head, [T S]."""
        if self.mask is None:
            return np.ones(self.sizes[2:], bool)
        one = self.mask[layer % self.mask.shape[0], head % self.mask.shape[1]]
        return np.broadcast_to(one, self.sizes[2:])

    def logits_and_added(
        self, layer: int, head: int, begin: int, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits of queries `begin` to `end`, and what the score mod adds to them."""
        group = self.query.shape[1] // self.key.shape[1]
        query, key = self.query[layer, head, begin:end], self.key[layer, head // group]
        logits = self.scale[layer] * (query @ key.T)
        return logits, self.score_mods[layer].added_to(logits, head, begin)


def softmax(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The softmax of each row over its unmasked keys; a fully masked row is zeros."""
    logits = np.where(mask, logits, -np.inf)
    most = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - np.where(most == -np.inf, 0, most))
        total = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(total == 0, 1, total)


def record_from_qk(
    name: str,
    query: Any,
    key: Any,
    tokens: Any,
    key_tokens: Any,
    *,
    mask: Any = None,
    score_mod: Any = None,
    scale: Any = None,
    query_position: Any = None,
    words: Any = None,
    notes: tuple[str, ...] = (),
) -> AttentionRecord:
    """The record of `AttentionView.from_qk`, which documents the arguments."""
    queries, keys = _layers("query", query), _layers("key", key)
    _check_fit(queries, keys)
    L, N, T, H = queries.shape
    S = keys.shape[2]
    is_self = key_tokens is None and T == S
    texts = as_tokens("tokens", tokens, T, f"query's axis T of {list(np.shape(query))}")
    given = texts if is_self else key_tokens
    key_texts = as_tokens("key_tokens", given, S, f"key's axis S of {list(np.shape(key))}")
    positions = query_positions(query_position, mask, score_mod, T, S)
    mods = one_per_layer("score_mod", score_mod, L)
    heads = Heads(
        queries,
        keys,
        np.broadcast_to(H**-0.5 if scale is None else as_numbers("scale", scale), L),
        mask_arrays(mask, (L, N, T, S), positions),
        [RecordedScoreMod(one_per_head("score_mod", mod, N), positions) for mod in mods],
    )
    content, entropy, distance, error = _content_and_statistics(heads, is_self)
    rounding = (
        f"This page holds queries and keys in 16 bits (float16) and computes each row from them; "
        f"the rounding changes no weight by more than {error:.1e}."
    )
    query_words = as_words("words", words, texts)
    return AttentionRecord(
        name=name,
        queries=texts,
        keys=key_texts,
        query_words=query_words,
        key_words=query_words if is_self else as_words("words", None, key_texts),
        is_self=is_self,
        sizes=(L, N),
        content=content,
        entropy=entropy,
        distance=distance,
        weights=_weights_function(heads),
        mask=None if heads.mask is None else heads.head_mask,
        notes=(*notes, rounding, *overview_notes(T, S)),
    )


def _layers(name: str, array: Any) -> np.ndarray:
    """[L N T H] from [T H], [T N H], [L T N H] or a list of layers."""
    if isinstance(array, list | tuple) and array and np.ndim(array[0]) >= 2:
        shapes = [np.shape(layer) for layer in array]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"{name} is ragged: its layers have shapes {shapes}; give every layer the "
                f"same shape"
            )
        array = np.stack([as_numbers(f"{name}[{i}]", layer) for i, layer in enumerate(array)])
    numbers = as_numbers(name, array).astype(np.float64)
    if not 2 <= numbers.ndim <= 4:
        raise ValueError(
            f"{name} must be [T H], [T N H] or [L T N H]; got {list(numbers.shape)}; pass one "
            f"example of a batch, such as {name}[0]"
        )
    numbers = numbers[:, None] if numbers.ndim == 2 else numbers
    return np.swapaxes(numbers[(None,) * (4 - numbers.ndim)], 1, 2)


def _check_fit(query: np.ndarray, key: np.ndarray) -> None:
    L, N, T, H = query.shape
    if not T or not key.shape[2] or not H:
        raise ValueError(
            f"query or key is empty: [L N T H] = {list(query.shape)} and [L K S H] = "
            f"{list(key.shape)}; pass at least one of each"
        )
    if key.shape[0] != L or key.shape[3] != H or N % key.shape[1]:
        raise ValueError(
            f"key must have {L} layers, a number of heads that divides {N}, and width {H}, as "
            f"query has; got {key.shape[0]} layers, {key.shape[1]} heads and width {key.shape[3]}"
        )


def _weights_function(heads: Heads) -> Callable[[int, int], np.ndarray]:
    def weights(layer: int, head: int) -> np.ndarray:
        logits, added = heads.logits_and_added(layer, head, 0, heads.sizes[2])
        return softmax(logits + added, heads.head_mask(layer, head))

    return weights


def _rounded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[L N T H] in float16, and the power of two that each head was divided by, [L N]."""
    most = np.abs(np.where(np.isfinite(array), array, 0)).max(axis=(2, 3))
    power = np.ceil(np.log2(np.where(most == 0, 1, most) / LARGEST))
    factor = 2.0**power
    return (array / factor[..., None, None]).astype(np.float16), factor


def _content_and_statistics(
    heads: Heads, is_self: bool
) -> tuple[dict[str, Any], list, list | None, float]:
    """The page's arrays, entropy, distance, and the greatest change of a weight by rounding."""
    L, N, T, S = heads.sizes
    (query, query_factor), (key, key_factor) = _rounded(heads.query), _rounded(heads.key)
    rounded = dataclasses.replace(
        heads,
        query=query.astype(np.float64) * query_factor[..., None, None],
        key=key.astype(np.float64) * key_factor[..., None, None],
    )
    summaries = [
        _HeadSummary.of(heads, rounded, layer, head) for layer in range(L) for head in range(N)
    ]
    scale = heads.scale[:, None] * query_factor * np.repeat(key_factor, N // key.shape[1], axis=1)
    overviews = np.stack([summary.overview for summary in summaries])
    entropy = [_stats.finite_mean(summary.entropy) for summary in summaries]
    distance = [_stats.finite_mean(summary.distance) for summary in summaries]
    content = {
        "form": "qk",
        "query": array_to_json(query, "f16"),
        "key": array_to_json(key, "f16"),
        "scale": scale.ravel().tolist(),
        "score_mods": [score_mod.as_json(N, T, S) for score_mod in heads.score_mods],
        "masks": masks_to_json(heads.mask, L, N, T, S),
        "overview": overviews_to_json(overviews.reshape(L, N, *overviews.shape[1:])),
        "normalised": True,
    }
    return (
        content,
        [entropy[i * N : (i + 1) * N] for i in range(L)],
        [distance[i * N : (i + 1) * N] for i in range(L)] if is_self else None,
        max(summary.error for summary in summaries),
    )


@dataclasses.dataclass(frozen=True)
class _HeadSummary:
    """The overview of one head, statistics of its rows, and the greatest change by rounding."""

    overview: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    error: float

    @classmethod
    def of(cls, heads: Heads, rounded: Heads, layer: int, head: int) -> "_HeadSummary":
        _, _, T, S = heads.sizes
        side, rows_at_once = overview_side(T, S), max(1, CELLS // S)
        mask = heads.head_mask(layer, head)
        pooled, entropy, distance, error = [], [], [], 0.0
        for begin in range(0, T, rows_at_once):
            end = min(begin + rows_at_once, T)
            logits, added = heads.logits_and_added(layer, head, begin, end)
            heads.score_mods[layer].record(added, logits, head, begin, T)
            weights = softmax(logits + added, mask[begin:end])
            approximate_logits = np.add(*rounded.logits_and_added(layer, head, begin, end))
            approximate = softmax(approximate_logits, mask[begin:end])
            pooled.append(max_pool(weights.T, side).T if side < S else weights)
            entropy.append(_stats.row_entropy(weights))
            distance.append(_stats.row_distance(weights, begin))
            error = max(error, float(np.nanmax(np.abs(weights - approximate), initial=0)))
        overview = max_pool(np.concatenate(pooled), side)
        return cls(overview, np.concatenate(entropy), np.concatenate(distance), error)
