"""Which words a translation looked at: attention over word pieces, merged into words and chosen.

Bahdanau et al., "Neural machine translation by jointly learning to align and translate" (2014),
§5.2.1 and fig. 3, https://arxiv.org/abs/1409.0473.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from experiments.data.tokens import pieces
from experiments.training.sentences import Vocabulary

SHARP = 0.5  # a word is read sharply when one source word has at least this weight
EASY_TO_READ = range(6, 21)  # source words of a sentence that fits a figure


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Row t of `weights` says how much of each source word was read to write `generated[t]`."""

    source: tuple[str, ...]
    generated: tuple[str, ...]
    weights: Float[np.ndarray, "T S"]

    def __post_init__(self):
        expected = (len(self.generated), len(self.source))
        if self.weights.shape != expected:
            raise ValueError(
                f"weights has shape {self.weights.shape}, the words say {expected}; pass one row "
                "a generated word and one column a source word"
            )


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Two neighbouring generated words, `row` and `row + 1`, that read neighbours in swapped order.

    `column` is the source word that `row + 1` reads; `row` reads `column + 1`. `sharpness` is the
    smaller of the two weights.
    """

    row: int
    column: int
    sharpness: float


@dataclasses.dataclass(frozen=True)
class Picks:
    """The alignments chosen for a figure, and how they were chosen, in a sentence."""

    alignments: tuple[Alignment, ...]
    rule: str


def merge_pieces(
    weights: Num[np.ndarray, "T S"], source_words: Sequence[int], generated_words: Sequence[int]
) -> Float[np.ndarray, "T_words S_words"]:
    """Attention between words, from attention between their pieces.

    The weights of the pieces of one source word are summed, for reading any piece is reading the
    word; the rows of the pieces of one generated word are averaged. Rows that sum to 1 still do.

    Args:
      weights: one row a generated piece, one column a source piece.
      source_words: for each source piece, the number of its word: 0, 0, 1, 2, 2, …
      generated_words: the same for the generated pieces.

    Raises:
      ValueError: the numbers do not count the words 0, 1, 2, … in order, or do not fit weights.
    """
    columns = _membership("source_words", source_words, weights.shape[1])
    rows = _membership("generated_words", generated_words, weights.shape[0])
    means = rows / rows.sum(axis=0)
    return means.T @ weights.astype(np.float64) @ columns


def word_alignment(
    vocabulary: Vocabulary, source: Sequence[int], target: Sequence[int], weights
) -> Alignment:
    """Attention between pieces as an alignment between words; the row of EOS is left out."""
    source_words, source_labels = group(pieces(vocabulary.english, source))
    target_words, target_labels = group(pieces(vocabulary.french, target))
    merged = merge_pieces(weights[: len(target), : len(source)], source_words, target_words)
    return Alignment(tuple(source_labels), tuple(target_labels), merged)


def group(tokens: Sequence[str]) -> tuple[list[int], list[str]]:
    """The number of each piece's word, and the words.

    A word begins at a space (▁), after an apostrophe, and at every sign that is no letter or digit.

    Example:
      >>> group(["▁l'", "uti", "lisateur", ",", "▁2"])
      ([0, 1, 1, 2, 3], ["l'", 'utilisateur', ',', '2'])
    """
    numbers, words = [], []
    for token in tokens:
        text = token.removeprefix("▁")
        begins = (
            not words
            or token.startswith("▁")
            or not text[:1].isalnum()
            or not words[-1][-1:].isalnum()
        )
        if begins:
            words.append(text)
        else:
            words[-1] += text
        numbers.append(len(words) - 1)
    return numbers, words


def crossings(alignment: Alignment) -> list[Crossing]:
    """Adjective–noun swaps: sharp, neighbouring, content words on both sides, in row order.

    «economic area» → «zone économique» is one: the argmax goes *back* by exactly one source word.
    A content word is made of letters and has at least four, on both sides; this leaves out
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
    """Choose sentences whose alignment crosses, the sharpest crossing first.

    Sentences of EASY_TO_READ length are preferred; a pair of source words that crosses in a picked
    sentence does not count again. Deterministic: ties go to the earlier sentence. Where too few
    sentences cross, the sharpest of the others fill the figure, and the rule says so.

    Args:
      alignments: of the test sentences, in order, between words.
      count: how many to pick at most.

    Returns:
      The picks, crossing ones first, and a sentence for the figure's caption.
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
    return Picks(tuple(alignments[i] for i in picked + filled), rule)


def _membership(name: str, words: Sequence[int], pieces: int) -> Float[np.ndarray, "P W"]:
    steps = np.diff(np.asarray(words, dtype=np.int64), prepend=-1)
    counts_up = all(steps[:1] == 1) and np.isin(steps, (0, 1)).all()
    if len(words) != pieces or not counts_up:
        raise ValueError(
            f"{name}={list(words)} does not number the words of {pieces} pieces; pass one number "
            "a piece, starting with 0 and going up by 0 or 1"
        )
    return np.eye(max(words, default=-1) + 1)[np.asarray(words, dtype=np.int64)]


def _is_content(word: str) -> bool:
    return word.isalpha() and len(word) >= 4


def _rank(alignment: Alignment, found: Sequence[Crossing]) -> tuple[bool, float]:
    sharpest = max((crossing.sharpness for crossing in found), default=0.0)
    mean = float(alignment.weights.max(axis=1).mean())
    return len(alignment.source) not in EASY_TO_READ, -(sharpest or mean)


def _rule(examined: int, crossing: int, picked: int, filled: int) -> str:
    said = (
        f"In {crossing:,} of {examined:,} test sentences two neighbouring content words are read "
        f"in swapped order, each with a weight of at least {SHARP}"
    )
    if picked:
        said += (
            f"; the sharpest such swaps are shown first ({picked}), sentences of "
            f"{EASY_TO_READ[0]} to {EASY_TO_READ[-1]} words before others, each with a swap that "
            "the ones before lack"
        )
    if filled:
        said += f"; the figure is filled up ({filled}) with the sharpest sentences without one"
    return said + "."
