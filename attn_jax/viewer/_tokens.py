"""Names of rows and columns: any text at all, and which pieces make a word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

WORD_BEGINS = ("▁", "Ġ", " ")
WORD_GOES_ON = "##"


def as_tokens(name: str, tokens: Any, count: int, of: str) -> list[str]:
    """The names as a list of texts; None numbers them.

    Args:
      name: of the argument.
      tokens: texts, or anything that `str` writes.
      count: how many there must be.
      of: what they are the names of, for the message.

    Raises:
      ValueError: there is nothing to name, or not one name each.
      TypeError: the tokens are one text.
    """
    if count == 0:
        raise ValueError(f"{of} is empty (size 0); a view needs at least one query and one key")
    if tokens is None:
        return [str(i) for i in range(count)]
    if isinstance(tokens, str | bytes):
        raise TypeError(f"{name} is one text; pass a list of texts, such as {name}.split()")
    texts = [token if isinstance(token, str) else str(token) for token in tokens]
    if len(texts) != count:
        raise ValueError(
            f"{name} has {len(texts)} entries, {of} has {count}; pass one text for each"
        )
    return texts


def as_words(name: str, words: Sequence[int] | None, tokens: Sequence[str]) -> list[int] | None:
    """The number of the word that each token belongs to, 0, 0, 1, 2, …; None where all are words.

    Where nothing is given, pieces are known by how tokenizers mark them: `▁` or `Ġ` before the
    first piece of a word, or `##` before the others.

    Raises:
      ValueError: the numbers do not count the words of these tokens in order.
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
    if any(token.startswith(WORD_GOES_ON) and token != WORD_GOES_ON for token in tokens[1:]):
        starts = [not token.startswith(WORD_GOES_ON) for token in tokens]
    elif any(token.startswith(WORD_BEGINS) for token in tokens):
        starts = [token.startswith(WORD_BEGINS) or not token[:1].isalnum() for token in tokens]
    else:
        return None
    starts[0] = True
    return None if all(starts) else starts
