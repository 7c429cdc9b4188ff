"""Parallel corpora, split by page, and rules that select a part of them.

A fifth of the sentences of a manual have a near-duplicate on the same page, so scores on a split by
sentence are too high. Here the hash of a page's (or act's) name puts the whole page into train,
validation or test; only Multi30k has splits of its own.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.data.text_files import find_file, read_lines, read_table
from experiments.data.words import words

DOCS_FOLDER = Path(__file__).parent
# Of 100 pages, how many go to test and how many to validation.
_TEST_PERCENT, _VALIDATION_PERCENT = 7, 4
_MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
_LANGUAGES = ("en", "fr")
_WHERE = {
    "docs": "rebuild it with `.venv/bin/python -m experiments.data.build_docs_corpus`",
    "multi30k": "get data/task1/raw of https://github.com/multi30k/dataset",
    "acts": (
        "make it (act, English, French, separated by tabs) from the XML files of "
        "https://github.com/justicecanada/laws-lois-xml"
    ),
}


class Pair(NamedTuple):
    """A sentence, its translation, and their page (an act in `acts`, empty in Multi30k)."""

    source: str
    target: str
    page: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """English sentences and their French translations.

    Attributes:
      name: the argument of `load_corpus`.
      train: the training pairs.
      validation: the validation pairs.
      test: the test pairs.
      licence: of the text.
      note: sentences about its source, its splits and what was left out.
    """

    name: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    licence: str
    note: str


@dataclasses.dataclass(frozen=True)
class SubsetRule:
    """A rule that keeps short sentences of frequent words; it depends on the source side alone.

    Attributes:
      min_words: the fewest words of a source sentence.
      max_words: the most words of a source sentence.
      frequent_words: the number of most frequent words of the training sources; a source with any
        other word is left out. None keeps every word.
      max_train: the most training pairs, chosen by a hash; None keeps all.

    Raises:
      ValueError: a number is not positive, or `min_words` is above `max_words`.

    Example:
      >>> str(SubsetRule(4, 24, frequent_words=2500))
      'sources of 4 to 24 words, all among the 2,500 most frequent words of the training sources'
    """

    min_words: int = 1
    max_words: int = 10_000
    frequent_words: int | None = None
    max_train: int | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words={self.min_words} is above max_words={self.max_words}: no sentence fits"
            )

    def __str__(self) -> str:
        text = f"sources of {self.min_words} to {self.max_words} words"
        if self.frequent_words is not None:
            text += (
                f", all among the {self.frequent_words:,} most frequent words of the training "
                "sources"
            )
        if self.max_train is not None:
            text += f", and at most {self.max_train:,} training pairs"
        return text

    def apply(self, corpus: Corpus) -> Corpus:
        """The pairs of a corpus that the rule keeps; its note gets a sentence about the rule.

        Args:
          corpus: the corpus; the frequent words are those of its training sources.

        Returns:
          The smaller corpus, with pairs in the same order.

        Raises:
          ValueError: no training pair is left.
        """
        counts = Counter(word for pair in corpus.train for word in words(pair.source))
        # Ties are broken by spelling: the choice must not depend on the order of the corpus.
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        frequent = frozenset(ranked[: self.frequent_words])

        def keep(pair: Pair) -> bool:
            found = words(pair.source)
            long_enough = self.min_words <= len(found) <= self.max_words
            return long_enough and (self.frequent_words is None or frequent.issuperset(found))

        train = tuple(filter(keep, corpus.train))
        if not train:
            raise ValueError(f"the rule “{self}” keeps no training pair of {corpus.name}; widen it")
        smaller = dataclasses.replace(
            corpus,
            train=_draw(train, self.max_train),
            validation=tuple(filter(keep, corpus.validation)),
            test=tuple(filter(keep, corpus.test)),
        )
        return dataclasses.replace(smaller, note=f"{corpus.note} {self.sentence(corpus, smaller)}")

    def sentence(self, before: Corpus, after: Corpus) -> str:
        """The rule, and how many pairs it keeps and drops, in one sentence."""
        kept = [len(getattr(after, split)) for split in ("train", "validation", "test")]
        total = [len(getattr(before, split)) for split in ("train", "validation", "test")]
        return (
            f"Kept by rule: {self}; that keeps {kept[0]:,} training, {kept[1]:,} validation and "
            f"{kept[2]:,} test pairs and drops {total[0] - kept[0]:,}, {total[1] - kept[1]:,} and "
            f"{total[2] - kept[2]:,}."
        )


def _draw(pairs: tuple[Pair, ...], most: int | None) -> tuple[Pair, ...]:
    if most is None or len(pairs) <= most:
        return pairs
    chosen = sorted(range(len(pairs)), key=lambda i: (_hash("\t".join(pairs[i])), i))[:most]
    return tuple(pairs[i] for i in sorted(chosen))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def load_corpus(name: str, data_dir: Path | None = None) -> Corpus:
    """Reads a corpus from files on this machine; nothing is downloaded.

    Args:
      name: `docs` (LibreOffice and Apache manuals, in the repository), `multi30k` (captions of
        pictures) or `acts` (acts of Canada).
      data_dir: the folder with the files of the corpus; None is the repository's, for `docs` only.

    Returns:
      The corpus.

    Raises:
      ValueError: the name is unknown, a file is missing, truncated or not UTF-8, or a line is
        malformed or empty; the message names file and line, and what to do.
    """
    loaders: dict[str, Callable[[Path], Corpus]] = {
        "docs": _load_docs,
        "multi30k": _load_multi30k,
        "acts": _load_acts,
    }
    if name not in loaders:
        raise ValueError(f"name={name!r} is no known corpus; choose one of {', '.join(loaders)}")
    if data_dir is None and name != "docs":
        raise ValueError(
            f"data_dir=None, but {name} is not in the repository; {_WHERE[name]}, and "
            "pass the folder of these files as --data-dir"
        )
    return loaders[name](data_dir or DOCS_FOLDER)


def _load_docs(folder: Path) -> Corpus:
    path = find_file(folder / "docs_enfr.tsv", _WHERE["docs"])
    rows = read_table(path, ("page", "source", "target"))
    return _split_by_page(
        "docs",
        (Pair(source, target, page) for page, source, target in rows),
        licence="MPL-2.0 (LibreOffice help) and Apache-2.0 (Apache HTTP Server manual)",
        origin="English–French help of LibreOffice 7.4.7 and manual of Apache HTTP Server 2.4.",
    )


def _load_acts(folder: Path) -> Corpus:
    path = find_file(folder / "canada_acts_en_fr.tsv", _WHERE["acts"])
    rows = read_table(path, ("act", "en", "fr"))
    return _split_by_page(
        "acts",
        (Pair(source, target, act) for act, source, target in rows),
        licence="Open Government Licence – Canada",
        origin="Consolidated acts of Canada in English and French.",
    )


def _split_by_page(name: str, pairs: Iterable[Pair], licence: str, origin: str) -> Corpus:
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in dict.fromkeys(pairs):
        percent = _hash(pair.page) % 100
        held_out = "test" if percent < _TEST_PERCENT else "validation"
        here = held_out if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"
        splits[here].append(pair)
    seen = _Seen.of(splits["train"])
    validation, test = seen.without(splits["validation"]), seen.without(splits["test"])
    note = (
        f"{origin} Split by page, not by sentence. Left out because their text also occurs in "
        f"training: {len(splits['test']) - len(test):,} test and "
        f"{len(splits['validation']) - len(validation):,} validation pairs."
    )
    return Corpus(name, tuple(splits["train"]), validation, test, licence, note)


def _load_multi30k(folder: Path) -> Corpus:
    splits = {split: _read_captions(folder / stem) for split, stem in _MULTI30K.items()}
    known = len(splits["test"]) - len(_Seen.of(splits["train"]).without(splits["test"]))
    note = (
        "Multi30k, task 1: captions of pictures, with the official splits (test 2016, Flickr), "
        f"complete although the text of {known:,} test pairs also occurs in training."
    )
    return Corpus("multi30k", **splits, licence="none stated; for private study", note=note)


def _read_captions(stem: Path) -> tuple[Pair, ...]:
    paths = [find_file(stem.with_name(f"{stem.name}.{s}"), _WHERE["multi30k"]) for s in _LANGUAGES]
    sides = [list(read_lines(path)) for path in paths]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{paths[0]} has {len(sides[0]):,} lines and {paths[1].name} {len(sides[1]):,}; "
            "line n of both must be the same caption: fetch both files again"
        )
    return tuple(Pair(source, target, "") for source, target in zip(*sides, strict=True))


class _Seen(NamedTuple):
    """The lower-cased texts of a split, to remove them from another split."""

    sources: frozenset[str]
    targets: frozenset[str]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> "_Seen":
        pairs = tuple(pairs)
        return cls(
            frozenset(pair.source.lower() for pair in pairs),
            frozenset(pair.target.lower() for pair in pairs),
        )

    def without(self, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        return tuple(
            pair
            for pair in pairs
            if pair.source.lower() not in self.sources and pair.target.lower() not in self.targets
        )
