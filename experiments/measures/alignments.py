"""Alignments: attention weights between subwords, merged into words, and which ones to show.

Bahdanau et al., "Neural machine translation by jointly learning to align and translate" (2014),
§5.2.1 and fig. 3, https://arxiv.org/abs/1409.0473.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Num

from experiments.data.tokens import subwords
from experiments.training.sentences import Vocabulary

SHARP = 0.5  # the least weight of a sharp alignment of a word
FIGURE_LENGTHS = range(6, 21)  # source words of a sentence that fits a figure


@dataclasses.dataclass(frozen=True)
class Alignment:
    """`weights[t, s]` is the attention weight from `generated[t]` to `source[s]`.

    Where `masked` is True the pair is masked; None means that no pair is.
    """

    source: tuple[str, ...]
    generated: tuple[str, ...]
    weights: Float[np.ndarray, "T S"]
    masked: Bool[np.ndarray, "T S"] | None = None

    def __post_init__(self):
        expected = (len(self.generated), len(self.source))
        if self.weights.shape != expected:
            raise ValueError(
                f"weights has shape {self.weights.shape}, not {expected} as the words; pass one "
                "row a generated word and one column a source word"
            )


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Generated words `row` and `row + 1` that are aligned with source words in swapped order.

    `row` is aligned with `column + 1`, and `row + 1` with `column`. `sharpness` is the smaller of
    the two weights.
    """

    row: int
    column: int
    sharpness: float


@dataclasses.dataclass(frozen=True)
class Picks:
    """The alignments of a figure, and a sentence about how they were chosen.

    `places` has the place of each in the sequence that it was chosen from.
    """

    alignments: tuple[Alignment, ...]
    rule: str
    places: tuple[int, ...] = ()


def merge_subwords(
    weights: Num[np.ndarray, "T S"], source_words: Sequence[int], generated_words: Sequence[int]
) -> Float[np.ndarray, "T_words S_words"]:
    """Attention weights between words, from those between subwords.

    The weights of the subwords of a source word are summed; the rows of the subwords of a generated
    word are averaged. Rows that sum to 1 still do.

    Args:
      weights: one row a generated subword, one column a source subword.
      source_words: for each source subword, the number of its word: 0, 0, 1, 2, 2, …
      generated_words: the same for the generated subwords.

    Raises:
      ValueError: the numbers are not 0, 1, 2, … in order, or their number does not fit weights.
    """
    columns = _membership("source_words", source_words, weights.shape[1])
    rows = _membership("generated_words", generated_words, weights.shape[0])
    means = rows / rows.sum(axis=0)
    return means.T @ weights.astype(np.float64) @ columns


def word_alignment(
    vocabulary: Vocabulary, source: Sequence[int], target: Sequence[int], weights
) -> Alignment:
    """Attention weights between subwords as an alignment of words, without the row of EOS."""
    source_words, source_labels = group_by_word(subwords(vocabulary.english, source))
    target_words, target_labels = group_by_word(subwords(vocabulary.french, target))
    merged = merge_subwords(weights[: len(target), : len(source)], source_words, target_words)
    return Alignment(tuple(source_labels), tuple(target_labels), merged)


def group_by_word(tokens: Sequence[str]) -> tuple[list[int], list[str]]:
    """The number of each subword's word, and the words.

    A word starts at a space (▁), after an apostrophe, and at every character that is no letter or
    digit.

    Example:
      >>> group_by_word(["▁l'", "uti", "lisateur", ",", "▁2"])
      ([0, 1, 1, 2, 3], ["l'", 'utilisateur', ',', '2'])
    """
    numbers, words = [], []
    for token in tokens:
        text = token.removeprefix("▁")
        starts_word = (
            not words
            or token.startswith("▁")
            or not text[:1].isalnum()
            or not words[-1][-1:].isalnum()
        )
        if starts_word:
            words.append(text)
        else:
            words[-1] += text
        numbers.append(len(words) - 1)
    return numbers, words


