"""BLEU with bootstrap intervals by source length, and comparisons of systems.

Papineni et al., "BLEU" (2002); by length as in Bahdanau et al. (2014), fig. 2; resampling as in
Koehn, "Statistical significance tests for machine translation evaluation" (2004). Every BLEU here
is sacrebleu's (Post, "A call for clarity in reporting BLEU scores", 2018): n-grams are counted once
per sentence, and sacrebleu's formula is applied to sums of these counts (bleu_counts.py).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from sacrebleu.metrics import BLEU, CHRF

from experiments.data.words import words
from experiments.measures.bleu_counts import bleu, brevity, sentence_statistics
from experiments.systems.translation import SYSTEMS

LAST_STATE = SYSTEMS["final"].label  # the system that the others are compared with
RESAMPLES = 1000
SEED = 12345  # sacrebleu's default, which gives sacrebleu's resamples
FEWEST_SENTENCES = 10  # a bin with fewer has no interval and is not drawn


@dataclasses.dataclass(frozen=True)
class LengthBin:
    """The sentences whose source has from `low` to `high` words, both included."""

    label: str
    low: int
    high: int | None = None

    def __contains__(self, length: int) -> bool:
        return self.low <= length and (self.high is None or length <= self.high)


BINS = (
    LengthBin("1–10", 1, 10),
    LengthBin("11–20", 11, 20),
    LengthBin("21–30", 21, 30),
    LengthBin("31–40", 31, 40),
    LengthBin("41–60", 41, 60),
    LengthBin("over 60", 61),
)
OVER_20 = LengthBin("over 20", 21)
ALL = LengthBin("all", 1)


@dataclasses.dataclass(frozen=True)
class SystemOutput:
    """The translations of one system, its training time and its size."""

    name: str
    translations: tuple[str, ...]
    seconds: float  # wall-clock training time
    parameters: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class LengthRow:
    """BLEU of one system on one length bin; None for an empty or a small bin.

    The ratio and the penalty are None, too, if the references have no tokens.
    """

    label: str
    sentences: int
    bleu: float | None
    interval: tuple[float, float] | None
    length_ratio: float | None = None  # tokens of the translations by those of the references
    brevity_penalty: float | None = None  # BLEU's factor for translations that are too short

    @property
    def without_penalty(self) -> float | None:
        """BLEU without the brevity penalty."""
        return self.bleu / self.brevity_penalty if self.bleu and self.brevity_penalty else self.bleu


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """One system: a row per bin, then `over 20` and `all`; chrF is over all sentences."""

    system: str
    rows: tuple[LengthRow, ...]
    chrf: float

    def row(self, label: str) -> LengthRow:
        """The row of that label, one of those of BINS, OVER_20 and ALL."""
        return next(row for row in self.rows if row.label == label)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two systems on the same resamples: BLEU of `first` minus BLEU of `second`."""

    first: str
    second: str
    label: str
    difference: float
    wins: float  # share of the resamples in which `first` has the higher BLEU
    losses: float  # … the lower BLEU; the rest are ties
    p_value: float  # two-sided paired bootstrap, shifted to the null hypothesis


@dataclasses.dataclass(frozen=True)
class Scores:
    """All scores and comparisons; `dataclasses.asdict` makes it JSON."""

    bleu_signature: str
    chrf_signature: str
    tables: tuple[ScoreTable, ...]
    comparisons: tuple[Comparison, ...]

    def table(self, system: str) -> ScoreTable | None:
        """The table of that system, None if it was not scored."""
        return next((table for table in self.tables if table.system == system), None)

    def comparison(self, first: str, second: str, label: str) -> Comparison | None:
        """The comparison of `first` with `second`; None if there is none."""
        for found in self.comparisons:
            if found.label == label and (found.first, found.second) == (first, second):
                return found
            if found.label == label and (found.first, found.second) == (second, first):
                return _reversed(found)
        return None


def word_count(sentence: str) -> int:
    """The number of words without punctuation: the length in all tables and figures."""
    return len(words(sentence))


def resample(sentences: int, *, seed: int = SEED) -> Int[np.ndarray, "R N"]:
    """How often each sentence occurs in each of the bootstrap resamples, R = RESAMPLES."""
    chosen = np.random.default_rng(seed).choice(sentences, size=(RESAMPLES, sentences))
    flat = chosen + sentences * np.arange(RESAMPLES)[:, None]
    return np.bincount(flat.ravel(), minlength=RESAMPLES * sentences).reshape(RESAMPLES, sentences)


