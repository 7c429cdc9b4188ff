"""Contenders take turns, so that what slows the machine down slows all of them down alike."""

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
        lower, median, upper = np.percentile(seconds, (25, 50, 75))
        return cls(float(median), float(lower), float(upper), len(seconds))


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a bout may take: rounds wanted, seconds after which fewer will do.

    A sample is as many calls as fill `sample_seconds`, so that a call of microseconds is not lost
    in the clock. Before it come calls that fill `warm_seconds` and do not count: where the last
    contender had threads of its own, the operating system takes that long to give both cores to the
    threads of the next one.
    """

    rounds: int = 15
    seconds: float = 120.0
    sample_seconds: float = 0.05
    warm_seconds: float = 0.2


def alternate(
    runners: Mapping[str, Callable[[int], object]],
    patience: Patience,
    *,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[], object] = lambda: None,
) -> dict[str, Spread]:
    """Times every runner once a round, in order and then in reverse, and sums the rounds up.

    Each runner is called twice beforehand, unmeasured. `run(i)` is given a number that grows with
    each call, by which it may choose among its inputs.
    """
    seconds = {name: _seconds(run, clock) for name, run in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    names, start = list(runners), clock()
    for turn in range(patience.rounds):
        if turn >= FEWEST_ROUNDS and clock() - start > patience.seconds:
            break
        order = names if turn % 2 == 0 else names[::-1]
        for name in order:
            warm = math.ceil(patience.warm_seconds / seconds[name])
            calls = max(1, math.ceil(patience.sample_seconds / seconds[name]))
            first = turn * (warm + calls)
            for i in range(first, first + warm):
                runners[name](i)
            samples[name].append(_sample(runners[name], first + warm, calls, clock))
        after_round()
    return {name: Spread.of(seconds) for name, seconds in samples.items()}


def _sample(run: Callable[[int], object], first: int, calls: int, clock: Callable) -> float:
    start = clock()
    for i in range(first, first + calls):
        run(i)
    return (clock() - start) / calls


def _seconds(run: Callable[[int], object], clock: Callable) -> float:
    """What a call takes, by the second of two."""
    run(0)
    return max(_sample(run, 1, 1, clock), 1e-7)
