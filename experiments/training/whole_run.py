"""The time that is left of a run with several parts, such as the training of several networks.

Each part has an expected time, that on two cores of a CPU. The ratio of measured to expected time
of the work that is done corrects the expected time of the rest. Compilation is no part of that
ratio: it takes a fixed time for each part that has not started.
"""

import time
from collections.abc import Callable, Mapping, Sequence

PRIOR = 0.03  # share of all work that counts as if done in the expected time, against jumps


class Part:
    """One part of a run; `start` and `done` report its progress."""

    def __init__(self, run: "WholeRun", seconds: float) -> None:
        self._run = run
        self.expected = seconds
        self.share = 0.0
        self.has_started = False

    def start(self, share: float = 0.0) -> None:
        """Starts the part; `share` of it was done in an earlier process."""
        self.has_started = True
        self._run.begin(self, share)

    def done(self, share: float) -> None:
        """Sets the share of the part that is done."""
        self._run.add(self.expected * (share - self.share))
        self.share = share

    def exclude(self, seconds: float) -> None:
        """Leaves time such as that of compiling out of the measured speed."""
        self._run.exclude(seconds)

    @property
    def seconds_after(self) -> float:
        """The seconds that the run will take after this part."""
        return self._run.left_after(self)


class WholeRun:
    """The expected time of a run, corrected by the measured speed.

    Args:
      seconds: the expected time of each part, in order, without compilation.
      compilation: the expected time of compilation of each part.
      clock: measures time in seconds.

    Example:
      >>> now = [0.0]
      >>> run = WholeRun({"first": 100.0, "second": 300.0}, clock=lambda: now[0])
      >>> run.left
      400.0
      >>> run.part("first").start()
      >>> now[0] = 200.0
      >>> run.part("first").done(1.0)         # twice as slow as expected
      >>> round(run.left, -1)
      570.0
    """

    def __init__(
        self,
        seconds: Mapping[str, float],
        compilation: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = {name: Part(self, expected) for name, expected in seconds.items()}
        self._compilation, self._clock = compilation, clock
        self._began: float | None = None
        self._finished_seconds = 0.0  # of earlier parts, measured
        self._work = 0.0  # expected seconds of the work that this process did
        self._excluded = 0.0

    def part(self, name: str) -> Part:
        """The part of that name."""
        return self._parts[name]

    @property
    def total(self) -> float:
        """The expected seconds of all parts."""
        return sum(part.expected for part in self._parts.values())

    @property
    def left(self) -> float:
        """The seconds that are left of all parts, estimated from the speed so far."""
        return self._left([*self._parts.values()])

    def left_after(self, part: Part) -> float:
        """The seconds that are left of all other parts."""
        return self._left([other for other in self._parts.values() if other is not part])

    def _left(self, parts: Sequence[Part]) -> float:
        prior = PRIOR * self.total
        running = 0.0 if self._began is None else self._clock() - self._began - self._excluded
        speed = (self._finished_seconds + running + prior) / max(self._work + prior, 1e-9)
        open_work = sum(part.expected * (1 - part.share) for part in parts)
        return open_work * speed + self._compilation * sum(not part.has_started for part in parts)

    def begin(self, part: Part, share: float) -> None:
        """Starts to measure a part, if some of it is left; see `Part.start`."""
        part.share = share
        if self._began is not None:
            self._finished_seconds += max(self._clock() - self._began - self._excluded, 0.0)
        self._began, self._excluded = (self._clock() if share < 1 else None), 0.0

    def add(self, work: float) -> None:
        """Adds expected seconds of work that is done."""
        self._work += work

    def exclude(self, seconds: float) -> None:
        """Leaves time out of the measured speed."""
        self._excluded += seconds
