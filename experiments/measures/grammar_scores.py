"""Accuracy of translations of the toy grammar, by phenomenon and by depth."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from experiments.data.grammar_trees import (
    ADJECTIVES,
    NOUNS,
    PARTICIPLES,
    PREPOSITIONS,
    VERBS,
    Preposition,
)
from experiments.data.toy_grammar import PHENOMENA, Sentence, Words
from experiments.measures.alignment_error import alignment_error_rate, hard_links
from experiments.measures.alignments import Alignment

FUNCTION_WORDS: dict[str, Words] = {
    "the": ("le",),
    "a": ("un",),
    "an": ("un",),
    "that": ("qui",),
    "which": ("qui",),
    "was": ("était",),
    "is": ("est",),
    ",": (",",),
}


@dataclasses.dataclass(frozen=True)
class DepthScore:
    """Accuracy of one system on the test sentences with `depth` relative clauses.

    Attributes:
      depth: number of clauses between subject and verb.
      sentences: number of test sentences.
      exact: share of sentences translated word for word.
      phenomena: share of correct spans of each phenomenon that occurs.
    """

    depth: int
    sentences: int
    exact: float
    phenomena: Mapping[str, float]


def score_by_depth(
    sentences: Sequence[Sentence], translations: Sequence[Words]
) -> list[DepthScore]:
    """One score a depth, in order; a span is correct if the translation contains its words."""
    by_depth = defaultdict(list)
    for sentence, translation in zip(sentences, translations, strict=True):
        by_depth[sentence.depth].append((sentence, translation))
    return [_score(depth, pairs) for depth, pairs in sorted(by_depth.items())]


def _score(depth: int, pairs: Sequence[tuple[Sentence, Words]]) -> DepthScore:
    seen, right = Counter(), Counter()
    for sentence, translation in pairs:
        for span in sentence.spans:
            words = sentence.french[span.start : span.stop]
            seen[span.phenomenon] += 1
            right[span.phenomenon] += _contains(translation, words)
    exact = sum(sentence.french == translation for sentence, translation in pairs)
    shares = {kind: right[kind] / seen[kind] for kind in PHENOMENA if seen[kind]}
    return DepthScore(depth, len(pairs), exact / len(pairs), shares)


def _contains(sequence: Words, part: Words) -> bool:
    starts = range(len(sequence) - len(part) + 1)
    return any(sequence[start : start + len(part)] == part for start in starts)


def error_rate(sentences: Sequence[Sentence], alignments: Sequence[Alignment]) -> float:
    """AER over all sentences, each French word linked to the English word of largest weight."""
    found, sure, possible = set(), set(), set()
    for i, (sentence, alignment) in enumerate(zip(sentences, alignments, strict=True)):
        found |= {(i, link) for link in hard_links(alignment.weights)}
        sure |= {(i, link) for link in sentence.sure}
        possible |= {(i, link) for link in sentence.possible}
    return alignment_error_rate(found, sure, possible)


def dictionary() -> dict[str, Words]:
    """The French of each English word: masculine, and in the first sense.

    An entry may be several words (*jumped*: *a sauté*) or none, so that word-by-word translation
    fails only in order, agreement, elision and sense.
    """
    entries: dict[str, Words] = dict(FUNCTION_WORDS)
    for verb in reversed(VERBS):
        entries[verb.english] = (verb.auxiliary, verb.participle)
    entries |= {adjective.english: (adjective.masculine,) for adjective in ADJECTIVES}
    entries |= {word.english: (word.french,) for word in (*NOUNS, *PARTICIPLES)}
    for words in PREPOSITIONS:
        owners = [_owner(words, target) for target in range(len(words.french))]
        for source, english in enumerate(words.english):
            own = (
                french
                for french, owner in zip(words.french, owners, strict=True)
                if owner == source
            )
            entries[english] = tuple(own)
    return entries


def _owner(words: Preposition, target: int) -> int:
    """The English word whose dictionary entry contains this French word of a preposition."""
    sure = [source for t, source in words.sure if t == target]
    return min(sure or [source for t, source in words.possible if t == target])


def word_by_word(entries: Mapping[str, Words], english: Words) -> Words:
    """Each word replaced by its entry, in English order."""
    return tuple(french for word in english for french in entries[word])
