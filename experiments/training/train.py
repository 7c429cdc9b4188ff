"""The one training loop of every experiment.

An experiment is a `Task`: parameters to begin with, a loss of one batch, an endless dataset, and
perhaps a validation. `fit` trains it in a run directory and may be killed at any instant: started
again, it goes on from the newest whole checkpoint and ends with the same bits as an unbroken run.
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
from experiments.training.mesh_processes import at_first, greatest, held_at_first, written_at_first
from experiments.training.progress import shown
from experiments.training.session import Session
from experiments.training.task import Task, TrainConfig

__all__ = ["Task", "TrainConfig", "TrainResult", "fit", "load_params"]


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its params, time over all sittings, updates, and metrics file."""

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
) -> TrainResult:
    """Trains `task` in `directory`, or goes on where an earlier process stopped.

    A run that is complete returns its stored params at once. The first Ctrl-C saves and leaves by
    `SystemExit`; the same call later continues.

    Args:
      task: what to train.
      config: how.
      directory: of this run alone.
      console: where to show progress; None is silence.
      fresh: forget what an earlier run stored in `directory`.
      placement: where params and batches lie; one device by default. A run may go on elsewhere
        than where it began, and on another number of processes.

    Raises:
      RunInUse: another process trains in `directory`.
      CheckpointMismatch: `directory` holds another run.
      CheckpointCorrupt: every checkpoint in `directory` is damaged.
      CheckpointNotSaved: a checkpoint could not be written; the earlier ones are as they were.
      FloatingPointError: loss, gradient or validation is not finite.
      OSError: the disk cannot hold the checkpoints.
    """
    with (
        held_at_first(runs.locked(directory)),
        written_at_first(directory) as notes,
        shown(console) as progress,
    ):
        if fresh:
            at_first(lambda: runs.clear(directory))
        session = Session(task, config, directory, progress, placement, notes)
        if session.step == config.steps:
            progress.say(
                f"already trained: {task.name}, {session.step:,} steps in {session.seconds:.0f} s "
                f"({directory}); pass --fresh to train again"
            )
        else:
            _train(session, config)
        return TrainResult(
            session.state.params, session.seconds, session.step, session.metrics.path
        )


def load_params(directory: Path, like: PyTree) -> PyTree:
    """The newest params of a run, finished or not; `like` has their tree, shapes and dtypes.

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
    session.begin()
    with runs.stop_requests() as stop, _explained(session):
        while session.step < config.steps:
            session.advance()
            last = session.step == config.steps
            validating = last or session.step % config.validate_every == 0
            logging = validating or session.step % config.log_every == 0
            if logging:
                session.log(validating)
            session.progress.step(session.step)
            stopping = _asked_to_stop(stop, logging)
            if last or stopping or session.step % config.checkpoint_every == 0:
                session.save()
            if stopping:
                session.progress.say(
                    f"stopped at step {session.step:,}; run the same command to continue"
                )
                raise SystemExit(128 + stopping)


def _asked_to_stop(stop: runs.StopRequest, logging: bool) -> int:
    """The signal that asks the run to stop, or 0; all processes give the same answer.

    They ask each other only where a line is logged, for there they wait for the devices anyway.
    """
    if jax.process_count() > 1 and not logging:
        return 0
    return greatest(stop.signal or 0)


@contextmanager
def _explained(session: Session) -> Iterator[None]:
    """Adds to a number that is not finite what is left of the run, and what to do."""
    try:
        yield
    except FloatingPointError as error:
        step = session.saved_step
        kept = "there is no checkpoint" if step is None else f"the last good checkpoint is {step}"
        raise FloatingPointError(
            f"{error}; {kept} in {session.checkpoints}. The same command would meet it again: "
            "lower learning_rate or clip_norm, with another --name or --fresh"
        ) from error
