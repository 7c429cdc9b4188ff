"""A record of an encoder–decoder's trace: the alignment, and the data of its animation."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_jax.viewer._arrays import as_numbers
from attn_jax.viewer._from_weights import record_from_weights
from attn_jax.viewer._json_arrays import array_to_json
from attn_jax.viewer._record import AttentionRecord

SHOWN = 8  # entries of a state or context that the animation draws
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


def record_from_trace(
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
) -> AttentionRecord:
    """The record of `AttentionView.from_trace`, which documents the arguments."""
    arrays = _trace_arrays(trace)
    steps = np.flatnonzero(arrays["target_mask"])
    length = int(np.flatnonzero(arrays["source_mask"]).max(initial=-1)) + 1
    if not steps.size or not length:
        raise ValueError(
            "trace is empty: its source_mask or target_mask is False everywhere; pass a "
            "trace with tokens"
        )
    mask = arrays["source_mask"][None, :length].astype(bool)
    weights, scores = (arrays[name][steps, :length] for name in ("weights", "scores"))
    only_last = bool(np.all(weights[:, -1] == 1) and np.all(scores == 0))
    if only_last:  # the model computes no scores, and its decoder receives the last state only
        mask = np.arange(length)[None] == length - 1
    record = record_from_weights(
        name,
        weights,
        _first(target_tokens, len(steps)),
        _first(source_tokens, length),
        logits=None if only_last else scores,
        mask=mask,
        words=target_words,
        key_words=source_words,
        notes=notes,
    )
    decode = _decode_json(arrays, steps, length, annotations, word)
    return dataclasses.replace(record, decode={**decode, "only_last": only_last})


def _trace_arrays(trace: Any) -> dict[str, np.ndarray]:
    """The fields of the trace as numpy arrays."""
    arrays = {}
    for field in FIELDS:
        is_mapping = isinstance(trace, Mapping)
        value = trace.get(field) if is_mapping else getattr(trace, field, None)
        if value is None:
            raise ValueError(
                f"trace has no {field}; pass the result of attn_jax.models.force or "
                f"greedy_search, or a mapping with {', '.join(FIELDS)}"
            )
        arrays[field] = as_numbers(f"trace.{field}", value)
    if arrays["weights"].ndim != 2:
        raise ValueError(
            f"trace.weights must be [L S]; got {list(arrays['weights'].shape)}; pass one example "
            f"of a batch: jax.tree.map(lambda x: x[0], trace)"
        )
    return arrays


def _first(tokens: Any, count: int) -> Any:
    """The first `count` tokens: the others are padding."""
    if tokens is None or isinstance(tokens, str | bytes) or len(tokens) < count:
        return tokens
    return list(tokens)[:count]


def _decode_json(
    arrays: dict[str, np.ndarray],
    steps: np.ndarray,
    length: int,
    annotations: Any,
    word: Callable[[int], str] | None,
) -> dict[str, Any]:
    """States, contexts, encoder states and the most likely target tokens, as JSON.

    States are stored in full, because the page computes the context from them again.
    """
    decode: dict[str, Any] = {
        "shown": SHOWN,
        "states": array_to_json(arrays["states"][steps], "f32"),
        "contexts": array_to_json(arrays["contexts"][steps], "f32"),
        "candidates": [
            [str(int(i)) if word is None else word(int(i)) for i in row]
            for row in arrays["top_tokens"][steps]
        ],
        "log_probs": array_to_json(arrays["top_log_probs"][steps], "f32"),
        "annotations": None,
    }
    if annotations is not None:
        states = as_numbers("annotations", annotations)
        if (
            states.ndim != 2
            or len(states) < length
            or states.shape[1] != arrays["contexts"].shape[1]
        ):
            raise ValueError(
                f"annotations must be [S E] with S >= {length} and E = "
                f"{arrays['contexts'].shape[1]}, as trace.contexts; got {list(states.shape)}"
            )
        decode["annotations"] = array_to_json(states[:length], "f32")
    return decode
