"""What the length experiment found: a report to read, its numbers as JSON, and two figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.measures.alignments import Alignment
from experiments.reports.claims import Claim
from experiments.reports.curves import accuracy_curves
from experiments.reports.figures import alignment_maps, png
from experiments.reports.findings import as_json, markdown_table
from experiments.reports.report import write_whole

ACCURACY, ALIGNMENTS = "accuracy_by_length.png", "alignments.png"


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What was measured of one task.

    Attributes:
      trained: the smallest and the largest size in training.
      size_label: what a size is.
      seconds: of training, by system.
      accuracy: by system and size, the share of target words said in their place.
      moves: by size, how far the attention moves at a step, in the mean.
      example: what the attention read of one test item.
    """

    trained: tuple[int, int]
    size_label: str
    seconds: Mapping[str, float]
    accuracy: Mapping[str, Mapping[int, float]]
    moves: Mapping[int, float]
    example: Alignment


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured, by task, and how to repeat it."""

    command: str
    seed: int
    results: Mapping[str, TaskResult]
    claims: Sequence[Claim]


def write_findings(directory: Path, findings: Findings) -> None:
    """report.md, report.json and the figures; what an earlier run left is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    results = findings.results
    figure = accuracy_curves(
        {task: result.accuracy for task, result in results.items()},
        trained={task: result.trained for task, result in results.items()},
        size_label={task: result.size_label for task, result in results.items()},
        accuracy_label="words said in their place",
    )
    write_whole(directory / ACCURACY, png(figure))
    write_whole(directory / ALIGNMENTS, png(alignments(list(results.values()))))
    write_whole(directory / "report.json", as_json(findings))
    write_whole(directory / "report.md", markdown(findings).encode())


def alignments(results: Sequence[TaskResult]) -> Figure:
    """What was read for each word of an example, of the tasks where that moves step by step."""
    moving = [result.example for result in results if result.moves]
    figure = alignment_maps(moving)
    for axes in figure.axes[: len(moving)]:  # behind them comes the scale
        axes.set_xlabel("source", loc="left")
        axes.set_ylabel("said", loc="top")
    return figure


def markdown(findings: Findings) -> str:
    """The report: claims, curves, and a table for each task."""
    parts = [
        "# Sequences that grow",
        "\n".join(claim.markdown() for claim in findings.claims),
        f"![accuracy by length]({ACCURACY})",
        "Both networks learned from the shaded sizes only.",
        *(section(task, result) for task, result in findings.results.items()),
        "## What is read",
        f"![attention while copying and reversing]({ALIGNMENTS})",
        f"Repeat with `{findings.command}` (seed {findings.seed}).",
    ]
    return "\n\n".join(parts) + "\n"


def section(task: str, result: TaskResult) -> str:
    """One task: its table, and what happens beyond the sizes in training."""
    names = list(result.accuracy)
    sizes = list(result.accuracy[names[0]])
    rows = [
        [str(size)]
        + [f"{result.accuracy[name][size]:.2f}" for name in names]
        + [f"{result.moves[size]:+.2f}" if size in result.moves else "–"]
        for size in sizes
    ]
    largest = max(sizes)
    beyond = " and ".join(f"{result.accuracy[name][largest]:.2f} ({name})" for name in names)
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in result.seconds.items())
    header = [result.size_label, *names, "attention moves"]
    return (
        f"## {task.capitalize()}\n\n{markdown_table(header, rows)}\n\n"
        f"Trained on {result.size_label} {result.trained[0]} to {result.trained[1]} ({seconds}); "
        f"at {largest}, {beyond} of the words are right."
    )
