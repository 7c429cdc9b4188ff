"""A small GPT learns to sort letters, and shows what its heads read to do it.

    .venv/bin/python -m experiments.sort  # a minute or two on two cores
    .venv/bin/python -m experiments.sort --preset smoke  # the same path in half a minute

The example of https://github.com/karpathy/minGPT (demo.ipynb): a question of letters, then the same
letters sorted, and only the answer counts in the loss. A quarter of all questions is held out, so
that what is right about them was not learned by heart.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import grain
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from rich.console import Console

from attn_jax.models import GPT, DecoderConfig, generate
from experiments.data.windows import Windows
from experiments.measures.alignments import Alignment
from experiments.measures.heads import head_names, head_weights, readings
from experiments.reports.claims import Claim
from experiments.reports.program import run_program
from experiments.reports.report import publish
from experiments.reports.sort_report import Findings, make_report
from experiments.systems.language_model import LanguageModel
from experiments.systems.sizes import check_heads
from experiments.training.runs import directory_of, locked
from experiments.training.task import Task, TrainConfig
from experiments.training.train import TrainResult, fit

LETTERS = "ABCDEFGHIJ"
MOST_QUESTIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a run depends on.

    Attributes:
      name: of the run: everything it writes is in runs/NAME.
      letters: how many different ones there are.
      length: of a question.
      held_out: share of all questions that are not trained on.
      num_layers: blocks of the model.
      num_heads: of a block.
      model_dim: width of a token's vector.
      train: optimiser, schedule, and the seed of data and training.
      fresh: forget what an earlier run of that name stored.
    """

    name: str = "sort"
    letters: int = 3
    length: int = 6
    held_out: float = 0.25
    num_layers: int = 3
    num_heads: int = 3
    model_dim: int = 48
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1000,
            optimiser="adamw",
            learning_rate=2e-3,
            beta2=0.95,
            weight_decay=0.1,
            validate_every=250,
        )
    )
    fresh: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.letters <= len(LETTERS):
            raise ValueError(f"letters={self.letters} must be from 2 to {len(LETTERS)}")
        if self.length < 2 or self.letters**self.length > MOST_QUESTIONS:
            raise ValueError(
                f"length={self.length} must be at least 2, and letters^length at most "
                f"{MOST_QUESTIONS:,}: every question is asked in the end"
            )
        check_heads(self.num_heads, self.model_dim)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} must be above 0 and below 1")

    @property
    def model(self) -> DecoderConfig:
        """GPT-2 in small."""
        return DecoderConfig(
            vocab_size=self.letters,
            model_dim=self.model_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            max_length=2 * self.length,
        )


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(
        name="sort-smoke",
        length=4,
        num_layers=2,
        num_heads=2,
        model_dim=8,
        train=TrainConfig(
            steps=20, batch_size=16, warmup_steps=5, validate_every=10, checkpoint_every=10
        ),
    ),
    "full": Settings(
        name="sort-full",
        letters=4,
        length=7,
        train=dataclasses.replace(Settings().train, steps=5000, validate_every=1000),
    ),
}


@dataclass(frozen=True)
class Course:
    """All questions with their answers, and which of them are held out.

    Attributes:
      train: to learn from.
      held_out: never trained on.
    """

    train: Int[np.ndarray, "B T"]
    held_out: Int[np.ndarray, "C T"]


