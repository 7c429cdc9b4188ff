"""Sentences about the numbers of a translation report, each computed from the numbers.

No system is expected to win: the sentences are true however the numbers come out.
"""

from collections.abc import Iterator, Sequence

from experiments.measures.scores import (
    ALL,
    BINS,
    FEWEST_SENTENCES,
    LAST_STATE,
    OVER_20,
    RESAMPLES,
    Comparison,
    Scores,
    ScoreTable,
)
from experiments.reports.curves import Curve


def observations(scores: Scores, curves: Sequence[Curve] = ()) -> list[str]:
    """Sentences that compare every system with LAST_STATE, by length, and at equal time.

    Without a system of that name the first system is the one compared with.
    """
    names = [table.system for table in scores.tables]
    base = scores.tables[names.index(LAST_STATE) if LAST_STATE in names else 0]
    others = [table for table in scores.tables if table is not base]
    against = [sentence for table in others for sentence in _against(scores, table, base)]
    by_length = [sentence for table in scores.tables for sentence in _by_length(table)]
    return [*against, *by_length, *_ahead(scores), *at_equal_time(curves)]


def at_equal_time(curves: Sequence[Curve]) -> Iterator[str]:
    """The validation losses of all systems when one was done: a sentence for each but the slowest.

    Equal numbers of steps are not equal times. A loss is the last one before that time.
    """
    timed = sorted((c for c in curves if c.validated_after), key=lambda c: c.validated_after[-1])
    for done in timed[:-1]:
        end = done.validated_after[-1]
        stood = [_stood(curve, end) for curve in timed]
        yield (
            f"At equal time, when *{done.system}* was done after {duration(end)}, validation "
            f"losses were {', '.join(stood)}."
        )


def duration(seconds: float) -> str:
    """Seconds with a unit: `0.4 s`, `42 s`, `12 min`, `3 h 07 min`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _against(scores: Scores, table: ScoreTable, base: ScoreTable) -> Iterator[str]:
    names, ratios = f"*{table.system}* to *{base.system}*", []
    for length_bin, where in ((ALL, "On all {:,} sentences"), (OVER_20, "Over 20 words ({:,})")):
        mine, other = table.row(length_bin.label), base.row(length_bin.label)
        if mine.bleu is None or other.bleu is None:
            continue
        sentence = (
            f"{where.format(mine.sentences)}, *{table.system}* scores {mine.bleu:.1f} BLEU and "
        )
        sentence += f"*{base.system}* {other.bleu:.1f}"
        if other.bleu >= 0.1:
            ratios.append(mine.bleu / other.bleu)
            sentence += f", {ratios[-1]:.2f} times as much"
        yield f"{sentence}; {_certainty(scores.comparison(table.system, base.system, mine.label))}."
    if len(ratios) == 2:
        overall, long = (f"{ratio:.2f}" for ratio in ratios)
        change = "the same" if long == overall else "larger" if ratios[1] > ratios[0] else "smaller"
        yield f"The ratio of {names} is {change} over 20 words: {long}, overall {overall}."


def _certainty(comparison: Comparison | None) -> str:
    if comparison is None:
        return f"fewer than {FEWEST_SENTENCES} sentences are too few for a test"
    verdict = "can" if comparison.p_value >= 0.05 else "can hardly"
    return (
        f"it is ahead in {100 * comparison.wins:.1f} % of {RESAMPLES:,} resamples, and the "
        f"difference of {comparison.difference:+.1f} {verdict} be chance (p = "
        f"{comparison.p_value:.3f})"
    )


def _by_length(table: ScoreTable) -> Iterator[str]:
    rows = [table.row(length_bin.label) for length_bin in BINS]
    rows = [row for row in rows if row.bleu is not None and row.interval is not None]
    if len(rows) < 2:
        return
    first, last = rows[0], rows[-1]
    before, after = f"{first.bleu:.1f}", f"{last.bleu:.1f}"
    verb = "falls" if float(after) < float(before) else "rises"
    change = f"stays at {before}" if after == before else f"{verb} from {before} to {after}"
    yield f"From {first.label} to {last.label} words *{table.system}* {change} BLEU."


def _ahead(scores: Scores) -> Iterator[str]:
    best = []
    for label in (length_bin.label for length_bin in BINS):
        rows = {table.system: table.row(label) for table in scores.tables}
        if all(row.interval for row in rows.values()):
            name = max(rows, key=lambda name: rows[name].bleu or 0)
            best.append(f"*{name}* at {label} words ({rows[name].bleu:.1f})")
    if best and len(scores.tables) > 1:
        yield f"Highest BLEU by length: {', '.join(best)}."


def _stood(curve: Curve, end: float) -> str:
    pairs = zip(curve.validation, curve.validated_after, strict=True)
    by_then = [point for point, seconds in pairs if seconds <= end]
    if not by_then:
        return f"nothing yet for *{curve.system}*"
    step, loss = by_then[-1]
    return f"{loss:.2f} for *{curve.system}* (step {step:,})"
