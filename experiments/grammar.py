"""The lecture's sentence, translated with and without attention.

    .venv/bin/python -m experiments.grammar  # at most five minutes on two cores
    .venv/bin/python -m experiments.grammar --preset smoke  # a test run, half a minute

A toy grammar generates English and French sentences with their true alignments. Three systems
translate: a dictionary word by word, an RNN whose decoder gets the encoder's last state, and the
RNN with attention of Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and
Translate" (2014), https://arxiv.org/abs/1409.0473. Each claim is measured: PASS or FAIL.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from experiments.data.toy_grammar import LECTURE, Sentence, Words, realise, sample, text
from experiments.measures.alignments import Alignment, pick_alignments
from experiments.measures.grammar_scores import (
    DepthScore,
    dictionary,
    error_rate,
    score_by_depth,
    word_by_word,
)
from experiments.measures.toy_translation import TrainingPairs, Translator, train_translator
from experiments.reports.claims import Claim
from experiments.reports.grammar_report import Findings, make_report
from experiments.reports.program import run_program
from experiments.reports.report import publish
from experiments.reports.terminal import show_alignment
from experiments.systems.translation import SYSTEMS, Widths
from experiments.training.runs import directory_of, opened
from experiments.training.task import TrainConfig
from experiments.training.whole_run import Part, WholeRun

LEXICON, LAST_STATE, ATTENTION = (SYSTEMS[name].label for name in ("lexicon", "final", "bahdanau"))
HELD_OUT = realise(LECTURE)
SECONDS = {"final": 27.0, "bahdanau": 60.0}  # of training in experiments/results/grammar


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run.

    Attributes:
      preset: the defaults of all other options: quick (at most five minutes on two cores), smoke (a
        test run of half a minute).
      name: a name for the run, whose files are in runs/NAME.
      sentences: the number of training sentences.
      train_depths: the numbers of relative clauses in training.
      test_depths: the numbers of relative clauses in the test; those beyond training have no
        claims.
      test_sentences: the number of test sentences at each depth.
      shapes: the number of padded batch shapes; each is compiled once.
      widths: Widths of both networks.
      train: Optimiser, learning rate, the seed of data and training, and how often to save.
      fresh: remove the stored run of that name, and start again.
    """

    preset: Literal["quick", "smoke"] = "quick"
    name: str = "grammar"
    sentences: int = 16_000
    train_depths: tuple[int, ...] = (0, 1, 2, 3)
    test_depths: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    test_sentences: int = 128
    shapes: int = 3
    widths: Widths = field(
        default_factory=lambda: Widths(
            embed_dim=64, hidden_dim=64, align_dim=64, readout_dim=64, dropout_rate=0.2
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=2000, learning_rate=5e-3, checkpoint_every=500)
    )
    fresh: bool = False


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(
        preset="smoke",
        name="grammar-smoke",
        sentences=400,
        train_depths=(0, 1),
        test_depths=(0, 1),
        test_sentences=16,
        shapes=1,
        widths=Widths(embed_dim=8, hidden_dim=12, align_dim=8, readout_dim=8, dropout_rate=0.1),
        train=TrainConfig(steps=20, batch_size=16, warmup_steps=5, checkpoint_every=10),
    ),
}


@dataclass(frozen=True)
class Corpus:
    """Training and test sentences; the lecture's sentence is in neither."""

    train: Sequence[Sentence]
    test: Sequence[Sentence]