def crossings(alignment: Alignment) -> list[Crossing]:
    """Sharp swaps of two neighbouring content words, such as noun and adjective, in row order.

    «economic area» → «zone économique» is one: from one generated word to the next the argmax moves
    *back* by one source word. A content word here consists of four or more letters; this leaves out
    articles, most prepositions and punctuation without a list of words for each language.
    """
    weights, found = alignment.weights, []
    if not weights.size:
        return found
    best = weights.argmax(axis=1)
    for row in range(len(best) - 1):
        column = int(best[row + 1])
        words = (*alignment.generated[row : row + 2], *alignment.source[column : column + 2])
        sharpness = float(min(weights[row, best[row]], weights[row + 1, column]))
        if best[row] == column + 1 and sharpness >= SHARP and all(map(_is_content, words)):
            found.append(Crossing(row, column, sharpness))
    return found


def pick_alignments(alignments: Sequence[Alignment], *, count: int = 4) -> Picks:
    """Chooses sentences whose alignment has a crossing, the sharpest first.

    Sentences with FIGURE_LENGTHS words are preferred, and a pair of source words counts once. Ties
    go to the earlier sentence. If too few sentences have a crossing, the sharpest of the others are
    added, and the rule says so.

    Args:
      alignments: of the test sentences, in order.
      count: the most to choose.

    Returns:
      The alignments, those with a crossing first, and a sentence for the report.
    """
    found = {i: crossings(alignment) for i, alignment in enumerate(alignments)}
    crossing = [i for i in found if found[i]]
    best_first = sorted(crossing, key=lambda i: _rank(alignments[i], found[i]))
    picked, seen = [], set()
    for i in best_first:
        pairs = {alignments[i].source[c.column : c.column + 2] for c in found[i]}
        if len(picked) < count and not pairs <= seen:
            picked.append(i)
            seen |= pairs
    others = sorted(
        (i for i in found if i not in crossing and alignments[i].weights.size),
        key=lambda i: _rank(alignments[i], []),
    )
    filled = others[: count - len(picked)]
    rule = _rule(len(alignments), len(crossing), len(picked), len(filled))
    places = (*picked, *filled)
    return Picks(tuple(alignments[i] for i in places), rule, places)


def _membership(name: str, words: Sequence[int], subword_count: int) -> Float[np.ndarray, "P W"]:
    steps = np.diff(np.asarray(words, dtype=np.int64), prepend=-1)
    counts_up = all(steps[:1] == 1) and np.isin(steps, (0, 1)).all()
    if len(words) != subword_count or not counts_up:
        raise ValueError(
            f"{name}={list(words)} does not number the words of {subword_count} subwords; pass one "
            "number a subword, starting with 0 and increasing by 0 or 1"
        )
    return np.eye(max(words, default=-1) + 1)[np.asarray(words, dtype=np.int64)]


def _is_content(word: str) -> bool:
    return word.isalpha() and len(word) >= 4


def _rank(alignment: Alignment, found: Sequence[Crossing]) -> tuple[bool, float]:
    sharpest = max((crossing.sharpness for crossing in found), default=0.0)
    mean = float(alignment.weights.max(axis=1).mean())
    return len(alignment.source) not in FIGURE_LENGTHS, -(sharpest or mean)


def _rule(examined: int, crossing: int, picked: int, filled: int) -> str:
    rule = (
        f"In {crossing:,} of {examined:,} test sentences two neighbouring content words attend to "
        f"neighbours in swapped order, each with a weight of at least {SHARP}"
    )
    if picked:
        rule += (
            f"; the sharpest such swaps are shown first ({picked}), sentences of "
            f"{FIGURE_LENGTHS[0]} to {FIGURE_LENGTHS[-1]} words before others, each with a swap "
            "that the ones before lack"
        )
    if filled:
        rule += f"; the figure is filled up ({filled}) with the sharpest sentences without one"
    return rule + "."
