"""The training loop of all experiments.

A `Task` has initial parameters, a loss of one batch, an endless dataset, and perhaps a validation.
`fit` trains it in a run directory. It may be killed at any time: the same call resumes from the
newest undamaged checkpoint, and the result has the same bits as that of an uninterrupted run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
from jaxtyping import PyTree
from rich.console import Console

from experiments.training import checkpoints, runs
from experiments.training.mesh import OneDevice
from experiments.training.mesh_processes import (
    directory_of_first_process,
    held_by_first_process,
    max_over_processes,
    on_first_process,
)
from experiments.training.progress import show_progress
from experiments.training.session import Session
from experiments.training.task import Task, TrainConfig
from experiments.training.whole_run import Part

__all__ = ["Task", "TrainConfig", "TrainResult", "fit", "load_params"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run: params, time of all its parts, number of updates, and metrics file."""

    params: PyTree
    seconds: float
    steps: int
    history: Path


def fit(
    task: Task,
    config: TrainConfig,
    directory: Path,
    *,
    console: Console | None = None,
    fresh: bool = False,
    placement: OneDevice | None = None,
    part: Part | None = None,
) -> TrainResult:
    """Trains `task` in `directory`, or resumes an earlier run there.

    A complete run returns its stored params at once. The first Ctrl-C saves a checkpoint and raises
    `SystemExit`; the same call resumes later.

    Args:
      task: what to train.
      config: the training settings.
      directory: of this run alone.
      console: where to show progress; None for nowhere.
      fresh: remove an earlier run in `directory` first.
      placement: of params and batches; one device by default. A run may resume with another
        placement and another number of processes.
      part: the part of a longer run that this training is, for the estimate of the time left.

    Raises:
      RunInUse: another process trains in `directory`.
      CheckpointMismatch: `directory` holds another run.
      CheckpointCorrupt: every checkpoint in `directory` is damaged.
      CheckpointNotSaved: a checkpoint could not be written; the earlier ones are unchanged.
      FloatingPointError: loss, gradient or validation is not finite.
      OSError: the disk has too little space for the checkpoints.
    """
    with (
        held_by_first_process(runs.locked(directory)),
        directory_of_first_process(directory) as notes,
        show_progress(console, part=part) as progress,
    ):
        if fresh:
            on_first_process(lambda: runs.clear(directory))
        session = Session(task, config, directory, progress, placement, notes)
        if session.step == config.steps:
            if part is not None:
                part.start(1.0)
            progress.print_line(
                f"already trained: {task.name}, {session.step:,} steps in {session.seconds:.0f} s "
                f"({directory}); pass --fresh to train again"
            )
        else:
            _train(session, config)
        return TrainResult(
            session.state.params, session.seconds, session.step, session.metrics.path
        )


def load_params(directory: Path, like: PyTree) -> PyTree:
    """The newest params of a run, finished or not; `like` is a tree of their shapes and dtypes.

    `jax.eval_shape(task.init, jax.random.key(0))` is such a tree.

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointMismatch: the stored params have another tree, shape or dtype.
      CheckpointCorrupt: every checkpoint is damaged.
    """
    checkpoint = checkpoints.newest(directory / runs.CHECKPOINTS)
    if checkpoint is None:
        raise FileNotFoundError(f"{directory} holds no checkpoint yet; train first")
    return checkpoints.restore(checkpoint, like, under="params")


def _train(session: Session, config: TrainConfig) -> None:
    session.start()
    with runs.stop_requests() as stop, _with_remedy(session):
        while session.step < config.steps:
            session.advance()
            last = session.step == config.steps
            validating = last or session.step % config.validate_every == 0
            logging = validating or session.step % config.log_every == 0
            if logging:
                session.log(validating)
            session.progress.step(session.step)
            stopping = _stop_signal(stop, logging)
            if last or stopping or session.step % config.checkpoint_every == 0:
                session.save()
            if stopping:
                session.progress.print_line(
                    f"stopped at step {session.step:,}; run the same command to continue"
                )
                raise SystemExit(128 + stopping)


def _stop_signal(stop: runs.StopRequest, logging: bool) -> int:
    """The signal that requests the run to stop, or 0; the same in all processes.

    Processes compare only when a line is logged, because they wait for the devices then anyway.
    """
    if jax.process_count() > 1 and not logging:
        return 0
    return max_over_processes(stop.signal or 0)


@contextmanager
def _with_remedy(session: Session) -> Iterator[None]:
    """Adds the last checkpoint and a remedy to the error about a number that is not finite."""
    try:
        yield
    except FloatingPointError as error:
        step = session.saved_step
        kept = "there is no checkpoint" if step is None else f"the last good checkpoint is {step}"
        raise FloatingPointError(
            f"{error}; {kept} in {session.checkpoints}. The same command would fail again: "
            "lower --train.learning-rate or --train.clip-norm, with another --name or --fresh"
        ) from error