def interval(samples: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """The middle 95 % of the resampled scores (Koehn 2004, §3), with sacrebleu's cut-offs."""
    ordered, cut = np.sort(samples), len(samples) // 40
    return float(ordered[cut]), float(ordered[len(samples) - cut - 1])


def score_systems(
    systems: Sequence[SystemOutput],
    sources: Sequence[str],
    references: Sequence[str],
    *,
    seed: int = SEED,
) -> Scores:
    """Scores every system by source length and compares every pair of systems.

    Args:
      systems: at least one, each with one translation a source sentence, in order.
      sources: the test sentences; their `word_count` decides the bin.
      references: the one reference translation of each.
      seed: of the resamples; all systems have the same, so comparisons are paired.

    Returns:
      Tables and comparisons in the order of `systems`; comparisons on `all`, and on `over 20`
      where that bin has FEWEST_SENTENCES.

    Raises:
      ValueError: there is no system or no sentence, a name occurs twice, lengths differ, or a
        source is empty.
    """
    _check(systems, sources, references)
    lengths = [word_count(source) for source in sources]
    statistics = {s.name: sentence_statistics(s.translations, references) for s in systems}
    rows: dict[str, list[LengthRow]] = {s.name: [] for s in systems}
    comparisons: list[Comparison] = []
    for length_bin in (*BINS, OVER_20, ALL):
        members = [i for i, length in enumerate(lengths) if length in length_bin]
        inside = {name: counts[members] for name, counts in statistics.items()}
        samples = _resampled(inside, seed) if len(members) >= FEWEST_SENTENCES else {}
        for name, counts in inside.items():
            rows[name].append(_row(length_bin, counts, samples.get(name)))
        if length_bin in (OVER_20, ALL):
            comparisons += _comparisons(length_bin, inside, samples)
    chrf = CHRF(lowercase=True)
    tables = [
        ScoreTable(
            s.name, tuple(rows[s.name]), chrf.corpus_score(s.translations, [references]).score
        )
        for s in systems
    ]
    bleu_signature = _signature(systems[0], references, seed)
    return Scores(bleu_signature, str(chrf.get_signature()), tuple(tables), tuple(comparisons))


def _check(
    systems: Sequence[SystemOutput], sources: Sequence[str], references: Sequence[str]
) -> None:
    names = [system.name for system in systems]
    if not systems or not sources:
        raise ValueError(
            f"systems has {len(systems)} and sources {len(sources)} entries; "
            "scoring needs at least one of each"
        )
    if len(set(names)) != len(names):
        raise ValueError(f"systems has the names {names}; give each system its own")
    if len(references) != len(sources):
        raise ValueError(
            f"references has {len(references)} sentences, sources has {len(sources)}; pass one "
            "reference a source"
        )
    for system in systems:
        if len(system.translations) != len(sources):
            raise ValueError(
                f"translations of {system.name!r} has {len(system.translations)} sentences, "
                f"sources has {len(sources)}; pass one translation a source"
            )
    empty = [i for i, source in enumerate(sources) if not word_count(source)]
    if empty:
        raise ValueError(f"sources[{empty[0]}] has no words; leave such pairs out of the test set")


def _resampled(
    statistics: Mapping[str, Int[np.ndarray, "N 10"]], seed: int
) -> dict[str, Float[np.ndarray, " R"]]:
    sentences = len(next(iter(statistics.values())))
    counts = resample(sentences, seed=seed).astype(np.float64)  # exact, and BLAS multiplies floats
    return {
        name: np.array([bleu(total) for total in (counts @ rows).astype(np.int64)])
        for name, rows in statistics.items()
    }


def _row(
    length_bin: LengthBin,
    statistics: Int[np.ndarray, "N 10"],
    samples: Float[np.ndarray, " R"] | None,
) -> LengthRow:
    if not len(statistics):
        return LengthRow(length_bin.label, 0, None, None)
    total = statistics.sum(axis=0)
    bounds = None if samples is None else interval(samples)
    return LengthRow(length_bin.label, len(statistics), bleu(total), bounds, *brevity(total))


def _comparisons(
    length_bin: LengthBin,
    statistics: Mapping[str, Int[np.ndarray, "N 10"]],
    samples: Mapping[str, Float[np.ndarray, " R"]],
) -> list[Comparison]:
    compared = []
    for first, second in itertools.combinations(samples, 2):
        difference = bleu(statistics[first].sum(axis=0)) - bleu(statistics[second].sum(axis=0))
        resampled = samples[first] - samples[second]
        # Shifted to the null hypothesis (Efron & Tibshirani 1993, ch. 16). sacrebleu's own test
        # takes |·| before it shifts, which makes it one-sided and keeps it from ever nearing 1.
        as_far = np.abs(resampled - difference) >= abs(difference)
        p_value = (float(np.sum(as_far)) + 1) / (len(resampled) + 1)
        wins, losses = float(np.mean(resampled > 0)), float(np.mean(resampled < 0))
        compared.append(
            Comparison(first, second, length_bin.label, difference, wins, losses, p_value)
        )
    return compared


def _reversed(comparison: Comparison) -> Comparison:
    return dataclasses.replace(
        comparison,
        first=comparison.second,
        second=comparison.first,
        difference=-comparison.difference,
        wins=comparison.losses,
        losses=comparison.wins,
    )


def _signature(system: SystemOutput, references: Sequence[str], seed: int) -> str:
    metric = BLEU(lowercase=True)
    metric.corpus_score(system.translations[:1], [references[:1]])  # it counts references
    signature = metric.get_signature()
    signature.update("bs", RESAMPLES)
    signature.update("seed", seed)
    return str(signature)
