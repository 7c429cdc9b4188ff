"""A toy English–French grammar that says the lecture's sentence and knows every true alignment.

English and French are two readings of one tree, and differ the way the languages do: an adjective
changes sides (*black cat*, *chat noir*), one word becomes two (*jumped*, *a sauté*), a participle
agrees with a subject many words back (*la chatte …, est tombée*), a vowel elides (*l'oiseau*,
*d'un*), and one word has two senses (*ran*: the goose *a couru*, the clock *a fonctionné*).

Links are sure or possible, as in Och & Ney, "A Systematic Comparison of Various Statistical
Alignment Models" (2003), https://aclanthology.org/J03-1002. Sure: this word translates that one.
Possible: it is part of that idiom (*à* of *next to*), or owes that noun its gender (article,
adjective, participle).
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

PATIENCE = 500  # draws in a row without a new sentence

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
    """One sentence in both languages; sure links are possible too, and `depth` counts clauses."""

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
    """Draws `size` different sentences, none of them with an English side in `exclude`.

    Args:
      rng: where every choice comes from.
      size: how many sentences.
      depths: numbers of relative clauses, taken in turn.
      exclude: English sentences to leave out: those held out for a test.

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
        if fruitless == PATIENCE:
            raise ValueError(
                f"size={size} different sentences of depths={tuple(depths)} were not found, "
                f"only {len(chosen)}; ask for fewer, or allow deeper ones"
            )
    return list(chosen.values())


def text(words: Sequence[str]) -> str:
    """Writes words as a reader expects them: a capital, no space before a comma or after l'.

    Example:
      >>> text(["l'", "oie", ",", "qui", "dort"])
      "L'oie, qui dort"
    """
    line = " ".join(words).replace(" ,", ",").replace("' ", "'")
    return line[:1].upper() + line[1:]


def realise(tree: Tree) -> Sentence:
    """Says a tree in English and in French, and notes which word translates which.

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
    page = _Page()
    clauses = page.noun_phrase(tree.subject)
    if not all(clause.restrictive for clause in clauses):
        page.both(",", ",")  # all clauses end here, so one comma closes them all
    page.verb(tree.verb, tree.subject.noun, head=len(tree.subject.adjectives) + 1)
    return Sentence(
        english=tuple(page.english),
        french=tuple(page.french),
        sure=frozenset(page.sure),
        possible=frozenset(page.sure | page.possible),
        spans=tuple(page.spans),
        depth=len(clauses),
    )


class _Page:
    """The two lines as they are written, word by word, with the links between them."""

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
            self.say(french, source, head)
        self.say(noun.french, head)
        if self.french[-2] in ("l'", "vieil"):
            self.mark("elision", 2)
        for is_before, french, source in adjectives:
            if not is_before:
                self.say(french, source, head)
                self.mark("crossing", 2)
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
            self.link(source, head)
            return
        if after_de and not definite:
            self.french[-1] = "d'"
        self.say(word, source, head)
        if self.french[-2:-1] == ["d'"]:
            self.mark("elision", 2)

    def clause(self, clause: Clause, antecedent: Noun, head: int) -> list[Clause]:
        if not clause.restrictive:
            self.both(",", ",")
        self.both("that" if clause.restrictive else "which", "qui")
        self.both("is" if clause.present else "was", "est" if clause.present else "était")
        if clause.participle:
            ending = "e" * antecedent.feminine
            self.english.append(clause.participle.english)
            self.say(clause.participle.french + ending, len(self.english) - 1, head)
        source, target, words = len(self.english), len(self.french), clause.preposition
        self.english += words.english
        self.french += words.french
        self.sure |= {(target + t, source + s) for t, s in words.sure}
        self.possible |= {(target + t, source + s) for t, s in words.possible}
        return [clause, *self.noun_phrase(clause.place)]

    def verb(self, verb: Verb, subject: Noun, head: int) -> None:
        """Auxiliary and participle, which show one phenomenon each."""
        self.both(verb.english, verb.auxiliary)
        source = len(self.english) - 1
        if verb.auxiliary == "est":
            self.say(verb.participle + "e" * subject.feminine, source, head)
            self.mark("agreement", 2)
        else:
            self.say(verb.participle, source)
            self.mark("sense" if verb.english == "ran" else "one-to-many", 2)

    def both(self, english: str, french: str) -> None:
        self.english.append(english)
        self.say(french, len(self.english) - 1)

    def say(self, french: str, source: int, head: int | None = None) -> None:
        self.french.append(french)
        self.link(source, head)

    def link(self, source: int, head: int | None = None) -> None:
        """The last French word translates `source`, and agrees with `head`."""
        self.sure.add((len(self.french) - 1, source))
        if head is not None:
            self.possible.add((len(self.french) - 1, head))

    def mark(self, phenomenon: str, length: int) -> None:
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
