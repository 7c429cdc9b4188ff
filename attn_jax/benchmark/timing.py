"""Times contenders in turns, so that a change of the machine's speed affects all of them alike."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

import numpy as np

FEWEST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Spread:
    """Seconds a call: the median of the samples, and their quartiles."""

    median: float
    lower: float
    upper: float
    samples: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """The spread of samples."""
        lower, median, upper = np.percentile(seconds, (25, 50, 75))
        return cls(float(median), float(lower), float(upper), len(seconds))


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long `alternate` may measure.

    Attributes:
      rounds: how many rounds to run.
      seconds: after that time no further round starts, once there are `FEWEST_ROUNDS`.
      sample_seconds: a sample is as many calls as fill this time: the clock cannot resolve a call
        of microseconds.
      warm_seconds: before each sample, calls that fill this time are not counted: after a contender
        with threads of its own, the operating system takes that long to give both cores to the next
        contender's threads.
    """

    rounds: int = 15
    seconds: float = 120.0
    sample_seconds: float = 0.05
    warm_seconds: float = 0.2


def alternate(
    runners: Mapping[str, Callable[[int], object]],
    budget: Budget,
    *,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[], object] = lambda: None,
) -> dict[str, Spread]:
    """Times every runner once a round, in order in one round and in reverse in the next.

    Each runner is called twice beforehand, uncounted. `i` in `run(i)` is the number of the call, by
    which the runner chooses among its inputs. `after_round` is called after each round.

    Returns:
      For each runner the median and quartiles of its samples, in seconds a call.
    """
    seconds = {name: _seconds(run, clock) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    names, start = list(runners), clock()
    for turn in range(budget.rounds):
        if turn >= FEWEST_ROUNDS and clock() - start > budget.seconds:
            break
        order = names if turn % 2 == 0 else names[::-1]
        for name in order:
            warm = math.ceil(budget.warm_seconds / seconds[name])
            calls = max(1, math.ceil(budget.sample_seconds / seconds[name]))
            first = turn * (warm + calls)
            for i in range(first, first + warm):
                runners[name](i)
            samples[name].append(_sample(runners[name], first + warm, calls, clock))
        after_round()
    return {name: Spread.of(seconds) for name, seconds in samples.items()}


def _sample(run: Callable[[int], object], first: int, calls: int, clock: Callable) -> float:
    """The mean seconds of several calls, the first of which has the number `first`."""
    start = clock()
    for i in range(first, first + calls):
        run(i)
    return (clock() - start) / calls


def _seconds(run: Callable[[int], object], clock: Callable) -> float:
    """The seconds of one call, the second of two, as an estimate."""
    run(0)
    return max(_sample(run, 1, 1, clock), 1e-7)
