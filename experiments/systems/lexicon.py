"""Word-by-word translation: what a model must beat to have learnt more than a dictionary.

IBM model 1 (Brown et al., "The Mathematics of Statistical Machine Translation" (1993), §4.1,
https://aclanthology.org/J93-2003): every target word is drawn from one source word, each source
position being equally likely; expectation–maximisation finds the table t(target | source).
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

_NULL = ""


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """A dictionary with one target word for each source word.

    Attributes:
      table: the best target word of each source word.
      log_likelihood: log-probability of the training targets before each EM step and at the end;
        it never falls.
    """

    table: dict[str, str]
    log_likelihood: tuple[float, ...]

    def translate(self, words: Sequence[str]) -> list[str]:
        """The best target word of each source word, in source order; unknown words are copied.

        Args:
          words: source tokens, as `experiments._words.tokenize` gives them.

        Returns:
          As many target tokens.

        Example:
          >>> Lexicon({"the": "la", "house": "maison"}, ()).translate(["the", "red", "house"])
          ['la', 'red', 'maison']
        """
        return [self.table.get(word, word) for word in words]


def train_lexicon(
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]],
    *,
    iterations: int = 10,
    null_word: bool = True,
    one_to_one: bool = False,
) -> Lexicon:
    r"""Fits IBM model 1 and keeps the best target word of each source word.

    Brown et al. (1993), eqs. 13–16.  With S source words (and the empty word, if there is one):

      p(target | source) ∝ Π_j Σ_i t(target_j | source_i) / S

    Args:
      pairs: (source tokens, target tokens), lower-cased.
      iterations: EM steps.
      null_word: let target words also come from an empty source word.
      one_to_one: give each target word to at most one source word, greedily by expected count
        (competitive linking: Melamed, "Models of Translational Equivalence" (2000),
        https://aclanthology.org/J00-2004); source words that go without one are then copied.

    Returns:
      The lexicon.

    Raises:
      ValueError: there are no pairs, a side is empty, or `iterations` is below 1.

    Cost:
      Time and memory O(Σ S·T) over the pairs; an EM step is four passes of numpy over that.

    Example:
      >>> pairs = [("the house", "la maison"), ("the book", "le livre"), ("a book", "un livre")]
      >>> lexicon = train_lexicon([(a.split(), b.split()) for a, b in pairs], null_word=False)
      >>> lexicon.translate(["book"])
      ['livre']
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1")
    links = _Links.of(pairs, null_word)
    table, likelihood = links.uniform(), []
    for _ in range(iterations):
        counts, log_probability = links.expect(table)
        likelihood.append(log_probability)
        table = links.maximise(counts)
    counts, log_probability = links.expect(table)
    best = _dictionary(links, counts if one_to_one else table, one_to_one)
    return Lexicon(best, (*likelihood, log_probability))


@dataclasses.dataclass(frozen=True)
class _Links:
    """Every way for a target word to come from a source word of its own sentence.

    L links run over all sentences; C cells are the distinct (source word, target word) of them.
    """

    source_words: list[str]
    target_words: list[str]
    cell: Int[np.ndarray, " L"]  # the cell of each link
    slot: Int[np.ndarray, " L"]  # which target position of which sentence it explains
    log_choices: float  # Σ over target positions of log S
    cell_source: Int[np.ndarray, " C"]
    cell_target: Int[np.ndarray, " C"]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Sequence[str], Sequence[str]]], null_word: bool) -> "_Links":
        source_ids: dict[str, int] = {}
        target_ids: dict[str, int] = {}
        sources, targets, slots, first_slot, log_choices = [], [], [], 0, 0.0
        for number, (source, target) in enumerate(pairs):
            if not (source and target):
                raise ValueError(f"pair {number} has an empty side: {source!r}, {target!r}")
            source = [_NULL, *source] if null_word else source
            row = np.array([source_ids.setdefault(word, len(source_ids)) for word in source])
            column = np.array([target_ids.setdefault(word, len(target_ids)) for word in target])
            sources.append(np.tile(row, len(column)))
            targets.append(np.repeat(column, len(row)))
            slots.append(np.repeat(np.arange(first_slot, first_slot + len(column)), len(row)))
            first_slot += len(column)
            log_choices += len(column) * float(np.log(len(row)))
        if not sources:
            raise ValueError("pairs is empty: a lexicon needs at least one sentence pair")
        code = np.concatenate(sources) * len(target_ids) + np.concatenate(targets)
        cells, cell = np.unique(code, return_inverse=True)
        cell_source, cell_target = np.divmod(cells, len(target_ids))
        words = list(source_ids), list(target_ids)
        return cls(*words, cell, np.concatenate(slots), log_choices, cell_source, cell_target)

    def uniform(self) -> Float[np.ndarray, " C"]:
        return np.full(len(self.cell_source), 1 / len(self.target_words))

    def expect(self, table: Float[np.ndarray, " C"]) -> tuple[Float[np.ndarray, " C"], float]:
        """Expected count of each cell, and the log-probability of the targets (eqs. 13 and 15)."""
        link = table[self.cell]
        slot = np.bincount(self.slot, link)
        counts = np.bincount(self.cell, link / slot[self.slot], len(table))
        return counts, float(np.log(slot).sum()) - self.log_choices

    def maximise(self, counts: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
        """t(target | source) from expected counts (eq. 14)."""
        return counts / np.bincount(self.cell_source, counts)[self.cell_source]


def _dictionary(
    links: _Links, preference: Float[np.ndarray, " C"], one_to_one: bool
) -> dict[str, str]:
    """Each source word's best cell, the best cells of all first; of equals, the word met first."""
    table: dict[str, str] = {}
    taken: set[str] = set()
    for cell in np.lexsort((links.cell_target, -preference)):
        source = links.source_words[links.cell_source[cell]]
        target = links.target_words[links.cell_target[cell]]
        if source != _NULL and source not in table and target not in taken:
            table[source] = target
            if one_to_one:
                taken.add(target)
    return table