def make_corpus(settings: Settings) -> Corpus:
    """Draws test sentences, then training sentences that are not among them."""
    rng = np.random.default_rng(settings.train.seed)
    held_out = {HELD_OUT.english}
    test: list[Sentence] = []
    for depth in settings.test_depths:
        test += sample(rng, settings.test_sentences, (depth,), exclude=held_out)
    held_out |= {sentence.english for sentence in test}
    train = sample(rng, settings.sentences, settings.train_depths, exclude=held_out)
    return Corpus(train, test)


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains both networks, compares the three systems, and writes the report."""
    directory = directory_of(settings.name)
    with opened(directory, "grammar"):
        corpus = make_corpus(settings)
        sources = [sentence.english for sentence in [*corpus.test, HELD_OUT]]
        console.print(
            f"{len(corpus.train):,} training sentences, {len(corpus.test):,} test sentences, "
            f"such as\n  {text(corpus.test[-1].english)}\n  {text(corpus.test[-1].french)}",
            soft_wrap=True,
        )
        outputs = {LEXICON: [word_by_word(dictionary(), source) for source in sources]}
        translators: dict[str, Translator] = {}
        whole = WholeRun(SECONDS)
        for system in SECONDS:
            label, part = SYSTEMS[system].label, whole.part(system)
            console.rule(label, align="left")
            translators[label] = _train_on(settings, corpus, system, directory, console, part)
            outputs[label] = [a.generated for a in translators[label].translate(sources)]
        findings = examine(settings, command, corpus, outputs, translators)
        for alignment in filter(None, (findings.alignment, findings.crossing)):
            console.print()
            show_alignment(console, alignment)
        publish(make_report(findings), directory / "report", console)
        return findings.claims


def _train_on(
    settings: Settings,
    corpus: Corpus,
    system: str,
    directory: Path,
    console: Console,
    part: Part,
) -> Translator:
    pairs = TrainingPairs(
        [(sentence.english, sentence.french) for sentence in corpus.train],
        longest=max(len(sentence.english) for sentence in [*corpus.test, HELD_OUT]),
        shapes=settings.shapes,
    )
    widths, train, fresh = settings.widths, settings.train, settings.fresh
    return train_translator(
        pairs, system, widths, train, directory / system, console=console, fresh=fresh, part=part
    )


def examine(
    settings: Settings,
    command: str,
    corpus: Corpus,
    outputs: Mapping[str, Sequence[Words]],
    translators: Mapping[str, Translator],
) -> Findings:
    """Scores the translations of the test sentences and, last, of the lecture's sentence."""
    scores = {name: score_by_depth(corpus.test, words[:-1]) for name, words in outputs.items()}
    sentences = [*corpus.test, HELD_OUT]
    alignments = translators[ATTENTION].align([(s.english, s.french) for s in sentences])
    depths = sorted(set(settings.test_depths) & set(settings.train_depths))
    rates = {
        depth: _rate(sentences[:-1], alignments[:-1], {depth}) for depth in settings.test_depths
    }
    overall = _rate(sentences[:-1], alignments[:-1], depths)
    only_sure = [dataclasses.replace(s, possible=s.sure) for s in corpus.test]
    strict = _rate(only_sure, alignments[:-1], depths)
    return Findings(
        command=command,
        preset=settings.preset,
        seed=settings.train.seed,
        train_sentences=len(corpus.train),
        train_depths=settings.train_depths,
        seconds={name: translator.seconds for name, translator in translators.items()},
        scores=scores,
        error_rates=rates,
        source=HELD_OUT.english,
        translations={name: words[-1] for name, words in outputs.items()},
        alignment=alignments[-1],
        crossing=next(iter(pick_alignments(alignments[:-1], count=1).alignments), None),
        claims=(
            *lecture_claims(outputs[ATTENTION][-1], alignments[-1], overall, strict),
            *depth_claims(scores, depths),
        ),
    )


def _rate(
    sentences: Sequence[Sentence], alignments: Sequence[Alignment], depths: Sequence[int] | set[int]
) -> float:
    chosen = [i for i, sentence in enumerate(sentences) if sentence.depth in depths]
    return error_rate([sentences[i] for i in chosen], [alignments[i] for i in chosen])


def lecture_claims(
    translation: Words, alignment: Alignment, rate: float, strict: float
) -> tuple[Claim, ...]:
    """Claims about the lecture's sentence, and about the alignments of the test sentences."""
    row = alignment.weights[alignment.generated.index("sauté")]
    most = alignment.source[int(row.argmax())]
    return (
        Claim(
            "with attention, the lecture's sentence, never trained on, is translated exactly",
            text(translation),
            translation == HELD_OUT.french,
        ),
        Claim(
            "the largest weight of sauté is that of jumped, and at least 0.5",
            f"{most}, {row.max():.2f}",
            most == "jumped" and bool(row.max() >= 0.5),
        ),
        Claim(
            "its alignment error rate is at most 0.20, even if only sure links count as right",
            f"{rate:.3f}, and {strict:.3f}",
            strict <= 0.2,
        ),
    )


def depth_claims(
    scores: Mapping[str, Sequence[DepthScore]], depths: Sequence[int]
) -> tuple[Claim, ...]:
    """Claims about each system at the depths in training."""
    inside = {name: [s for s in rows if s.depth in depths] for name, rows in scores.items()}
    attention = [score.exact for score in inside[ATTENTION]]
    last_state = [score.exact for score in inside[LAST_STATE]]
    lowest = {
        name: min(rows[-1].phenomena[kind] for kind in ("crossing", "agreement", "elision"))
        for name, rows in inside.items()
    }
    crossing = max(score.phenomena["crossing"] for score in inside[LEXICON])
    return (
        Claim(
            "with attention, at least 90 % are exact at every depth in training",
            _path(attention),
            min(attention) >= 0.9,
        ),
        Claim(
            "from the last state alone, accuracy falls by at least 20 points with more clauses",
            _path(last_state),
            last_state[-1] <= last_state[0] - 0.2,
        ),
        Claim(
            "with attention, crossing, agreement and elision are right (95 %) at the deepest",
            f"{lowest[ATTENTION]:.2f}",
            lowest[ATTENTION] >= 0.95,
        ),
        Claim("word by word, no adjective changes sides", f"{crossing:.2f} at best", crossing == 0),
    )


def _path(shares: Sequence[float]) -> str:
    return " → ".join(f"{share:.2f}" for share in shares)


def main(arguments: Sequence[str]) -> int:
    """The experiment as a program."""
    description = "Translates the lecture's sentence with and without attention, and tests claims."
    return run_program("grammar", description, PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
