"""What the sorting experiment found: a report, its numbers as JSON, and a figure of the heads."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.measures.alignments import Alignment
from experiments.measures.heads import HeadReading
from experiments.reports.claims import Claim
from experiments.reports.figures import alignment_maps, png
from experiments.reports.findings import as_json, markdown_table
from experiments.training.runs import write_whole

HEADS = "heads.png"
HEADER = ["head", "entropy", "to write", "just written", "other", "answer"]


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      model: what was trained, and how, in words.
      sorted_right: how many of all inputs, of those trained on, of those held out.
      inputs: as many as there are of each.
      question: the input of the figure, which was held out.
      said: what was answered.
      heads: what each head reads of it, by name.
      readings: what each head reads of all inputs; last, one that reads all alike.
      claims: what should be true of all this.
    """

    command: str
    model: str
    sorted_right: dict[str, int]
    inputs: dict[str, int]
    question: str
    said: str
    heads: dict[str, Alignment]
    readings: Sequence[HeadReading]
    claims: Sequence[Claim]


def write_findings(directory: Path, findings: Findings) -> None:
    """report.md, report.json and the figure; what an earlier run left is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / HEADS, png(heads_figure(findings.heads)))
    write_whole(directory / "report.json", as_json(findings))
    write_whole(directory / "report.md", markdown(findings).encode())


def heads_figure(heads: dict[str, Alignment]) -> Figure:
    """A panel a head: rows are letters as they are written, columns what is read for each."""
    figure = alignment_maps(list(heads.values()))
    for name, axes in zip(heads, figure.axes, strict=False):  # behind them comes the scale
        axes.set_xlabel(name, loc="left")
        axes.set_ylabel("writes", loc="top")
    return figure


def reading_rows(readings: Sequence[HeadReading]) -> list[list[str]]:
    """The table of readings, for a terminal or a page."""
    return [
        [
            reading.name,
            f"{reading.entropy:.2f} bits",
            *(
                f"{share:.0%}"
                for share in (
                    reading.next_letter,
                    reading.last_letter,
                    reading.other_letters,
                    reading.answer,
                )
            ),
        ]
        for reading in readings
    ]


def observation(readings: Sequence[HeadReading]) -> str:
    """Which heads stand out, in two sentences; the last reading is that of no head."""
    *heads, even = readings
    seeker = max(heads, key=lambda head: head.next_letter)
    sharpest = min(heads, key=lambda head: head.entropy)
    return (
        f"It is {seeker.name} that looks most for the letter to write: {seeker.next_letter:.0%} of "
        f"its weight, where reading all alike gives {even.next_letter:.0%}. The sharpest is "
        f"{sharpest.name}: {sharpest.entropy:.2f} bits, as if it read {2**sharpest.entropy:.1f} "
        f"tokens, where reading all alike is {even.entropy:.2f} bits."
    )


def markdown(findings: Findings) -> str:
    """The report: claims, what was sorted, and what each head reads."""
    counts = [
        [name, f"{right:,} of {findings.inputs[name]:,}"]
        for name, right in findings.sorted_right.items()
    ]
    parts = [
        "# A GPT that sorts",
        "\n".join(claim.markdown() for claim in findings.claims),
        findings.model,
        markdown_table(["inputs", "sorted"], counts),
        "## What each head reads",
        f"*{findings.question}*, which was held out, is answered *{findings.said}*. Each row is a "
        "letter as it is written, each column a token that may be read for it, the question first.",
        f"![weights of each head]({HEADS})",
        "In the mean over all inputs and the letters of their answers: the entropy of the weights, "
        "and where they lie: on letters of the question that are like the one to write, like the "
        "one just written (where that is another), or neither, and on the answer so far. The last "
        "row is a head that reads all tokens alike.",
        markdown_table(HEADER, reading_rows(findings.readings)),
        observation(findings.readings),
        f"Repeat with `{findings.command}`.",
    ]
    return "\n\n".join(parts) + "\n"
