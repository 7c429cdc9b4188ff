"""A toy English–French grammar of the lecture's sentence, with the true alignment of each sentence.

Both sentences are made from one tree, and differ as the languages do: an adjective changes sides
(*black cat*, *chat noir*), one word becomes two (*jumped*, *a sauté*), a participle agrees with a
subject many words back (*la chatte …, est tombée*), a vowel elides (*l'oiseau*, *d'un*), and one
word has two senses (*ran*: the goose *a couru*, the clock *a fonctionné*).

Links are sure or possible, as in Och & Ney, "A Systematic Comparison of Various Statistical
Alignment Models" (2003), https://aclanthology.org/J03-1002. Sure: the
French word translates the English word. Possible: it is part of an idiom (*à* of *next to*), or has
the gender of that noun (article, adjective, participle).
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data.grammar_trees import (
    LECTURE,
    Adjective,
    Clause,
    Noun,
    NounPhrase,
    Tree,
    Verb,
    draw,
)

__all__ = ["LECTURE", "PHENOMENA", "Sentence", "Span", "Words", "realise", "sample", "text"]

MOST_REPEATS = 500  # draws in a row without a new sentence

type Words = tuple[str, ...]
type Link = tuple[int, int]
"""(target position, source position): the index of that pair in `weights[T, S]`."""

PHENOMENA = ("crossing", "one-to-many", "agreement", "elision", "sense")


class Span(NamedTuple):
    """The French words `start:stop` show one of `PHENOMENA`."""

    phenomenon: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence in both languages; `possible` contains `sure`, and `depth` counts clauses."""

    english: Words
    french: Words
    sure: frozenset[Link]
    possible: frozenset[Link]
    spans: tuple[Span, ...]
    depth: int


def sample(
    rng: np.random.Generator,
    size: int,
    depths: Sequence[int],
    *,
    exclude: Collection[Words] = (),
) -> list[Sentence]:
    """Draws `size` different sentences whose English side is not in `exclude`.

    Args:
      rng: source of randomness.
      size: number of sentences.
      depths: numbers of relative clauses, used in turn.
      exclude: English sentences to leave out, such as test sentences.

    Raises:
      ValueError: the grammar has too few sentences of these depths.

    Example:
      >>> held_out = realise(LECTURE).english
      >>> for sentence in sample(np.random.default_rng(5), 2, (0, 1), exclude={held_out}):
      ...     print(text(sentence.french))
      La radio est arrivée
      Le chien blanc, qui était assis sur le tapis, est parti
    """
    chosen: dict[Words, Sentence] = {}
    fruitless = 0
    for depth in itertools.cycle(depths):
        if len(chosen) == size:
            break
        sentence = realise(draw(rng, depth))
        fruitless += 1
        if sentence.english not in chosen and sentence.english not in exclude:
            chosen[sentence.english] = sentence
            fruitless = 0
        if fruitless == MOST_REPEATS:
            raise ValueError(
                f"size={size} different sentences of depths={tuple(depths)} were not found, "
                f"only {len(chosen)}; lower size, or add larger depths"
            )
    return list(chosen.values())


def text(words: Sequence[str]) -> str:
    """Words as a line of text: a capital first, no space before a comma or after l'.

    Example:
      >>> text(["l'", "oie", ",", "qui", "dort"])
      "L'oie, qui dort"
    """
    line = " ".join(words).replace(" ,", ",").replace("' ", "'")
    return line[:1].upper() + line[1:]


def realise(tree: Tree) -> Sentence:
    """A tree as an English and a French sentence, with the links between their words.

    Example:
      >>> sentence = realise(LECTURE)
      >>> text(sentence.english)
      'The cat that was sitting on the mat, which was next to the dog, jumped'
      >>> text(sentence.french)
      'Le chat qui était assis sur le tapis, qui était à côté du chien, a sauté'
      >>> jumped = sentence.english.index("jumped")
      >>> [sentence.french[target] for target, source in sorted(sentence.sure) if source == jumped]
      ['a', 'sauté']
    """
    pair = _SentencePair()
    clauses = pair.noun_phrase(tree.subject)
    if not all(clause.restrictive for clause in clauses):
        pair.add_both(",", ",")  # all clauses end here, so one comma closes them all
    pair.verb(tree.verb, tree.subject.noun, head=len(tree.subject.adjectives) + 1)
    return Sentence(
        english=tuple(pair.english),
        french=tuple(pair.french),
        sure=frozenset(pair.sure),
        possible=frozenset(pair.sure | pair.possible),
        spans=tuple(pair.spans),
        depth=len(clauses),
    )


