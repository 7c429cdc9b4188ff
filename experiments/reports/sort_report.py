"""The report of `sort`: claims, what was sorted, and what each head attends to."""

import dataclasses
from collections.abc import Sequence

from experiments.measures.alignments import Alignment
from experiments.measures.heads import HeadReading
from experiments.reports.claims import Claim
from experiments.reports.figures import alignment_maps
from experiments.reports.report import Finding, Picture, Report, Table


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


def make_report(findings: Findings) -> Report:
    """The report of one run."""
    counts = [
        [name, f"{right:,} of {findings.inputs[name]:,}"]
        for name, right in findings.sorted_right.items()
    ]
    maps = alignment_maps(
        list(findings.heads.values()), source_labels=list(findings.heads), generated_label="writes"
    )
    return Report(
        title="A GPT that sorts",
        findings=vars(findings),
        claims=findings.claims,
        body=[
            findings.model,
            Table(["inputs", "sorted"], counts),
            "## What each head reads",
            f"*{findings.question}*, which was held out, is answered *{findings.said}*. Each row "
            "is a letter as it is written, each column a token that may be read for it, the "
            "question first.",
            Picture("heads.png", maps, "weights of each head"),
            "In the mean over all inputs and the letters of their answers: the entropy of the "
            "weights, and where they lie: on letters of the question that are like the one to "
            "write, like the one just written (where that is another), or neither, and on the "
            "answer so far. The last row is a head that reads all tokens alike.",
            reading_table(findings.readings),
            Finding(observation(findings.readings)),
            f"Repeat with `{findings.command}`.",
        ],
    )


def reading_table(readings: Sequence[HeadReading]) -> Table:
    """One row a head: the entropy of its weights, and their shares."""
    header = ["head", "entropy", "to write", "just written", "other", "answer"]
    rows = []
    for one in readings:
        shares = one.next_letter, one.last_letter, one.other_letters, one.answer
        rows.append([one.name, f"{one.entropy:.2f} bits", *(f"{share:.0%}" for share in shares)])
    return Table(header, rows, "what each head reads, in the mean")


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
