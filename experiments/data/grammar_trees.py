"""The words and trees of the toy grammar, and how a tree is drawn.

A probabilistic context-free grammar whose only recursion is the relative clause, so the number of
clauses between a subject and its verb (Linzen et al., "Assessing the Ability of LSTMs to Learn
Syntax-Sensitive Dependencies" (2016), https://arxiv.org/abs/1611.01368) is an argument of `draw`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["animal", "machine", "place"]


class Noun(NamedTuple):
    """A noun. Its gender decides article, adjective and participle; its kind decides the verbs."""

    english: str
    french: str
    feminine: bool
    kind: Kind


class Adjective(NamedTuple):
    """An adjective; most follow the French noun, and *vieux* becomes *vieil* before a vowel."""

    english: str
    masculine: str
    feminine: str
    before: bool = False
    before_vowel: str | None = None


class Verb(NamedTuple):
    """An intransitive verb; its participle agrees with the subject if the auxiliary is *être*."""

    english: str
    participle: str
    auxiliary: Literal["a", "est"]
    subjects: tuple[Kind, ...]


class Participle(NamedTuple):
    """A participle for subjects of some kinds; in French it agrees: *assis*, *assise*."""

    english: str
    french: str
    subjects: tuple[Kind, ...]


class Preposition(NamedTuple):
    """A preposition of place, with its (French position, English position) links."""

    english: tuple[str, ...]
    french: tuple[str, ...]
    sure: tuple[tuple[int, int], ...]
    possible: tuple[tuple[int, int], ...]
    objects: tuple[Kind, ...]


@dataclasses.dataclass(frozen=True)
class NounPhrase:
    """*the small black cat that was …*: its clause contains the next noun phrase, and so on."""

    noun: Noun
    definite: bool = True
    adjectives: tuple[Adjective, ...] = ()
    clause: "Clause | None" = None


@dataclasses.dataclass(frozen=True)
class Clause:
    """*that was sitting on …*; *, which …* if not `restrictive`; *is* if `present`."""

    preposition: Preposition
    place: NounPhrase
    participle: Participle | None = None
    restrictive: bool = True
    present: bool = False


@dataclasses.dataclass(frozen=True)
class Tree:
    """A sentence: a subject and a verb."""

    subject: NounPhrase
    verb: Verb


NOUNS = (
    Noun("cat", "chat", False, "animal"),
    Noun("she-cat", "chatte", True, "animal"),
    Noun("dog", "chien", False, "animal"),
    Noun("rabbit", "lapin", False, "animal"),
    Noun("bird", "oiseau", False, "animal"),
    Noun("mouse", "souris", True, "animal"),
    Noun("hen", "poule", True, "animal"),
    Noun("goose", "oie", True, "animal"),
    Noun("engine", "moteur", False, "machine"),
    Noun("computer", "ordinateur", False, "machine"),
    Noun("clock", "horloge", True, "machine"),
    Noun("radio", "radio", True, "machine"),
    Noun("mat", "tapis", False, "place"),
    Noun("bed", "lit", False, "place"),
    Noun("bench", "banc", False, "place"),
    Noun("tree", "arbre", False, "place"),
    Noun("table", "table", True, "place"),
    Noun("chair", "chaise", True, "place"),
    Noun("box", "boîte", True, "place"),
    Noun("ladder", "échelle", True, "place"),
)
ADJECTIVES = (
    Adjective("small", "petit", "petite", before=True),
    Adjective("old", "vieux", "vieille", before=True, before_vowel="vieil"),
    Adjective("black", "noir", "noire"),
    Adjective("white", "blanc", "blanche"),
    Adjective("green", "vert", "verte"),
    Adjective("red", "rouge", "rouge"),
)
VERBS = (
    Verb("jumped", "sauté", "a", ("animal",)),
    Verb("slept", "dormi", "a", ("animal",)),
    Verb("ran", "couru", "a", ("animal",)),
    Verb("ran", "fonctionné", "a", ("machine",)),
    Verb("moved", "bougé", "a", ("animal", "machine")),
    Verb("fell", "tombé", "est", ("animal", "machine")),
    Verb("stayed", "resté", "est", ("animal", "machine")),
    Verb("arrived", "arrivé", "est", ("animal", "machine")),
    Verb("left", "parti", "est", ("animal",)),
)
PARTICIPLES = (
    Participle("sitting", "assis", ("animal",)),
    Participle("lying", "couché", ("animal",)),
    Participle("hidden", "caché", ("animal", "machine", "place")),
)
_ANY = ("animal", "machine", "place")
PREPOSITIONS = (
    Preposition(("on",), ("sur",), ((0, 0),), (), ("place",)),
    Preposition(("under",), ("sous",), ((0, 0),), (), ("place",)),
    Preposition(("behind",), ("derrière",), ((0, 0),), (), _ANY),
    Preposition(("near",), ("près", "de"), ((0, 0),), ((1, 0),), _ANY),
    Preposition(("next", "to"), ("à", "côté", "de"), ((1, 0), (2, 1)), ((0, 0), (0, 1)), _ANY),
    Preposition(("in", "front", "of"), ("devant",), ((0, 1),), ((0, 0), (0, 2)), _ANY),
)


def draw(rng: np.random.Generator, depth: int) -> Tree:
    """Draws a sentence whose subject has `depth` nested relative clauses.

    Example:
      >>> tree = draw(np.random.default_rng(0), 1)
      >>> tree.subject.noun.kind in tree.verb.subjects, tree.subject.clause.place.clause
      (True, None)
    """
    kind: Kind = _pick(rng, ("animal", "machine"))
    subject = _draw_noun_phrase(rng, (kind,), depth)
    return Tree(subject, _pick(rng, [verb for verb in VERBS if kind in verb.subjects]))


def _pick[Option](rng: np.random.Generator, options: Sequence[Option]) -> Option:
    return options[int(rng.integers(len(options)))]


def _draw_noun_phrase(rng: np.random.Generator, kinds: Sequence[Kind], depth: int) -> NounPhrase:
    noun = _pick(rng, [noun for noun in NOUNS if noun.kind in kinds])
    sides = [[word for word in ADJECTIVES if word.before is before] for before in (True, False)]
    adjectives = tuple(_pick(rng, side) for side in sides if rng.random() < 0.25)
    clause = _draw_clause(rng, noun, depth) if depth else None
    return NounPhrase(noun, bool(rng.random() < 0.75), adjectives, clause)


def _draw_clause(rng: np.random.Generator, noun: Noun, depth: int) -> Clause:
    preposition = _pick(rng, PREPOSITIONS)
    participles = [word for word in PARTICIPLES if noun.kind in word.subjects]
    return Clause(
        preposition,
        _draw_noun_phrase(rng, preposition.objects, depth - 1),
        participle=_pick(rng, participles) if rng.random() < 0.5 else None,
        restrictive=bool(rng.random() < 0.5),
        present=bool(rng.random() < 0.5),
    )


def _lecture() -> Tree:
    nouns = {noun.english: noun for noun in NOUNS}
    places = {preposition.english[0]: preposition for preposition in PREPOSITIONS}
    beside = Clause(places["next"], NounPhrase(nouns["dog"]), restrictive=False)
    on = Clause(places["on"], NounPhrase(nouns["mat"], clause=beside), PARTICIPLES[0])
    return Tree(NounPhrase(nouns["cat"], clause=on), VERBS[0])


LECTURE = _lecture()
"""*The cat that was sitting on the mat, which was next to the dog, jumped*."""
