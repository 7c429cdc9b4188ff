"""What the report says of time: how long training took, and who stood where at equal time."""

from collections.abc import Iterator, Sequence

from experiments.reports.figures import Curve


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `42 s`, `12 min`, `3 h 07 min`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def at_equal_time(curves: Sequence[Curve]) -> Iterator[str]:
    """Where all systems stood when one was done: a sentence for each but the slowest.

    Equal numbers of steps are not equal times. A loss is the last one measured by then, so of a
    system that is still training it is at most one validation old.
    """
    timed = sorted((c for c in curves if c.validated_after), key=lambda c: c.validated_after[-1])
    for done in timed[:-1]:
        end = done.validated_after[-1]
        stood = [_stood(curve, end) for curve in timed]
        yield (
            f"At equal time, when *{done.system}* was done after {duration(end)}, validation "
            f"losses stood at {', '.join(stood)}."
        )


def _stood(curve: Curve, end: float) -> str:
    pairs = zip(curve.validation, curve.validated_after, strict=True)
    by_then = [point for point, seconds in pairs if seconds <= end]
    if not by_then:
        return f"nothing yet for *{curve.system}*"
    step, loss = by_then[-1]
    return f"{loss:.2f} for *{curve.system}* (step {step:,})"
