"""What a language model experiment found: a report to read, its numbers as JSON, a loss figure."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.reports.claims import Claim
from experiments.reports.figures import Curve, png, training_curves
from experiments.reports.findings import as_json, markdown_table
from experiments.training.runs import write_whole

LOSS = "loss.png"


@dataclasses.dataclass(frozen=True)
class Score:
    """How well the validation split is predicted.

    Attributes:
      name: of what predicts it.
      loss: nats a token.
      perplexity: the number of equally likely tokens that are as hard to guess among.
      bits_per_character: the same whatever the tokens are, so that characters and byte pairs
        compare.

    Example:
      >>> score = Score.of("one bit a token", math.log(2), tokens_per_character=0.25)
      >>> score.perplexity, score.bits_per_character
      (2.0, 0.25)
    """

    name: str
    loss: float
    perplexity: float
    bits_per_character: float

    @classmethod
    def of(cls, name: str, loss: float, tokens_per_character: float) -> "Score":
        """What a loss in nats a token means."""
        return cls(name, loss, math.exp(loss), loss * tokens_per_character / math.log(2))


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured.

    Attributes:
      command: how to repeat it.
      data: what the text is, how it was split, and under which terms it stands.
      model: what was trained, in words.
      training: how, in words.
      scores: on the validation split, the model's last.
      curve: its loss while it trained.
      prompt: what the samples go on from.
      samples: what the model writes.
      claims: what should be true of all this.
    """

    command: str
    data: str
    model: str
    training: str
    scores: Sequence[Score]
    curve: Curve
    prompt: str
    samples: Sequence[str]
    claims: Sequence[Claim]


def following_counts_loss(
    train: Int[np.ndarray, " S"], validation: Int[np.ndarray, " T"], vocab_size: int
) -> float:
    """Nats a token of a model that only counts which token follows which, each pair once more.

    Example:
      >>> loss = following_counts_loss(np.array([0, 1, 0, 1]), np.array([0, 1]), 2)
      >>> print(f"{np.exp(-loss):.2f}")   # 1 followed 0 twice: (2 + 1) / (2 + 2)
      0.75
    """
    counts = np.ones((vocab_size, vocab_size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(shares[validation[:-1], validation[1:]]).mean())


def score_rows(scores: Sequence[Score]) -> list[list[str]]:
    """The table of scores, for a terminal or a page."""
    return [
        [
            score.name,
            f"{score.loss:.4f}",
            f"{score.perplexity:.2f}",
            f"{score.bits_per_character:.3f}",
        ]
        for score in scores
    ]


HEADER = ["on the validation split", "nats a token", "perplexity", "bits a character"]


def write_findings(directory: Path, findings: Findings) -> None:
    """report.md, report.json and the figure; what an earlier run left is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / LOSS, png(training_curves([findings.curve])))
    write_whole(directory / "report.json", as_json(findings))
    write_whole(directory / "report.md", markdown(findings).encode())


def markdown(findings: Findings) -> str:
    """The report: claims, scores, the loss, and what the model writes."""
    parts = [
        "# A language model",
        "\n".join(claim.markdown() for claim in findings.claims),
        findings.data,
        f"{findings.model} {findings.training}",
        markdown_table(HEADER, score_rows(findings.scores)),
        f"![loss while it trained]({LOSS})",
        "## What it writes",
        f"After the prompt {findings.prompt!r}, {len(findings.samples)} times:",
        *(f"```text\n{sample.strip()}\n```" for sample in findings.samples),
        f"Repeat with `{findings.command}`.",
    ]
    return "\n\n".join(parts) + "\n"
