"""The texts of tokens, and the word number of each token."""

from collections.abc import Sequence
from typing import Any

import numpy as np

WORD_STARTS = ("▁", "Ġ", " ")
WORD_CONTINUES = "##"


def as_tokens(name: str, tokens: Any, count: int, of: str) -> list[str]:
    """The texts of the tokens as a list; None gives the numbers 0, 1, 2, … as texts.

    Args:
      name: the name of the argument, for error messages.
      tokens: texts, or objects that `str` converts.
      count: the expected number of tokens.
      of: the axis that the tokens belong to, for error messages.

    Raises:
      ValueError: `count` is 0, or there are not `count` tokens.
      TypeError: `tokens` is a single text.
    """
    if count == 0:
        raise ValueError(f"{of} is empty (size 0); a view needs at least one query and one key")
    if tokens is None:
        return [str(i) for i in range(count)]
    if isinstance(tokens, str | bytes):
        raise TypeError(f"{name} is a single text; pass a list of texts, such as {name}.split()")
    texts = [token if isinstance(token, str) else str(token) for token in tokens]
    if len(texts) != count:
        raise ValueError(
            f"{name} has {len(texts)} entries, {of} has {count}; pass one text for each"
        )
    return texts


def as_words(name: str, words: Sequence[int] | None, tokens: Sequence[str]) -> list[int] | None:
    """The word number of each token, 0, 0, 1, 2, …; None where each token is a word.

    By default, subwords are recognised by the marks of tokenizers: `▁` or `Ġ` before the first
    subword of a word, or `##` before the others.

    Raises:
      ValueError: the numbers do not start at 0 and rise by 0 or 1, one for each token.
    """
    if words is None:
        starts = _marked_starts(tokens)
        return None if starts is None else (np.cumsum(starts) - 1).tolist()
    numbers = [int(word) for word in words]
    steps = np.diff(numbers, prepend=-1)
    if len(numbers) != len(tokens) or steps[0] != 1 or not np.isin(steps, (0, 1)).all():
        raise ValueError(
            f"{name} must number the word of each of the {len(tokens)} tokens: 0 first, then the "
            f"same or one more; got {numbers[:12]}"
        )
    return numbers


def _marked_starts(tokens: Sequence[str]) -> list[bool] | None:
    if any(token.startswith(WORD_CONTINUES) and token != WORD_CONTINUES for token in tokens[1:]):
        starts = [not token.startswith(WORD_CONTINUES) for token in tokens]
    elif any(token.startswith(WORD_STARTS) for token in tokens):
        starts = [token.startswith(WORD_STARTS) or not token[:1].isalnum() for token in tokens]
    else:
        return None
    starts[0] = True
    return None if all(starts) else starts
