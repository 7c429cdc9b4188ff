"""Sequence tasks with one difficulty each: copying, reversing, agreement at a distance.

Copy and reverse are common tests of the memory of recurrent networks (Graves et al., "Neural
Turing Machines" (2014), §4.1, https://arxiv.org/abs/1410.5401); agreement is that of Linzen et al.
(2016), https://arxiv.org/abs/1611.01368. `digits` is the data of the Transformer tutorial of the
University of Amsterdam's Deep Learning course.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from experiments.data.grammar_trees import draw
from experiments.data.toy_grammar import Words, realise

DIGITS_SEED = 42


class Item(NamedTuple):
    """A source and its target; `size` is the number of symbols or of relative clauses."""

    source: Words
    target: Words
    size: int


def copies(
    rng: np.random.Generator, count: int, lengths: Sequence[int], symbols: int
) -> list[Item]:
    """Sequences of different symbols; the target equals the source.

    No symbol occurs twice, so each position is identified by its symbol.

    Args:
      rng: source of randomness.
      count: number of items.
      lengths: used in turn.
      symbols: size of the alphabet.

    Raises:
      ValueError: a length exceeds the alphabet.

    Example:
      >>> copies(np.random.default_rng(0), 1, (3,), symbols=9)
      [Item(source=('s4', 's5', 's2'), target=('s4', 's5', 's2'), size=3)]
    """
    if max(lengths) > symbols:
        raise ValueError(f"lengths up to {max(lengths)} need as many symbols, got {symbols}")
    items = []
    for i in range(count):
        length = lengths[i % len(lengths)]
        words = tuple(f"s{symbol}" for symbol in rng.permutation(symbols)[:length])
        items.append(Item(words, words, length))
    return items


def backwards(items: Sequence[Item]) -> list[Item]:
    """The same sequences with reversed targets.

    Example:
      >>> backwards([Item(("a", "b", "c"), ("a", "b", "c"), 3)])[0].target
      ('c', 'b', 'a')
    """
    return [item._replace(target=item.source[::-1]) for item in items]


def digits(rows: int, columns: int = 16) -> Int[np.ndarray, "rows columns"]:
    """The tutorial's "reverse" data: ten symbols with repeats, in rows of any length.

    Example:
      >>> digits(50_000)[0].tolist()
      [0, 7, 6, 4, 4, 8, 0, 6, 2, 0, 5, 9, 7, 7, 7, 7]
    """
    return np.random.default_rng(DIGITS_SEED).integers(10, size=(rows, columns))


def digit_copies(rows: Int[np.ndarray, "rows columns"], lengths: Sequence[int]) -> list[Item]:
    """The beginnings of rows as source and as target; lengths are used in turn.

    Example:
      >>> [item.source for item in digit_copies(digits(2), (4, 2))]
      [('0', '7', '6', '4'), ('5', '1')]
    """
    items = []
    for i, row in enumerate(rows.tolist()):
        words = tuple(str(digit) for digit in row[: lengths[i % len(lengths)]])
        items.append(Item(words, words, len(words)))
    return items


def agreements(rng: np.random.Generator, count: int, depths: Sequence[int]) -> list[Item]:
    """Sentences of the grammar; the target is the French verb alone: *est tombée*.

    Relative clauses with nouns of either gender separate the verb from the subject that its
    participle agrees with. All verbs have the auxiliary *être*, so all participles agree.

    Args:
      rng: source of randomness.
      count: number of items.
      depths: numbers of relative clauses, used in turn; the `size` of an item.

    Example:
      >>> item = agreements(np.random.default_rng(1), 1, (1,))[0]
      >>> print(*item.source, "→", *item.target)
      a computer that is on the small white tree stayed → est resté
    """
    items = []
    while len(items) < count:
        depth = depths[len(items) % len(depths)]
        tree = draw(rng, depth)
        if tree.verb.auxiliary == "est":
            sentence = realise(tree)
            items.append(Item(sentence.english, sentence.french[-2:], depth))
    return items
