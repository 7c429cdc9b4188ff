"""A small GPT that sorts letters, and the attention weights of its heads.

    .venv/bin/python -m experiments.sort  # a minute or two on two cores
    .venv/bin/python -m experiments.sort --preset smoke  # a test run, half a minute

The example of https://github.com/karpathy/minGPT (demo.ipynb): the question is a sequence of
letters, the answer the same letters sorted, and only the answer counts in the loss. A quarter of
all questions is held out, to test generalisation.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import grain
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from rich.console import Console

from attn_jax.models import GPT, DecoderConfig, generate
from experiments.data.windows import Windows
from experiments.measures.alignments import Alignment
from experiments.measures.heads import all_head_statistics, head_names, head_weights
from experiments.reports.claims import Claim
from experiments.reports.program import run_program
from experiments.reports.report import publish
from experiments.reports.sort_report import Findings, make_report
from experiments.systems.language_model import LanguageModel
from experiments.systems.sizes import check_heads
from experiments.training.runs import directory_of, opened
from experiments.training.task import Task, TrainConfig
from experiments.training.train import TrainResult, fit

LETTERS = "ABCDEFGHIJ"
MOST_QUESTIONS = 100_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run.

    Attributes:
      preset: the defaults of all other options: quick (a minute or two on two cores), smoke (a test
        run of half a minute), full (four letters).
      name: a name for the run, whose files are in runs/NAME.
      letters: the size of the alphabet.
      length: the number of letters of a question.
      held_out: the share of all questions that are not in training.
      num_layers: the number of blocks of the model.
      num_heads: the number of heads of a block.
      model_dim: the width of a token's vector.
      train: Optimiser, learning rate, the seed of data and training, and how often to save.
      fresh: remove the stored run of that name, and start again.
    """

    preset: Literal["quick", "smoke", "full"] = "quick"
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
                f"{MOST_QUESTIONS:,}: every question is evaluated"
            )
        check_heads(self.num_heads, self.model_dim)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} must be above 0 and below 1")

    @property
    def model(self) -> DecoderConfig:
        """The config of the model, a small GPT-2."""
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
        preset="smoke",
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
        preset="full",
        name="sort-full",
        letters=4,
        length=7,
        train=dataclasses.replace(Settings().train, steps=5000, validate_every=1000),
    ),
}


@dataclass(frozen=True)
class TaskData:
    """All questions with their answers.

    Attributes:
      train: those in training.
      held_out: those not in training.
    """

    train: Int[np.ndarray, "B T"]
    held_out: Int[np.ndarray, "C T"]


