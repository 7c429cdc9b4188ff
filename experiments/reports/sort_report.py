"""The report of `sort`: accuracy, and the attention weights of each head."""

import dataclasses
from collections.abc import Sequence

from experiments.measures.alignments import Alignment
from experiments.measures.heads import HeadStatistics
from experiments.reports.claims import Claim
from experiments.reports.figures import alignment_maps
from experiments.reports.report import Finding, Picture, Report, Table


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      preset: of the settings.
      model: a sentence about the model and its training.
      sorted_right: number of correct answers, for all, training and held-out inputs.
      inputs: number of inputs of each kind.
      question: the input of the figure, which was held out.
      said: the model's answer.
      heads: the weights of each head for that answer, by name.
      readings: the statistics of each head on all inputs; the last are those of uniform weights.
      claims: what should be true of all this.
    """

    command: str
    preset: str
    model: str
    sorted_right: dict[str, int]
    inputs: dict[str, int]
    question: str
    said: str
    heads: dict[str, Alignment]
    readings: Sequence[HeadStatistics]
    claims: Sequence[Claim]


def make_report(findings: Findings) -> Report:
    """The report of one run."""
    counts = [
        [name, f"{right:,} of {findings.inputs[name]:,}"]
        for name, right in findings.sorted_right.items()
    ]
    maps = alignment_maps(
        list(findings.heads.values()),
        titles=list(findings.heads),
        source_label="question, then answer",
        generated_label="answer",
    )
    return Report(
        title="A GPT that sorts",
        findings=vars(findings),
        claims=findings.claims,
        preset=findings.preset,
        body=[
            findings.model,
            Table(["inputs", "sorted"], counts),
            "## Attention weights of each head",
            f"*{findings.question}*, which was held out, is answered *{findings.said}*. Each row "
            "is a letter of the answer, each column a token of the question, then of the answer so "
            "far. Masked pairs are hatched.",
            Picture("heads.png", maps, "weights of each head"),
            "Means over all inputs and the letters of their answers: the entropy of the weights, "
            "and their shares on letters of the question equal to the next letter, equal to the "
            "last letter (where that is another), or neither, and on the answer so far. The last "
            "row is for uniform weights.",
            reading_table(findings.readings),
            Finding(observation(findings.readings)),
            f"Repeat with `{findings.command}`.",
        ],
    )


def reading_table(readings: Sequence[HeadStatistics]) -> Table:
    """One row a head: the entropy of its weights, and their shares."""
    header = ["head", "entropy", "next letter", "last letter", "other", "answer"]
    rows = []
    for one in readings:
        shares = one.next_letter, one.last_letter, one.other_letters, one.answer
        rows.append([one.name, f"{one.entropy:.2f} bits", *(f"{share:.0%}" for share in shares)])
    return Table(header, rows, "attention weights of each head, means")


def observation(readings: Sequence[HeadStatistics]) -> str:
    """The head with the most weight on the next letter, and the sharpest head, in two sentences."""
    *heads, uniform = readings
    seeker = max(heads, key=lambda head: head.next_letter)
    sharpest = min(heads, key=lambda head: head.entropy)
    return (
        f"The head with the most weight on the next letter is {seeker.name}: "
        f"{seeker.next_letter:.0%}, where uniform weights have {uniform.next_letter:.0%}. The "
        f"sharpest head is {sharpest.name}: {sharpest.entropy:.2f} bits, an effective number of "
        f"{2**sharpest.entropy:.1f} tokens, where uniform weights have {uniform.entropy:.2f} bits."
    )
