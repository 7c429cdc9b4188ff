"""The metrics file: one JSON object a line, each the summary of the steps since the line before.

step               number of updates
loss, …            mean over those steps, weighted by their tokens
tokens             target tokens since the run started
tokens_per_second  of the steps alone, without compiling, validating and saving
learning_rate      of the last step
grad_norm          mean over those steps, before clipping
seconds            time of the run, summed over resumed parts
validation_…       results of the task's validation
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from experiments.training import runs


class Metrics:
    """Collects the measurements of each step; they stay on the device until a line is written."""

    def __init__(self, path: Path, saved: Mapping[str, Any] | None = None, log: str = "") -> None:
        saved = saved or {"tokens": 0, "step_seconds": 0.0, "pending": []}
        self.path = path
        self.tokens: int = saved["tokens"]
        self.step_seconds: float = saved["step_seconds"]
        self.pending: list[dict[str, Any]] = list(saved["pending"])
        self.lines = log
        self._resumed = time.monotonic()
        runs.write_whole(path, log.encode())

    def add(self, step: int, measured: Mapping[str, Any]) -> None:
        """Adds a step; the arrays in `measured` may not be computed yet."""
        self.pending.append({"step": step, **measured})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time in this block from the time of the steps."""
        self._clock()
        yield
        self._resumed = time.monotonic()

    def _clock(self) -> None:
        now = time.monotonic()
        self.step_seconds += now - self._resumed
        self._resumed = now

    def write(self, seconds: float, validation: Mapping[str, float]) -> dict[str, Any]:
        """Appends a line about the steps since the last line, and returns it."""
        self.fetch()
        self._clock()
        last = self.pending[-1]
        tokens = sum(step["tokens"] for step in self.pending)
        self.tokens += int(tokens)
        means = {
            name: sum(step[name] * step["tokens"] for step in self.pending) / tokens
            for name in last
            if name not in ("step", "tokens", "learning_rate", "grad_norm")
        }
        line = {
            "step": last["step"],
            "loss": means.pop("loss"),
            "tokens": self.tokens,
            "tokens_per_second": round(tokens / max(self.step_seconds, 1e-9), 1),
            "learning_rate": last["learning_rate"],
            "grad_norm": sum(step["grad_norm"] for step in self.pending) / len(self.pending),
            "seconds": round(seconds, 3),
            **means,
            **{f"validation_{name}": float(value) for name, value in validation.items()},
        }
        require_finite(line)
        self.pending, self.step_seconds = [], 0.0
        text = json.dumps(line) + "\n"
        with self.path.open("a") as file:
            file.write(text)
        self.lines += text
        return line

    def fetch(self) -> None:
        """Moves the pending measurements to the host.

        Raises:
          FloatingPointError: one of them is not finite; the message names the first such step.
        """
        self.pending = [
            {name: value if name == "step" else float(value) for name, value in step.items()}
            for step in jax.device_get(self.pending)
        ]
        for step in self.pending:
            require_finite(step)

    def snapshot(self) -> dict[str, Any]:
        """The state of this object for a checkpoint."""
        self.fetch()
        self._clock()
        names = ("tokens", "step_seconds", "pending")
        return {name: getattr(self, name) for name in names}


def require_finite(line: Mapping[str, Any]) -> None:
    """Checks that all numbers of a line are finite.

    Raises:
      FloatingPointError: one is not; the message names the step and the numbers.
    """
    bad = [f"{name} is {value}" for name, value in line.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(f"{', '.join(bad)} at step {line['step']}")
