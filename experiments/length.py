"""Copying, reversing and agreement by length, with attention and from a last state.

    .venv/bin/python -m experiments.length  # at most five minutes on two cores
    .venv/bin/python -m experiments.length --preset smoke  # a test run, half a minute

A small version of figure 2 of Bahdanau et al., "Neural Machine Translation by Jointly Learning to
Align and Translate" (2014), https://arxiv.org/abs/1409.0473. Both networks are trained on the
same short sequences and tested on longer ones. Each claim is measured: PASS or FAIL.

Attention removes the limit of a fixed-size state, but does not extrapolate: at twice the longest
length in training it is better than the last state, but far from correct. Agreement needs one bit,
which a last state keeps across any number of clauses.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from experiments.data.synthetic import Item, agreements, backwards, copies, digit_copies, digits
from experiments.measures.alignment_error import mean_move
from experiments.measures.alignments import Alignment
from experiments.measures.toy_translation import TrainingPairs, train_translator
from experiments.reports.claims import Claim
from experiments.reports.length_report import Findings, TaskResult, make_report
from experiments.reports.program import run_program
from experiments.reports.report import publish
from experiments.systems.translation import SYSTEMS, Widths
from experiments.training.runs import directory_of, opened
from experiments.training.task import TrainConfig
from experiments.training.whole_run import WholeRun

LAST_STATE, ATTENTION = (SYSTEMS[name].label for name in ("final", "bahdanau"))
DIGITS_LENGTH = 16  # of the published task
TENTHS = (1, 2, 4, 6, 8, 10, 15, 20)  # test lengths, in tenths of the longest in training
SECONDS = {"final": 15.0, "bahdanau": 27.0}  # of training on reverse in experiments/results/length
MOVES = {"copy": 1, "reverse": -1, "digits": -1}  # expected source positions from output to output


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run.

    Attributes:
      preset: the defaults of all other options: quick (at most five minutes on two cores), smoke (a
        test run of half a minute).
      name: a name for the run, whose files are in runs/NAME.
      tasks: the tasks: copy and reverse (different symbols), digits (reversed, ten symbols with
        repeats), agreement (of a verb with its subject, across relative clauses).
      items: the number of training items of each task.
      test_items: the number of test items at each size.
      longest: the length of the longest training sequence of copy and reverse.
      deepest: the most relative clauses in a training sentence of agreement.
      symbols: the size of the alphabet of copy and reverse.
      widths: Widths of both networks.
      train: Optimiser, learning rate, the seed of data and training, and how often to save.
      fresh: remove the stored run of that name, and start again.
    """

    preset: Literal["quick", "smoke"] = "quick"
    name: str = "length"
    tasks: tuple[str, ...] = ("copy", "reverse", "digits", "agreement")
    items: int = 20_000
    test_items: int = 64
    longest: int = 20
    deepest: int = 2
    symbols: int = 40
    widths: Widths = field(
        default_factory=lambda: Widths(
            embed_dim=32, hidden_dim=64, align_dim=64, readout_dim=32, dropout_rate=0.1
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=1000, learning_rate=5e-3, checkpoint_every=500)
    )
    fresh: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.tasks) - {*MOVES, "agreement"}
        if unknown or not self.tasks:
            raise ValueError(
                f"tasks={self.tasks} must be some of copy, reverse, digits and agreement"
            )
        if self.symbols < 2 * self.longest:
            raise ValueError(
                f"symbols={self.symbols} must be at least 2 · longest = {2 * self.longest}: the "
                "test sequences are that long, and no symbol occurs twice"
            )


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(
        preset="smoke",
        name="length-smoke",
        tasks=("copy",),
        items=200,
        test_items=4,
        longest=5,
        deepest=1,
        symbols=10,
        widths=Widths(embed_dim=8, hidden_dim=12, align_dim=8, readout_dim=8),
        train=TrainConfig(steps=20, batch_size=16, warmup_steps=5, checkpoint_every=10),
    ),
}


@dataclass(frozen=True)
class TaskData:
    """The training and test items of one task, and the sizes in training."""

    train: Sequence[Item]
    test: Sequence[Item]
    trained: tuple[int, int]
    size_label: str