def make_data(settings: Settings) -> TaskData:
    """Every question once, in random order; the first ones are held out.

    Raises:
      ValueError: too few are left for one batch.
    """
    letters = range(settings.letters)
    questions = np.array([*itertools.product(letters, repeat=settings.length)], np.int32)
    rows = np.concatenate([questions, np.sort(questions, axis=1)], axis=1)
    rows = np.random.default_rng(settings.train.seed).permutation(rows)
    held_out = max(1, round(settings.held_out * len(rows)))
    if len(rows) - held_out < settings.train.batch_size:
        raise ValueError(
            f"{len(rows) - held_out} questions cannot fill one batch of "
            f"{settings.train.batch_size}; lower --train.batch-size or --held-out"
        )
    return TaskData(rows[held_out:], rows[:held_out])


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains the model, evaluates it on every question, and writes the report."""
    directory = directory_of(settings.name)
    with opened(directory, "sort"):
        data = make_data(settings)
        network = LanguageModel.of(settings.model, given=settings.length)
        console.print(
            f"{len(data.train):,} training questions, {len(data.held_out):,} held out, "
            f"such as {as_letters(data.held_out[0])}; {network.size:,} parameters",
            soft_wrap=True,
        )
        task = training_task(settings, data, network)
        train, fresh = settings.train, settings.fresh
        result = fit(task, train, directory / "model", console=console, fresh=fresh)
        findings = examine(settings, data, network, result, command)
        publish(make_report(findings), directory / "report", console)
        return findings.claims


def training_task(settings: Settings, data: TaskData, network: LanguageModel) -> Task:
    """The training task; the held-out questions are for validation."""
    shuffled = grain.MapDataset.range(len(data.train)).seed(settings.train.seed).shuffle()
    rows = shuffled.map(lambda i: Windows(data.train[i]))
    batches = rows.batch(settings.train.batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    evaluate = network.evaluation([Windows(data.held_out)])
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
        init=network.init,
        loss=network.loss,
        dataset=batches.repeat().to_iter_dataset(options),
        validate=lambda params: {"loss": evaluate(params)},
    )


def examine(
    settings: Settings, data: TaskData, network: LanguageModel, result: TrainResult, command: str
) -> Findings:
    """The trained model's answers to every question, and the attention weights of its heads."""
    model, length = network.model(result.params), settings.length
    parts = {"trained on": data.train, "held out": data.held_out}
    rows = np.concatenate([*parts.values()])
    answers = predicted_answers(model, rows[:, :length])
    is_right = (answers == rows[:, length:]).all(axis=1)
    seen, unseen = np.split(is_right, [len(data.train)])
    right = {"trained on": int(seen.sum()), "held out": int(unseen.sum())}
    counts = {name: len(rows) for name, rows in parts.items()}
    shown = len(data.train) + most_balanced(data.held_out[:, :length], settings.letters)
    example = np.concatenate([rows[shown, :length], answers[shown]])
    return Findings(
        command=command,
        preset=settings.preset,
        model=(
            f"{settings.num_layers} layers, {settings.num_heads} heads, width "
            f"{settings.model_dim}, {network.size:,} parameters; {settings.train.steps:,} steps in "
            f"{result.seconds:.0f} s, seed {settings.train.seed}."
        ),
        sorted_right={"all": sum(right.values()), **right},
        inputs={"all": sum(counts.values()), **counts},
        question=as_letters(example[:length]),
        said=as_letters(example[length:]),
        heads=head_alignments(model, example),
        readings=all_head_statistics(model, rows),
        claims=claims_of(right, counts),
    )


def predicted_answers(model: GPT, questions: Int[np.ndarray, "B S"]) -> Int[np.ndarray, "B S"]:
    """The model's greedy answer to each question."""
    generated = generate(model, questions.tolist(), max_new_tokens=questions.shape[1])
    return np.array(generated.tokens, np.int32)


def most_balanced(questions: Int[np.ndarray, "B S"], letters: int) -> int:
    """The first question whose letters occur most equally often."""
    counts = (questions[:, :, None] == np.arange(letters)[None, None, :]).sum(axis=1)
    return int(counts.var(axis=1).argmin())


def claims_of(right: dict[str, int], counts: dict[str, int]) -> tuple[Claim, ...]:
    """Claims that all answers are correct, and those to held-out questions."""
    held_out = right["held out"], counts["held out"]
    return (
        Claim(
            "it sorts all possible inputs",
            f"{sum(right.values())} of {sum(counts.values())}",
            right == counts,
        ),
        Claim(
            "it sorts all held-out inputs",
            "{} of {}".format(*held_out),
            held_out[0] == held_out[1],
        ),
    )


def head_alignments(model: GPT, tokens: Int[np.ndarray, " T"]) -> dict[str, Alignment]:
    """The attention weights of each head for every letter of one answer."""
    length, letters = len(tokens) // 2, as_letters(tokens)
    weights = np.asarray(head_weights(model, jnp.asarray(tokens[:-1])), np.float64)
    rows = weights.reshape(-1, *weights.shape[2:])[:, length - 1 :]
    masked = np.triu(np.ones(weights.shape[2:], bool), 1)[length - 1 :]
    return {
        name: Alignment(tuple(letters[:-1]), tuple(letters[length:]), row, masked)
        for name, row in zip(head_names(model), rows, strict=True)
    }


def as_letters(ids: Int[np.ndarray, " T"]) -> str:
    """Ids as letters."""
    return "".join(LETTERS[i] for i in ids)


def main(arguments: Sequence[str]) -> int:
    """The experiment as a program."""
    description = "Trains a small GPT to sort letters, and shows the attention of its heads."
    return run_program("sort", description, PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
