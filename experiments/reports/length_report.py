"""The report of `length`: claims, curves, and a table for each task."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from experiments.measures.alignments import Alignment
from experiments.reports.claims import Claim
from experiments.reports.curves import Panel, accuracy_curves
from experiments.reports.figures import alignment_maps
from experiments.reports.report import NOTHING, Picture, Report, Table, training_times


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What was measured of one task.

    Attributes:
      trained: the smallest and the largest size in training.
      size_label: what a size is.
      seconds: of training, by system.
      accuracy: by system and size, the share of target words output in their place.
      moves: by size, how far the attention moves at a step, in the mean.
      example: the attention weights of one test item.
    """

    trained: tuple[int, int]
    size_label: str
    seconds: Mapping[str, float]
    accuracy: Mapping[str, Mapping[int, float]]
    moves: Mapping[int, float]
    example: Alignment


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that one run measured, by task; the preset, and how to repeat it."""

    command: str
    preset: str
    seed: int
    results: Mapping[str, TaskResult]
    claims: Sequence[Claim]


def make_report(findings: Findings) -> Report:
    """The report of one run."""
    results = findings.results
    panels = [
        Panel(task, result.accuracy, result.trained, result.size_label)
        for task, result in results.items()
    ]
    moving = {task: result.example for task, result in results.items() if result.moves}
    maps = alignment_maps(
        [*moving.values()], titles=[*moving], source_label="source", generated_label="output"
    )
    return Report(
        title="Sequences that grow",
        findings=vars(findings),
        claims=findings.claims,
        preset=findings.preset,
        body=[
            Picture(
                "accuracy_by_length.png",
                accuracy_curves(panels, "words output in the right place"),
                "accuracy by length",
            ),
            "Both networks were trained on the shaded sizes only.",
            *(part for task, result in results.items() for part in section(task, result)),
            "## Attention weights",
            Picture("alignments.png", maps, "attention while copying and reversing"),
            f"Repeat with `{findings.command}` (seed {findings.seed}).",
        ],
    )


def section(task: str, result: TaskResult) -> Iterator[str | Table]:
    """One task: its table, and what happens beyond the sizes in training."""
    names = list(result.accuracy)
    sizes = list(result.accuracy[names[0]])
    rows = [
        [str(size)]
        + [f"{result.accuracy[name][size]:.2f}" for name in names]
        + [f"{result.moves[size]:+.2f}" if size in result.moves else NOTHING]
        for size in sizes
    ]
    largest = max(sizes)
    beyond = " and ".join(f"{result.accuracy[name][largest]:.2f} ({name})" for name in names)
    yield f"## {task.capitalize()}"
    yield Table(
        [result.size_label, *names, "attention moves"],
        rows,
        f"{task}: words output in the right place; {result.size_label} {result.trained[0]} to "
        f"{result.trained[1]} in training",
    )
    yield (
        f"Trained on {result.size_label} {result.trained[0]} to {result.trained[1]} "
        f"({training_times(result.seconds)}); at {largest}, {beyond} of the words are right."
    )