def make_course(settings: Settings) -> Course:
    """Every question once, in an order drawn by the seed; the first ones are held out.

    Raises:
      ValueError: too few are left to fill a batch.
    """
    letters = range(settings.letters)
    questions = np.array([*itertools.product(letters, repeat=settings.length)], np.int32)
    rows = np.concatenate([questions, np.sort(questions, axis=1)], axis=1)
    rows = np.random.default_rng(settings.train.seed).permutation(rows)
    held_out = max(1, round(settings.held_out * len(rows)))
    if len(rows) - held_out < settings.train.batch_size:
        raise ValueError(
            f"{len(rows) - held_out} questions cannot fill one batch of "
            f"batch_size={settings.train.batch_size}; lower it, or hold out fewer"
        )
    return Course(rows[held_out:], rows[:held_out])


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains the model, asks it every question, and looks into its heads."""
    directory = directory_of(settings.name)
    with locked(directory):
        course = make_course(settings)
        learner = LanguageModel.of(settings.model, given=settings.length)
        console.print(
            f"{len(course.train):,} questions to learn from, {len(course.held_out):,} held out, "
            f"such as {spelled(course.held_out[0])}; {learner.size:,} parameters",
            soft_wrap=True,
        )
        task = training_task(settings, course, learner)
        train, fresh = settings.train, settings.fresh
        result = fit(task, train, directory / "model", console=console, fresh=fresh)
        findings = examine(settings, course, learner, result, command)
        publish(make_report(findings), directory / "report", console)
        return findings.claims


def training_task(settings: Settings, course: Course, learner: LanguageModel) -> Task:
    """The task on the questions that are not held out; those that are validate."""
    shuffled = grain.MapDataset.range(len(course.train)).seed(settings.train.seed).shuffle()
    rows = shuffled.map(lambda i: Windows(course.train[i]))
    batches = rows.batch(settings.train.batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    evaluate = learner.evaluation([Windows(course.held_out)])
    return Task(
        name="GPT that sorts",
        config={
            "num_layers": settings.num_layers,
            "num_heads": settings.num_heads,
            "model_dim": settings.model_dim,
            "letters": settings.letters,
            "length": settings.length,
            "held_out": settings.held_out,
        },
        init=learner.init,
        loss=learner.loss,
        dataset=batches.repeat().to_iter_dataset(options),
        validate=lambda params: {"loss": evaluate(params)},
    )


def examine(
    settings: Settings, course: Course, learner: LanguageModel, result: TrainResult, command: str
) -> Findings:
    """What the trained model answers to every question, and what its heads read meanwhile."""
    model, length = learner.model(result.params), settings.length
    parts = {"trained on": course.train, "held out": course.held_out}
    rows = np.concatenate([*parts.values()])
    answers = answered(model, rows[:, :length])
    is_right = (answers == rows[:, length:]).all(axis=1)
    seen, unseen = np.split(is_right, [len(course.train)])
    right = {"trained on": int(seen.sum()), "held out": int(unseen.sum())}
    counts = {name: len(rows) for name, rows in parts.items()}
    shown = len(course.train) + most_mixed(course.held_out[:, :length], settings.letters)
    example = np.concatenate([rows[shown, :length], answers[shown]])
    return Findings(
        command=command,
        model=(
            f"{settings.num_layers} layers, {settings.num_heads} heads, width "
            f"{settings.model_dim}, {learner.size:,} parameters; {settings.train.steps:,} steps in "
            f"{result.seconds:.0f} s, seed {settings.train.seed}."
        ),
        sorted_right={"all": sum(right.values()), **right},
        inputs={"all": sum(counts.values()), **counts},
        question=spelled(example[:length]),
        said=spelled(example[length:]),
        heads=pictures(model, example),
        readings=readings(model, rows),
        claims=claims_of(right, counts),
    )


def answered(model: GPT, questions: Int[np.ndarray, "B S"]) -> Int[np.ndarray, "B S"]:
    """What the model says after each question, the likeliest letter each time."""
    said = generate(model, questions.tolist(), max_new_tokens=questions.shape[1])
    return np.array(said.tokens, np.int32)


def most_mixed(questions: Int[np.ndarray, "B S"], letters: int) -> int:
    """The first question that has its letters as equally often as any: one that shows much."""
    counts = (questions[:, :, None] == np.arange(letters)[None, None, :]).sum(axis=1)
    return int(counts.var(axis=1).argmin())


def claims_of(right: dict[str, int], counts: dict[str, int]) -> tuple[Claim, ...]:
    """That every question is answered right, and so are those that it has never seen."""
    held_out = right["held out"], counts["held out"]
    return (
        Claim(
            "it sorts all inputs that there are",
            f"{sum(right.values())} of {sum(counts.values())}",
            right == counts,
        ),
        Claim(
            "among them those that were held out",
            "{} of {}".format(*held_out),
            held_out[0] == held_out[1],
        ),
    )


def pictures(model: GPT, tokens: Int[np.ndarray, " T"]) -> dict[str, Alignment]:
    """What each head reads for every letter of one answer."""
    length, letters = len(tokens) // 2, spelled(tokens)
    weights = np.asarray(head_weights(model, jnp.asarray(tokens[:-1])), np.float64)
    rows = weights.reshape(-1, *weights.shape[2:])[:, length - 1 :]
    return {
        name: Alignment(tuple(letters[:-1]), tuple(letters[length:]), row)
        for name, row in zip(head_names(model), rows, strict=True)
    }


def spelled(ids: Int[np.ndarray, " T"]) -> str:
    """Ids as letters."""
    return "".join(LETTERS[i] for i in ids)


def main(arguments: Sequence[str]) -> int:
    """The experiment as a program."""
    description = "Sorts letters with a small GPT, and shows what its heads read."
    return run_program("sort", description, PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
