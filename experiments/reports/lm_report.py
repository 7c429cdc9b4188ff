"""The report of `lm`: scores, loss curve and samples."""

import dataclasses
from collections.abc import Sequence

from experiments.measures.lm_scores import Score
from experiments.reports.claims import Claim
from experiments.reports.curves import Curve, training_curves
from experiments.reports.report import Picture, Report, Table


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      preset: of the settings.
      data: sentences about the text, its split and its licence.
      model: a sentence about the model.
      training: a sentence about the training.
      scores: on the validation split; the last is that of the model.
      curve: the model's loss during training.
      prompt: of the samples.
      samples: generated texts.
      claims: what should be true of all this.
    """

    command: str
    preset: str
    data: str
    model: str
    training: str
    scores: Sequence[Score]
    curve: Curve
    prompt: str
    samples: Sequence[str]
    claims: Sequence[Claim]


def make_report(findings: Findings) -> Report:
    """The report of one run."""
    rows = [
        [s.name, f"{s.loss:.4f}", f"{s.perplexity:.2f}", f"{s.bits_per_character:.3f}"]
        for s in findings.scores
    ]
    header = ["on the validation split", "nats a token", "perplexity", "bits a character"]
    return Report(
        title="A language model",
        findings=vars(findings),
        claims=findings.claims,
        preset=findings.preset,
        body=[
            findings.data,
            f"{findings.model} {findings.training}",
            Table(header, rows),
            Picture("loss.png", training_curves([findings.curve]), "loss during training"),
            "## Samples",
            f"After the prompt {findings.prompt!r}, {len(findings.samples)} times:",
            *(f"```text\n{sample.strip()}\n```" for sample in findings.samples),
            f"Repeat with `{findings.command}`.",
        ],
    )
