"""A reading of an encoder–decoder's trace: the alignment, and all that its animation shows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._from_weights import reading_of_weights
from attn_jax.viewer._pack import pack
from attn_jax.viewer._reading import Reading

SHOWN = 8  # numbers of a state or context that the animation has room for
FIELDS = (
    "source_mask",
    "target_mask",
    "states",
    "scores",
    "weights",
    "contexts",
    "top_tokens",
    "top_log_probs",
)


def reading_of_trace(
    name: str,
    trace: Any,
    source_tokens: Any,
    target_tokens: Any,
    *,
    annotations: Any = None,
    word: Callable[[int], str] | None = None,
    source_words: Sequence[int] | None = None,
    target_words: Sequence[int] | None = None,
    notes: tuple[str, ...] = (),
) -> Reading:
    """See `AttentionView.from_trace`."""
    parts = _parts(trace)
    said = np.flatnonzero(parts["target_mask"])
    width = int(np.flatnonzero(parts["source_mask"]).max(initial=-1)) + 1
    if not said.size or not width:
        raise ValueError("trace is empty: its source_mask or target_mask is False everywhere")
    mask = parts["source_mask"][None, :width].astype(bool)
    weights = parts["weights"][said, :width]
    reading = reading_of_weights(
        name,
        weights,
        _first(target_tokens, len(said)),
        _first(source_tokens, width),
        logits=parts["scores"][said, :width],
        mask=mask,
        words=target_words,
        key_words=source_words,
        notes=notes,
    )
    decode = _animated(parts, weights, said, width, annotations, word)
    return dataclasses.replace(reading, decode=decode)


def _parts(trace: Any) -> dict[str, np.ndarray]:
    found = {}
    for field in FIELDS:
        has = isinstance(trace, Mapping)
        value = trace.get(field) if has else getattr(trace, field, None)
        if value is None:
            raise ValueError(
                f"trace has no {field}; pass what attn_jax.models.force or greedy_search returns, "
                f"or a mapping with {', '.join(FIELDS)}"
            )
        found[field] = as_numbers(f"trace.{field}", value)
    if found["weights"].ndim != 2:
        raise ValueError(
            f"trace.weights must be [L S]; got {list(found['weights'].shape)}; pass one example of "
            f"a batch: jax.tree.map(lambda x: x[0], trace)"
        )
    return found


def _first(tokens: Any, count: int) -> Any:
    """The names that are needed, where the others are names of padding."""
    if tokens is None or isinstance(tokens, str | bytes) or len(tokens) < count:
        return tokens
    return list(tokens)[:count]


def _animated(
    parts: dict[str, np.ndarray],
    weights: np.ndarray,
    said: np.ndarray,
    width: int,
    annotations: Any,
    word: Callable[[int], str] | None,
) -> dict[str, Any]:
    """States and contexts, whole where they must be summed, and the likeliest words."""
    decode: dict[str, Any] = {
        "shown": SHOWN,
        "states": pack(parts["states"][said], "f32"),
        "contexts": pack(parts["contexts"][said], "f32"),
        "candidates": [
            [str(int(i)) if word is None else word(int(i)) for i in row]
            for row in parts["top_tokens"][said]
        ],
        "log_probs": pack(parts["top_log_probs"][said], "f32"),
        "only_last": bool(np.all(weights[:, -1] == 1)),
        "annotations": None,
    }
    if annotations is not None:
        rows = as_numbers("annotations", annotations)
        if rows.ndim != 2 or len(rows) < width or rows.shape[1] != parts["contexts"].shape[1]:
            raise ValueError(
                f"annotations must be [S E] with S >= {width} and E = "
                f"{parts['contexts'].shape[1]}, as trace.contexts; got {list(rows.shape)}"
            )
        decode["annotations"] = pack(rows[:width], "f32")
    return decode
