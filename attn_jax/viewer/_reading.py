"""One thing to look at: who reads whom, in every head, and what goes with it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from attn_jax.viewer._pack import pack, pool

OVERVIEW = 512  # cells on a side of the picture of a long head
THUMBNAIL = 64  # the same where a page draws whole heads by itself
STEPS = 254  # of an overview's eight bits; the one above is NaN


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a page shows of one model on one input.

    Attributes:
      name: over the picture.
      queries: one text a row.
      keys: one text a column.
      query_words: the word of each query, or None.
      key_words: the word of each key, or None.
      is_self: whether queries and keys are the same tokens, so that there are distances.
      sizes: how many layers and heads.
      content: the numbers, ready for JSON.
      entropy: bits of a row in the mean, [L N].
      distance: tokens between query and key in the mean, [L N], or None.
      weights: those of a layer and head, [T S], computed when asked for.
      may_read: the mask of a layer and head, [T S], or None where all may be read.
      notes: what a reader must know of the numbers, a sentence each.
      decode: states and contexts of an encoder–decoder, ready for JSON, or None.
      measures: other quantities of the same shape, ready for JSON.
    """

    name: str
    queries: list[str]
    keys: list[str]
    query_words: list[int] | None
    key_words: list[int] | None
    is_self: bool
    sizes: tuple[int, int]
    content: dict[str, Any]
    entropy: list[list[float | None]]
    distance: list[list[float | None]] | None
    weights: Callable[[int, int], np.ndarray]
    may_read: Callable[[int, int], np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    decode: dict[str, Any] | None = None
    measures: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it but what only Python needs."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["weights"], fields["may_read"]
        return fields


def pack_overview(pictures: np.ndarray) -> dict[str, Any]:
    """Pooled weights [L N P Q] in eight bits: ⌈254 √w⌉, so that nothing above 0 becomes 0."""
    known = np.nan_to_num(np.clip(pictures, 0, 1))
    steps = np.ceil(STEPS * np.sqrt(known) - 1e-9)
    return pack(np.where(np.isfinite(pictures), steps, STEPS + 1), "u8")


def overview_side(T: int, S: int) -> int:
    """How many cells on a side of the picture that a page is given of a head."""
    return OVERVIEW if max(T, S) > OVERVIEW else THUMBNAIL


def pooled(weights: np.ndarray) -> np.ndarray:
    """One head's weights [T S] as its picture."""
    return pool(weights, overview_side(*weights.shape))


def pooling(T: int, S: int) -> tuple[str, ...]:
    """What a reader must know of the picture of a long head."""
    if max(T, S) <= OVERVIEW:
        return ()
    block = f"{-(-T // OVERVIEW)} × {-(-S // OVERVIEW)}"
    return (
        f"Each point of the picture is the greatest of up to {block} weights, so no spike is lost; "
        "the row under the pointer is whole.",
    )
