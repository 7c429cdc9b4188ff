"""The data that a page shows of one model's attention on one input."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, repr=False)
class AttentionRecord:
    """Tokens, weights and statistics of all heads of one model on one input.

    Attributes:
      name: the title above the picture.
      queries: the text of each query, a row of the matrix.
      keys: the text of each key, a column of the matrix.
      query_words: the word number of each query, or None where each token is a word.
      key_words: the word number of each key, or None where each token is a word.
      is_self: whether queries and keys are the same tokens, so that distances are defined.
      sizes: the number of layers and of heads in a layer.
      content: the attention arrays, ready for JSON, in one of three forms: "dense" (all weights),
        "top" (the greatest of each row) or "qk" (queries and keys).
      entropy: bits of a row, averaged over rows, [L N].
      distance: tokens between query and key, averaged over rows, [L N]; None unless `is_self`.
      weights: a function from layer and head to weights [T S].
      mask: a function from layer and head to the mask [T S], or None without a mask.
      notes: sentences for the page's footer, such as how far numbers were rounded.
      decode: states and contexts of an encoder–decoder, ready for JSON, or None.
      measures: other quantities [T S], ready for JSON.
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
    mask: Callable[[int, int], np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    decode: dict[str, Any] | None = None
    measures: tuple[dict[str, Any], ...] = ()

    @property
    def size_text(self) -> str:
        """The numbers of queries, keys, layers and heads, in words."""
        layers, heads = self.sizes
        sides = f"{_count(len(self.queries), 'query')} × {_count(len(self.keys), 'key')}"
        if layers * heads == 1:
            return sides
        return f"{sides}, {_count(layers, 'layer')} × {_count(heads, 'head')}"

    def __repr__(self) -> str:
        return f"AttentionRecord({self.name[:60]!r}: {self.size_text})"

    def as_json(self) -> dict[str, Any]:
        """All fields except the two functions."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["weights"], fields["mask"]
        return fields


def _count(number: int, word: str) -> str:
    plural = {"query": "queries"}.get(word, f"{word}s")
    return f"{number} {word if number == 1 else plural}"
