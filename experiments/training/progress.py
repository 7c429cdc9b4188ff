"""The progress of a run: a bar in a terminal, else a line every few seconds.

step 120/2,000 · loss 3.412 · 5,300 tokens/s · 0:01:02 elapsed · 0:16:20 left (whole run 0:41:00)
"""

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console

from experiments.training.whole_run import Part

EVERY_SECONDS = 5.0


class Progress:
    """Prints step, loss, speed, and elapsed and remaining time, also that of the whole run."""

    def __init__(
        self,
        console: Console,
        bar: rich.progress.Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        part: Part | None = None,
        unit: str = "step",
    ) -> None:
        self._part, self._unit = part, unit
        self._console, self._bar, self._clock = console, bar, clock
        self._began = clock()
        self._printed_at = -float("inf")
        self._excluded = 0.0
        self._steps, self._first, self._step = 0, 0, 0
        self._measured = ""

    def start(self, step: int, steps: int) -> None:
        """Starts at `step` of `steps`; a resumed run has `step` above 0."""
        self._began = self._clock()
        self._steps, self._first, self._step = steps, step, step
        if self._part is not None:
            self._part.start(step / steps)
        if self._bar is not None:
            self._bar.add_task(self.line(), total=steps, completed=step)

    def print_line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def exclude(self, seconds: float) -> None:
        """Excludes time, such as that of compiling, from the speed of the steps."""
        self._excluded += seconds
        if self._part is not None:
            self._part.exclude(seconds)

    def measured(self, loss: float, tokens_per_second: float) -> None:
        """Sets the loss and the speed to show."""
        self._measured = f" · loss {loss:.3f} · {tokens_per_second:,.0f} tokens/s"

    def step(self, step: int) -> None:
        """Shows that `step` is done."""
        self._step = step
        if self._part is not None:
            self._part.done(step / self._steps)
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.update(task, completed=step, description=self.line())
        elif self._clock() - self._printed_at >= EVERY_SECONDS or step == self._steps:
            self._printed_at = self._clock()
            self.print_line(self.line())

    def line(self) -> str:
        """The progress in one line."""
        elapsed = self._clock() - self._began
        done = self._step - self._first
        left, of_run = "?", ""
        if done:
            seconds = (elapsed - self._excluded) / done * (self._steps - self._step)
            left = as_clock(seconds)
            if self._part is not None:
                of_run = f" (whole run {as_clock(seconds + self._part.seconds_after)})"
        return (
            f"{self._unit} {self._step:,}/{self._steps:,}{self._measured} · "
            f"{as_clock(elapsed)} elapsed · {left} left{of_run}"
        )


@contextmanager
def show_progress(
    console: Console | None, *, part: Part | None = None, unit: str = "step"
) -> Iterator[Progress]:
    """Shows progress until the block ends.

    Args:
      console: where; None for nowhere.
      part: the part of a run that progresses; with it each line has the time left of the run.
      unit: what is counted.
    """
    console = console or Console(quiet=True)
    if not console.is_terminal:
        yield Progress(console, part=part, unit=unit)
        return
    columns = (
        rich.progress.SpinnerColumn(),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.description}", markup=False),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        yield Progress(console, bar, part=part, unit=unit)


def as_clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 0:16:20."""
    return str(datetime.timedelta(seconds=round(seconds)))
