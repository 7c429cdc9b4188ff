"""The tables of a translation report; rows and columns without a number are left out."""

from collections.abc import Iterator, Sequence

from experiments.measures.scores import (
    ALL,
    BINS,
    LAST_STATE,
    OVER_20,
    Scores,
    ScoreTable,
    SystemOutput,
)
from experiments.reports.curves import Curve
from experiments.reports.report import NOTHING, Table, duration, escaped, score_cell


def system_table(systems: Sequence[SystemOutput]) -> Table:
    """What each system is, its size and its training time."""
    header = ["system", "parameters", "training", "what it is"]
    rows = [[s.name, f"{s.parameters:,}", duration(s.seconds), escaped(s.note)] for s in systems]
    return Table(header, rows)


def score_table(scores: Scores) -> Table:
    """BLEU by length, one column a system, and chrF."""
    header = ["source words", "sentences", *(table.system for table in scores.tables)]
    rows: list[list[str]] = []
    for length_bin in (*BINS, OVER_20, ALL):
        row = [table.row(length_bin.label) for table in scores.tables]
        if row[0].sentences:
            cells = [score_cell(r.bleu, r.interval) for r in row]
            rows.append([length_bin.label, f"{row[0].sentences:,}", *cells])
    rows.append(["chrF, all", "", *(f"{table.chrf:.1f}" for table in scores.tables)])
    return Table(header, rows, "BLEU (95 % interval) by source length")


def comparison_table(scores: Scores) -> Iterator[Table]:
    """Every system against LAST_STATE, or without it against the first system."""
    base = scores.table(LAST_STATE) or scores.tables[0]
    others = [table for table in scores.tables if table is not base]
    bins = [b.label for b in (ALL, OVER_20) if base.row(b.label).interval is not None]
    if not others or not bins:
        return
    header = [f"against {base.system}"]
    for label in bins:
        header += [f"BLEU, {label}", "times as much", "p"]
    rows = []
    for table in others:
        cells = [cell for label in bins for cell in _against(scores, table, base, label)]
        rows.append([table.system, *cells])
    yield Table(header, rows, f"difference to {base.system}")


def _against(
    scores: Scores, table: ScoreTable, base: ScoreTable, label: str
) -> tuple[str, str, str]:
    mine, other = table.row(label).bleu or 0.0, base.row(label).bleu or 0.0
    compared = scores.comparison(table.system, base.system, label)
    ratio = f"{mine / other:.2f}" if other >= 0.1 else NOTHING
    return f"{mine - other:+.1f}", ratio, f"{compared.p_value:.3f}" if compared else NOTHING


def length_and_loss_table(scores: Scores, curves: Sequence[Curve]) -> Table:
    """For each system the length of its translations, its penalty for it, and its last losses."""
    header = ["system", "length", "penalty", "BLEU without it", "training loss", "validation loss"]
    header.append("its last change")
    by_system = {curve.system: curve for curve in curves}
    rows = []
    for table in scores.tables:
        row, curve = table.row(ALL.label), by_system.get(table.system)
        training = [loss for _, loss in curve.training] if curve else []
        validation = [loss for _, loss in curve.validation] if curve else []
        rows.append(
            [
                table.system,
                _cell(row.length_ratio, ".2f"),
                _cell(row.brevity_penalty, ".2f"),
                _cell(row.without_penalty, ".1f"),
                _cell(training[-1] if training else None, ".2f"),
                _cell(validation[-1] if validation else None, ".2f"),
                _cell(validation[-1] - validation[-2] if len(validation) > 1 else None, "+.2f"),
            ]
        )
    return Table(header, rows, "length of the translations, and losses")


def equal_time_table(curves: Sequence[Curve]) -> Iterator[Table]:
    """The validation losses of all systems when one was done: a row for each but the slowest.

    Equal numbers of steps are not equal times. A loss is the last one before that time.
    """
    timed = sorted((c for c in curves if c.validated_after), key=lambda c: c.validated_after[-1])
    if len(timed) < 2:
        return
    header = ["when this was done", "after", *(curve.system for curve in timed)]
    rows = []
    for done in timed[:-1]:
        end = done.validated_after[-1]
        rows.append([done.system, duration(end), *(_loss_by(curve, end) for curve in timed)])
    yield Table(header, rows, "validation loss at equal time")


def _loss_by(curve: Curve, end: float) -> str:
    pairs = zip(curve.validation, curve.validated_after, strict=True)
    by_then = [loss for (_, loss), seconds in pairs if seconds <= end]
    return _cell(by_then[-1] if by_then else None, ".2f")


def _cell(number: float | None, form: str) -> str:
    return NOTHING if number is None else format(number, form)
