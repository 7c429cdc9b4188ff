"""A reading of queries and keys: the page computes each row itself, so nothing is T×S."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer import _stats
from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._effect import Effect
from attn_jax.viewer._pack import pack, pack_masks, pool
from attn_jax.viewer._reading import Reading, overview_side, pack_overview, pooling
from attn_jax.viewer._rules import of_heads, one_a_layer, positions, written_masks
from attn_jax.viewer._tokens import as_tokens, as_words

CELLS = 2**22  # of a head, looked at together
LARGEST = 2.0**12  # that a query or key is scaled to, in the middle of float16's range


@dataclasses.dataclass(frozen=True)
class Heads:
    """Queries [L N T H], keys [L K S H], a factor for each layer, and the rules between them."""

    query: np.ndarray
    key: np.ndarray
    scale: np.ndarray
    mask: np.ndarray | None  # [1|L 1|N 1|T 1|S]
    effect: Sequence[Effect]  # one a layer

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Layers, heads, queries, keys."""
        return (*self.query.shape[:3], self.key.shape[2])

    def may_read(self, layer: int, head: int) -> np.ndarray:
        """The mask of one head, [T S]."""
        if self.mask is None:
            return np.ones(self.sizes[2:], bool)
        one = self.mask[layer % self.mask.shape[0], head % self.mask.shape[1]]
        return np.broadcast_to(one, self.sizes[2:])

    def rows(self, layer: int, head: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits and what the score mod adds to them, of some queries."""
        group = self.query.shape[1] // self.key.shape[1]
        query, key = self.query[layer, head, begin:end], self.key[layer, head // group]
        logits = self.scale[layer] * (query @ key.T)
        return logits, self.effect[layer].on(logits, head, begin)


def softmax(logits: np.ndarray, may_read: np.ndarray) -> np.ndarray:
    """Row by row; a query that may read nothing has zeros."""
    logits = np.where(may_read, logits, -np.inf)
    most = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - np.where(most == -np.inf, 0, most))
        total = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(total == 0, 1, total)


def reading_of_qk(
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
) -> Reading:
    """See `AttentionView.from_qk`."""
    queries_of, keys_of = _layers("query", query), _layers("key", key)
    _check_fit(queries_of, keys_of)
    L, N, T, H = queries_of.shape
    S = keys_of.shape[2]
    is_self = key_tokens is None and T == S
    texts = as_tokens("tokens", tokens, T, f"query's axis T of {list(np.shape(query))}")
    named = texts if is_self else key_tokens
    key_texts = as_tokens("key_tokens", named, S, f"key's axis S of {list(np.shape(key))}")
    place = positions(query_position, mask, score_mod, T, S)
    mods = one_a_layer("score_mod", score_mod, L)
    heads = Heads(
        queries_of,
        keys_of,
        np.broadcast_to(H**-0.5 if scale is None else as_numbers("scale", scale), L),
        written_masks(mask, (L, N, T, S), place),
        [Effect(of_heads("score_mod", mod, N), place) for mod in mods],
    )
    content, entropy, distance, error = _looked_at(heads, is_self)
    rounding = (
        f"Queries and keys are kept in 16 bits (float16), each row is computed from them here; "
        f"that changes no weight by more than {error:.1e}."
    )
    query_words = as_words("words", words, texts)
    return Reading(
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
        weights=_weights_of(heads),
        may_read=None if heads.mask is None else heads.may_read,
        notes=(*notes, rounding, *pooling(T, S)),
    )


def _layers(name: str, array: Any) -> np.ndarray:
    """[L N T H] from [T H], [T N H], [L T N H] or a list of layers."""
    if isinstance(array, list | tuple) and array and np.ndim(array[0]) >= 2:
        shapes = [np.shape(layer) for layer in array]
        if len(set(shapes)) > 1:
            raise ValueError(f"{name} is ragged: its layers have shapes {shapes}")
        array = np.stack([as_numbers(f"{name}[{i}]", layer) for i, layer in enumerate(array)])
    found = as_numbers(name, array).astype(np.float64)
    if not 2 <= found.ndim <= 4:
        raise ValueError(
            f"{name} must be [T H], [T N H] or [L T N H]; got {list(found.shape)}; pass one "
            f"example of a batch, such as {name}[0]"
        )
    found = found[:, None] if found.ndim == 2 else found
    return np.swapaxes(found[(None,) * (4 - found.ndim)], 1, 2)


def _check_fit(query: np.ndarray, key: np.ndarray) -> None:
    L, N, T, H = query.shape
    if not T or not key.shape[2] or not H:
        raise ValueError(f"query or key is empty: {list(query.shape)} and {list(key.shape)}")
    if key.shape[0] != L or key.shape[3] != H or N % key.shape[1]:
        raise ValueError(
            f"key must have {L} layers, a number of heads that divides {N}, and width {H}, as "
            f"query has; got {key.shape[0]} layers, {key.shape[1]} heads and width {key.shape[3]}"
        )


def _weights_of(heads: Heads) -> Callable[[int, int], np.ndarray]:
    def weights(layer: int, head: int) -> np.ndarray:
        logits, effect = heads.rows(layer, head, 0, heads.sizes[2])
        return softmax(logits + effect, heads.may_read(layer, head))

    return weights


def _rounded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[L N T H] as what float16 keeps of it, and the power of two that it was divided by, [L N]."""
    most = np.abs(np.where(np.isfinite(array), array, 0)).max(axis=(2, 3))
    power = np.ceil(np.log2(np.where(most == 0, 1, most) / LARGEST))
    factor = 2.0**power
    return (array / factor[..., None, None]).astype(np.float16), factor


def _looked_at(heads: Heads, is_self: bool) -> tuple[dict[str, Any], list, list | None, float]:
    """The page's numbers, what the heads come to, and how far rounding moved a weight."""
    L, N, T, S = heads.sizes
    (query, by_query), (key, by_key) = _rounded(heads.query), _rounded(heads.key)
    kept = dataclasses.replace(
        heads,
        query=query.astype(np.float64) * by_query[..., None, None],
        key=key.astype(np.float64) * by_key[..., None, None],
    )
    tables = [_Table.of(heads, kept, layer, head) for layer in range(L) for head in range(N)]
    scale = heads.scale[:, None] * by_query * np.repeat(by_key, N // key.shape[1], axis=1)
    pictures = np.stack([table.picture for table in tables])
    entropy = [_stats.mean(table.entropy) for table in tables]
    distance = [_stats.mean(table.distance) for table in tables]
    content = {
        "form": "qk",
        "query": pack(query, "f16"),
        "key": pack(key, "f16"),
        "scale": scale.ravel().tolist(),
        "effect": [effect.as_json(N, T, S) for effect in heads.effect],
        "masks": pack_masks(heads.mask, L, N, T, S),
        "overview": pack_overview(pictures.reshape(L, N, *pictures.shape[1:])),
        "normalised": True,
    }
    return (
        content,
        [entropy[i * N : (i + 1) * N] for i in range(L)],
        [distance[i * N : (i + 1) * N] for i in range(L)] if is_self else None,
        max(table.error for table in tables),
    )


@dataclasses.dataclass(frozen=True)
class _Table:
    """What one head comes to."""

    picture: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    error: float

    @classmethod
    def of(cls, heads: Heads, kept: Heads, layer: int, head: int) -> "_Table":
        _, _, T, S = heads.sizes
        side, together = overview_side(T, S), max(1, CELLS // S)
        may_read = heads.may_read(layer, head)
        columns, entropy, distance, error = [], [], [], 0.0
        for begin in range(0, T, together):
            end = min(begin + together, T)
            readable = may_read[begin:end]
            logits, effect = heads.rows(layer, head, begin, end)
            heads.effect[layer].note(effect, logits, head, begin, T)
            weights = softmax(logits + effect, readable)
            approximate = softmax(np.add(*kept.rows(layer, head, begin, end)), readable)
            columns.append(pool(weights.T, side).T if side < S else weights)
            entropy.append(_stats.row_entropy(weights))
            distance.append(_stats.row_distance(weights, begin))
            error = max(error, float(np.nanmax(np.abs(weights - approximate), initial=0)))
        picture = pool(np.concatenate(columns), side)
        return cls(picture, np.concatenate(entropy), np.concatenate(distance), error)
