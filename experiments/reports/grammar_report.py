"""The report of `grammar`: claims, tables by depth, and the lecture's sentence."""

import dataclasses
from collections.abc import Mapping, Sequence

from experiments.data.toy_grammar import PHENOMENA, Words, text
from experiments.measures.alignments import Alignment
from experiments.measures.grammar_scores import DepthScore
from experiments.reports.claims import Claim
from experiments.reports.curves import Panel, accuracy_curves
from experiments.reports.figures import alignment_maps
from experiments.reports.report import (
    NOTHING,
    Finding,
    Picture,
    Report,
    Table,
    bullets,
    training_times,
)


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      preset: of the settings.
      seed: of data and training.
      train_sentences: how many training sentences.
      train_depths: numbers of relative clauses in training.
      seconds: of training, by system.
      scores: by system, one a depth.
      error_rates: AER of the attention, by depth.
      source: the lecture's sentence.
      translations: of it, by system.
      alignment: of it with its true translation.
      crossing: of the test sentence with the sharpest change of sides, if any has one.
      claims: what should be true of all this.
    """

    command: str
    preset: str
    seed: int
    train_sentences: int
    train_depths: Sequence[int]
    seconds: Mapping[str, float]
    scores: Mapping[str, Sequence[DepthScore]]
    error_rates: Mapping[int, float]
    source: Words
    translations: Mapping[str, Words]
    alignment: Alignment
    crossing: Alignment | None
    claims: Sequence[Claim]


def make_report(findings: Findings) -> Report:
    """The report of one run."""
    trained = min(findings.train_depths), max(findings.train_depths)
    curves = {name: {s.depth: s.exact for s in rows} for name, rows in findings.scores.items()}
    panel = Panel("sentences translated exactly", curves, trained, "relative clauses")
    shown = {"The lecture's sentence": findings.alignment}
    if findings.crossing:
        shown["An adjective changes sides"] = findings.crossing
    rates = ", ".join(f"{rate:.3f} at depth {d}" for d, rate in findings.error_rates.items())
    tables = {name: depth_table(name, rows) for name, rows in findings.scores.items()}
    translations = [f"{name}: *{text(words)}*" for name, words in findings.translations.items()]
    return Report(
        title="The lecture's sentence",
        findings=vars(findings),
        claims=findings.claims,
        preset=findings.preset,
        body=[
            "## Its translations",
            f"*{text(findings.source)}*, which is not among the training sentences.",
            bullets(translations),
            Picture(
                "alignments.png",
                alignment_maps([*shown.values()], titles=[*shown]),
                "attention weights of each French word, here and where an adjective changes sides",
            ),
            "## By depth",
            f"Training: {findings.train_sentences:,} sentences with {trained[0]} to {trained[1]} "
            f"relative clauses (seed {findings.seed}; {training_times(findings.seconds)}). Deeper "
            "sentences are longer than any in training, and show where each system fails.",
            Picture(
                "accuracy_by_depth.png",
                accuracy_curves([panel], "share of sentences"),
                "accuracy by depth",
            ),
            *(part for name, table in tables.items() for part in (f"### {name}", table)),
            Finding(f"Alignment error rate of the attention, for the true translation: {rates}."),
            f"Repeat with `{findings.command}`.",
        ],
    )


def depth_table(name: str, scores: Sequence[DepthScore]) -> Table:
    """One row a depth: exact matches, then each phenomenon."""
    rows = [
        [str(s.depth), str(s.sentences), f"{s.exact:.2f}"]
        + [f"{s.phenomena[kind]:.2f}" if kind in s.phenomena else NOTHING for kind in PHENOMENA]
        for s in scores
    ]
    return Table(["depth", "sentences", "exact", *PHENOMENA], rows, name)
