"""The state of a training run, and its steps: update, log, save and resume."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from experiments.training import checkpoints, runs
from experiments.training.mesh import OneDevice
from experiments.training.mesh_processes import on_first_process
from experiments.training.metrics import Metrics
from experiments.training.progress import Progress
from experiments.training.task import Task, TrainConfig
from experiments.training.update import initial_state, update


class Session:
    """The training state, the position in the data, the metrics, and the compiled updates.

    Args:
      task: what to train.
      config: the training settings.
      directory: of the checkpoints.
      progress: where messages are printed.
      placement: of the state and the batches.
      notes: folder for metrics and settings; `directory` by default.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        directory: Path,
        progress: Progress,
        placement: OneDevice | None = None,
        notes: Path | None = None,
    ) -> None:
        self.task, self.config, self.progress = task, config, progress
        self.placement, notes = placement or OneDevice(), notes or directory
        self.checkpoints = directory / runs.CHECKPOINTS
        self.batches = iter(task.dataset)
        self.step = 0
        self.saved_step: int | None = None
        self._started: float | None = None
        self._earlier_seconds = 0.0
        self._programs: dict[str, jax.stages.Compiled] = {}
        self._in_flight: Any = None
        initial = partial(initial_state, task.init, config)
        like = jax.eval_shape(initial)
        self._update = jax.jit(
            partial(update, task.loss, config),
            donate_argnums=0,
            out_shardings=self.placement.outputs(like),
        )
        found = on_first_process(lambda: checkpoints.newest(self.checkpoints))
        if found is None:
            progress.print_line(f"training {task.name}: {config.steps:,} steps, in {directory}")
            self.state = jax.jit(initial, out_shardings=self.placement.shardings(like))()
            self.metrics = Metrics(notes / runs.METRICS)
        else:
            self._resume(found, self.placement.placed(like), notes / runs.METRICS)
        on_first_process(
            lambda: checkpoints.remove_leftovers(self.checkpoints, found.damaged if found else {})
        )
        runs.write_config(notes, self._identity())

    def _resume(self, found: checkpoints.Checkpoint, like: PyTree, metrics: Path) -> None:
        stored = found.state
        checkpoints.require_equal(found.path, _flat(stored["run"]), _flat(self._identity()))
        self.state = checkpoints.restore(found, like)
        self.batches.set_state(stored["cursor"])
        self.metrics = Metrics(metrics, stored["metrics"], found.log)
        self.step = self.saved_step = found.step
        self._earlier_seconds = stored["seconds"]
        for path, damage in found.damaged.items():
            self.progress.print_line(
                f"{path} is damaged ({damage}); using step {found.step:,} instead"
            )

    @property
    def seconds(self) -> float:
        """The time of the run, summed over resumed parts."""
        current = 0.0 if self._started is None else time.monotonic() - self._started
        return self._earlier_seconds + current

    def start(self) -> None:
        """Checks disk space and the dataset's state, and starts the clock."""
        on_first_process(lambda: checkpoints.require_space(self.checkpoints, self.state))
        self._cursor()
        self._started = time.monotonic()
        if self.step:
            self.progress.print_line(
                f"continuing {self.task.name} after step {self.step:,} of {self.config.steps:,}, "
                f"in {self.checkpoints.parent}"
            )
        self.progress.start(self.step, self.config.steps)

    def advance(self) -> None:
        """Makes one update; the device computes it while the next batch is prepared."""
        batch = next(self.batches, None)
        if batch is None:
            raise ValueError(
                f"the dataset of {self.task.name} ended after step {self.step}; .repeat() it"
            )
        batch = self.placement.batch(batch)
        self.state, measured = self._program(batch)(self.state, batch)
        jax.block_until_ready(self._in_flight)  # at most one step ahead
        self._in_flight = measured
        self.step += 1
        self.metrics.add(self.step, measured)

    def log(self, validating: bool) -> None:
        """Writes a line of metrics, after a validation if `validating`."""
        self.metrics.fetch()
        validation = {}
        if validating and self.task.validate is not None:
            with self.metrics.paused():
                validation = self.task.validate(self.state.params)
        line = self.metrics.write(self.seconds, validation)
        self.progress.measured(line["loss"], line["tokens_per_second"])
        if validation:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in validation.items())
            self.progress.print_line(f"step {self.step:,}: validation {scores}")

    def save(self) -> None:
        """Writes a checkpoint from which another process can resume the run."""
        state = {
            "run": self._identity(),
            "cursor": self._cursor(),
            "metrics": self.metrics.snapshot(),
            "seconds": self.seconds,
        }
        with self.metrics.paused():
            checkpoints.save(self.checkpoints, self.step, self.state, state, self.metrics.lines)
        self.saved_step = self.step

    def _program(self, batch: PyTree) -> jax.stages.Compiled:
        """The update compiled for batches of this shape."""
        shapes = ", ".join(f"{name} {form}" for name, form in checkpoints.describe(batch).items())
        if shapes not in self._programs:
            self.progress.print_line(f"compiling for {shapes} …")
            started = time.monotonic()
            with self.metrics.paused():
                self._programs[shapes] = self._update.lower(self.state, batch).compile()
            seconds = time.monotonic() - started
            self.progress.exclude(seconds)
            self.progress.print_line(f"compiling ({seconds:.1f} s)")
        return self._programs[shapes]

    def _identity(self) -> dict[str, Any]:
        """Task name, config and training settings as JSON; a run resumes only with equal ones."""
        train = dataclasses.asdict(self.config)
        identity = {"task": self.task.name, "config": dict(self.task.config), "train": train}
        return json.loads(json.dumps(identity))

    def _cursor(self) -> Any:
        """The state of the dataset's iterator as JSON."""
        cursor = self.batches.get_state()
        try:
            kept = json.loads(json.dumps(cursor))
        except TypeError:
            kept = None
        if kept != cursor:
            raise ValueError(
                f"the dataset of {self.task.name} has the position {cursor!r}, which JSON cannot "
                "represent; use a grain IterDataset whose state is a dict of strings and integers"
            )
        return kept


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """{"config": {"model": {"width": 3}}} as {"model.width": 3}: one field is one difference."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return {name.removeprefix("config."): value for name, value in walk(identity, "")}