def make_data(task: str, settings: Settings) -> TaskData:
    """Draws a task's items; test sizes reach twice the trained length, or four times the depth."""
    rng = np.random.default_rng(settings.train.seed)
    if task == "agreement":
        depths = range(settings.deepest + 1)
        deeper = sorted({*depths, *(settings.deepest * k // 2 for k in range(3, 9))})
        train = agreements(rng, settings.items, depths)
        test = agreements(rng, settings.test_items * len(deeper), deeper)
        return TaskData(train, test, (0, settings.deepest), "relative clauses")
    longest = DIGITS_LENGTH if task == "digits" else settings.longest
    lengths = range(1, longest + 1)
    tested = sorted({max(1, longest * tenths // 10) for tenths in TENTHS})
    count = settings.test_items * len(tested)
    if task == "digits":
        train = digit_copies(digits(settings.items), lengths)
        unseen = digits(settings.items // 2 + count, 2 * longest)[-count:]
        test = digit_copies(unseen, tested)
    else:
        train = copies(rng, settings.items, lengths, settings.symbols)
        test = copies(rng, count, tested, settings.symbols)
    if task != "copy":
        train, test = backwards(train), backwards(test)
    return TaskData(train, test, (1, longest), "length")


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains both networks on every task, and writes the report."""
    directory = directory_of(settings.name)
    with opened(directory, "length"):
        results = {}
        times = {
            f"{task}-{system}": SECONDS[system] for task in settings.tasks for system in SECONDS
        }
        whole = WholeRun(times)
        for task in settings.tasks:
            data = make_data(task, settings)
            results[task] = train_on(task, data, settings, directory, console, whole)
        claims = [claim for task, result in results.items() for claim in claims_of(task, result)]
        findings = Findings(command, settings.preset, settings.train.seed, results, claims)
        publish(make_report(findings), directory / "report", console)
        return claims


def train_on(
    task: str,
    data: TaskData,
    settings: Settings,
    directory: Path,
    console: Console,
    whole: WholeRun,
) -> TaskResult:
    """Trains both networks on one task and measures them on every test item."""
    pairs = TrainingPairs(
        [(item.source, item.target) for item in data.train],
        longest=max(len(item.source) for item in data.test),
        shapes=1,
    )
    seconds, accuracy, outputs = {}, {}, []
    for system in SECONDS:
        label = SYSTEMS[system].label
        console.rule(f"{task}: {label}", align="left")
        translator = train_translator(
            pairs,
            system,
            settings.widths,
            settings.train,
            directory / f"{task}-{system}",
            console=console,
            fresh=settings.fresh,
            part=whole.part(f"{task}-{system}"),
        )
        outputs = translator.translate([item.source for item in data.test])
        seconds[label] = translator.seconds
        accuracy[label] = accuracy_by_size(data.test, outputs)
    return TaskResult(
        trained=data.trained,
        size_label=data.size_label,
        seconds=seconds,
        accuracy=accuracy,
        moves=moves_by_size(data.test, outputs) if task in MOVES else {},
        example=example(data, outputs),
    )


def accuracy_by_size(items: Sequence[Item], outputs: Sequence[Alignment]) -> dict[int, float]:
    """Share of the target's words that are output in the right place, by size."""
    shares = defaultdict(list)
    for item, alignment in zip(items, outputs, strict=True):
        pairs = zip(item.target, alignment.generated, strict=False)
        shares[item.size].append(sum(a == b for a, b in pairs) / len(item.target))
    return {size: float(np.mean(found)) for size, found in sorted(shares.items())}


def moves_by_size(items: Sequence[Item], outputs: Sequence[Alignment]) -> dict[int, float]:
    """The mean move of attention from one output to the next, by size."""
    moves = defaultdict(list)
    for item, alignment in zip(items, outputs, strict=True):
        if len(alignment.generated) > 1:
            moves[item.size].append(mean_move(alignment.weights))
    return {size: float(np.mean(found)) for size, found in sorted(moves.items())}


def example(data: TaskData, outputs: Sequence[Alignment]) -> Alignment:
    """The alignment of the first test item of the largest trained size that fits a figure."""
    sizes = [item.size for item in data.test if item.size <= data.trained[1]]
    size = max(size for size in sizes if size <= 12)
    return next(a for item, a in zip(data.test, outputs, strict=True) if item.size == size)


def claims_of(task: str, result: TaskResult) -> list[Claim]:
    """The claims about a task."""
    attention, last_state = result.accuracy[ATTENTION], result.accuracy[LAST_STATE]
    shortest, longest, largest = min(attention), result.trained[1], max(attention)

    def measured(size: int) -> str:
        return f"{attention[size]:.2f} with attention, {last_state[size]:.2f} from the last state"

    if task == "agreement":
        statement = f"trained on {longest} clauses, with attention at least 0.90 across {largest}"
        return [Claim(f"{task}: {statement}", measured(largest), attention[largest] >= 0.9)]
    aim = "with attention at least 0.95, from the last state at most 0.50"
    reached = attention[longest] >= 0.95 and last_state[longest] <= 0.5
    if task == "digits":  # where a one-layer Transformer is published to be right throughout
        aim, reached = "with attention at least 0.99", attention[longest] >= 0.99
    return [
        Claim(
            f"{task}: at length {shortest} the two networks are within 0.10",
            measured(shortest),
            abs(attention[shortest] - last_state[shortest]) <= 0.1,
        ),
        Claim(
            f"{task}: at length {longest}, the longest in training, {aim}",
            measured(longest),
            reached,
        ),
        Claim(
            f"{task}: at length {largest}, twice that, attention is ahead by at least 0.10",
            measured(largest),
            attention[largest] >= last_state[largest] + 0.1,
        ),
        Claim(
            f"{task}: at length {longest} attention moves by {MOVES[task]:+d} a step, within 0.10",
            f"{result.moves[longest]:+.2f}",
            abs(result.moves[longest] - MOVES[task]) <= 0.1,
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    """The experiment as a program."""
    description = "Copies, reverses and agrees, with attention and from a last state, by length."
    return run_program("length", description, PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
