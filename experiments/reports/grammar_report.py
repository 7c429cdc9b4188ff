"""What the grammar experiment found: a report to read, its numbers as JSON, and two figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.data.toy_grammar import PHENOMENA, Words, text
from experiments.measures.alignments import Alignment
from experiments.measures.grammar_scores import DepthScore
from experiments.reports.claims import Claim
from experiments.reports.curves import accuracy_curves
from experiments.reports.figures import alignment_maps, png
from experiments.reports.findings import as_json, markdown_table
from experiments.reports.report import write_whole

ACCURACY, ALIGNMENTS = "accuracy_by_depth.png", "alignments.png"
TITLE = "sentences translated exactly"


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      seed: of data and training.
      train_sentences: how many were learned from.
      train_depths: numbers of relative clauses in training.
      seconds: of training, by system.
      scores: by system, one a depth.
      error_rates: AER of the attention, by depth.
      source: the lecture's sentence.
      translations: of it, by system.
      alignment: of it with its true translation.
      crossing: of the test sentence that shows a change of sides best, if any does.
      claims: what should be true of all this.
    """

    command: str
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


def write_findings(directory: Path, findings: Findings) -> None:
    """report.md, report.json and the figures; what an earlier run left is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    curves = {name: {s.depth: s.exact for s in rows} for name, rows in findings.scores.items()}
    figure = accuracy_curves(
        {TITLE: curves},
        trained={TITLE: (min(findings.train_depths), max(findings.train_depths))},
        size_label={TITLE: "relative clauses"},
        accuracy_label="share of sentences",
    )
    write_whole(directory / ACCURACY, png(figure))
    shown = [findings.alignment, *([findings.crossing] if findings.crossing else [])]
    write_whole(directory / ALIGNMENTS, png(alignment_maps(shown)))
    write_whole(directory / "report.json", as_json(findings))
    write_whole(directory / "report.md", markdown(findings).encode())


def markdown(findings: Findings) -> str:
    """The report: claims, tables by depth, and the lecture's sentence."""
    lecture = [f"{name}: *{text(said)}*" for name, said in findings.translations.items()]
    rates = ", ".join(f"{rate:.3f} at depth {d}" for d, rate in findings.error_rates.items())
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in findings.seconds.items())
    parts = [
        "# The lecture's sentence",
        "\n".join(claim.markdown() for claim in findings.claims),
        "## Its translations",
        f"*{text(findings.source)}*, which is not among the training sentences.",
        "\n".join(f"- {line}" for line in lecture),
        f"![what each French word read, here and where an adjective changes sides]({ALIGNMENTS})",
        "## By depth",
        f"Training: {findings.train_sentences:,} sentences with {min(findings.train_depths)} to "
        f"{max(findings.train_depths)} relative clauses (seed {findings.seed}; {seconds}). Deeper "
        "ones are longer than any in training, and are there to show where each system ends.",
        f"![accuracy by depth]({ACCURACY})",
        *(f"### {name}\n\n{depth_table(rows)}" for name, rows in findings.scores.items()),
        f"Alignment error rate of the attention, reading the true translation: {rates}.",
        f"Repeat with `{findings.command}`.",
    ]
    return "\n\n".join(parts) + "\n"


def depth_table(scores: Sequence[DepthScore]) -> str:
    """One row a depth: exact matches, then each phenomenon."""
    rows = [
        [str(s.depth), str(s.sentences), f"{s.exact:.2f}"]
        + [f"{s.phenomena[kind]:.2f}" if kind in s.phenomena else "–" for kind in PHENOMENA]
        for s in scores
    ]
    return markdown_table(["depth", "sentences", "exact", *PHENOMENA], rows)