class _SentencePair:
    """Both sentences while they are built word by word, with their links and spans."""

    def __init__(self) -> None:
        self.english: list[str] = []
        self.french: list[str] = []
        self.sure: set[Link] = set()
        self.possible: set[Link] = set()
        self.spans: list[Span] = []

    def noun_phrase(self, phrase: NounPhrase) -> list[Clause]:
        noun, article = phrase.noun, len(self.english)
        head = article + len(phrase.adjectives) + 1
        words = [*(adjective.english for adjective in phrase.adjectives), noun.english]
        self.english += [_english_article(phrase.definite, words[0]), *words]
        adjectives = [
            (word.before, _agree(word, noun), source)
            for source, word in enumerate(phrase.adjectives, article + 1)
        ]
        before = [(french, source) for is_before, french, source in adjectives if is_before]
        first = before[0][0] if before else noun.french
        self.article(phrase.definite, noun.feminine, first, article, head)
        for french, source in before:
            self.add_french(french, source, head)
        self.add_french(noun.french, head)
        if self.french[-2] in ("l'", "vieil"):
            self.add_span("elision", 2)
        for is_before, french, source in adjectives:
            if not is_before:
                self.add_french(french, source, head)
                self.add_span("crossing", 2)
        return self.clause(phrase.clause, noun, head) if phrase.clause else []

    def article(
        self, definite: bool, feminine: bool, following: str, source: int, head: int
    ) -> None:
        word = ("la" if feminine else "le") if definite else ("une" if feminine else "un")
        if definite and _starts_with_vowel(following):
            word = "l'"
        after_de = self.french[-1:] == ["de"]
        if after_de and word == "le":  # de + le is one word, which translates both
            self.french[-1] = "du"
            self.add_link(source, head)
            return
        if after_de and not definite:
            self.french[-1] = "d'"
        self.add_french(word, source, head)
        if self.french[-2:-1] == ["d'"]:
            self.add_span("elision", 2)

    def clause(self, clause: Clause, antecedent: Noun, head: int) -> list[Clause]:
        if not clause.restrictive:
            self.add_both(",", ",")
        self.add_both("that" if clause.restrictive else "which", "qui")
        self.add_both("is" if clause.present else "was", "est" if clause.present else "était")
        if clause.participle:
            ending = "e" * antecedent.feminine
            self.english.append(clause.participle.english)
            self.add_french(clause.participle.french + ending, len(self.english) - 1, head)
        source, target, words = len(self.english), len(self.french), clause.preposition
        self.english += words.english
        self.french += words.french
        self.sure |= {(target + t, source + s) for t, s in words.sure}
        self.possible |= {(target + t, source + s) for t, s in words.possible}
        return [clause, *self.noun_phrase(clause.place)]

    def verb(self, verb: Verb, subject: Noun, head: int) -> None:
        """Auxiliary and participle, which show one phenomenon each."""
        self.add_both(verb.english, verb.auxiliary)
        source = len(self.english) - 1
        if verb.auxiliary == "est":
            self.add_french(verb.participle + "e" * subject.feminine, source, head)
            self.add_span("agreement", 2)
        else:
            self.add_french(verb.participle, source)
            self.add_span("sense" if verb.english == "ran" else "one-to-many", 2)

    def add_both(self, english: str, french: str) -> None:
        self.english.append(english)
        self.add_french(french, len(self.english) - 1)

    def add_french(self, french: str, source: int, head: int | None = None) -> None:
        self.french.append(french)
        self.add_link(source, head)

    def add_link(self, source: int, head: int | None = None) -> None:
        """Links the last French word to the word it translates and to the noun it agrees with."""
        self.sure.add((len(self.french) - 1, source))
        if head is not None:
            self.possible.add((len(self.french) - 1, head))

    def add_span(self, phenomenon: str, length: int) -> None:
        self.spans.append(Span(phenomenon, len(self.french) - length, len(self.french)))


def _english_article(definite: bool, following: str) -> str:
    if definite:
        return "the"
    return "an" if following[0] in "aeiou" else "a"


def _agree(adjective: Adjective, noun: Noun) -> str:
    if noun.feminine:
        return adjective.feminine
    if adjective.before_vowel and _starts_with_vowel(noun.french):
        return adjective.before_vowel
    return adjective.masculine


def _starts_with_vowel(french: str) -> bool:
    return french[0] in "aeiouéh"  # every h of this vocabulary is mute
