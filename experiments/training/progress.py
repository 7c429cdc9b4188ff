"""How far a run is: a bar in a terminal, a line every few seconds anywhere else.

step 120/2,000 · loss 3.412 · 5,300 tokens/s · 0:01:02 elapsed · 0:16:20 left
"""

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console

EVERY_SECONDS = 5.0


class Progress:
    """Tells a reader at a terminal, or of a log, that the run lives and when it ends."""

    def __init__(
        self,
        console: Console,
        bar: rich.progress.Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._bar, self._clock = console, bar, clock
        self._began = clock()
        self._spoke = -float("inf")
        self._aside = 0.0
        self._steps, self._first, self._step = 0, 0, 0
        self._measured = ""

    def begin(self, step: int, steps: int) -> None:
        """The run has made `step` of its `steps` steps before this sitting."""
        self._began = self._clock()
        self._steps, self._first, self._step = steps, step, step
        if self._bar is not None:
            self._bar.add_task(self.sentence(), total=steps, completed=step)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def aside(self, seconds: float) -> None:
        """Time that says nothing about the speed of a step, such as compiling."""
        self._aside += seconds

    def measured(self, loss: float, tokens_per_second: float) -> None:
        """The newest numbers of the metrics file."""
        self._measured = f" · loss {loss:.3f} · {tokens_per_second:,.0f} tokens/s"

    def step(self, step: int) -> None:
        """One more step is made."""
        self._step = step
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.update(task, completed=step, description=self.sentence())
        elif self._clock() - self._spoke >= EVERY_SECONDS or step == self._steps:
            self._spoke = self._clock()
            self.say(self.sentence())

    def sentence(self) -> str:
        """Where the run is, in one line."""
        elapsed = self._clock() - self._began
        done = self._step - self._first
        left = "?"
        if done:
            left = _clock_face((elapsed - self._aside) / done * (self._steps - self._step))
        return (
            f"step {self._step:,}/{self._steps:,}{self._measured} · "
            f"{_clock_face(elapsed)} elapsed · {left} left"
        )


@contextmanager
def shown(console: Console | None) -> Iterator[Progress]:
    """Shows progress on `console` until the block ends; None is silence."""
    console = console or Console(quiet=True)
    if not console.is_terminal:
        yield Progress(console)
        return
    columns = (
        rich.progress.SpinnerColumn(),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.description}", markup=False),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        yield Progress(console, bar)


def _clock_face(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
