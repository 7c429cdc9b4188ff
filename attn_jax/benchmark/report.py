"""The results of a run: tables for the terminal, and JSON."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_jax.benchmark._tools import tool
from attn_jax.benchmark.claims import Verdict
from attn_jax.benchmark.measure import Row
from attn_jax.benchmark.timing import Spread

_COLUMNS = {
    "contender": 19,
    "median ms": 9,
    "quartiles": 13,
    "GFLOP/s": 7,
    "matmul": 7,
    "temp MB": 7,
    "compile": 7,
}
_STYLES = {"passed": "green", "failed": "bold red", "not run": "yellow"}


def tables(rows: Sequence[Row]) -> Any:
    """A `rich` table for each case; below it the contenders without numbers, and the reasons."""
    text, parts = tool("rich.text").Text, []
    for case, group in itertools.groupby(rows, key=lambda row: row.entry.case):
        drawn, without = _table(_COLUMNS), {}
        for row in group:
            if row.spread is None:
                without.setdefault(row.reason, []).append(row.entry.contender)
            else:
                drawn.add_row(*(text(cell) for cell in _cells(row, row.spread)))
        title = f" {case.shape.name}, {case.dtype}, {case.direction}"
        parts += [text(title, style="bold"), *([drawn] if drawn.row_count else [])]
        parts += [
            text(f"   {', '.join(names)}: {reason}", style="yellow")
            for reason, names in without.items()
        ]
        parts.append(text(""))
    return tool("rich.console").Group(*parts)


def _table(columns: Mapping[str, int]) -> Any:
    """An empty table: the first column is aligned left, the others right."""
    drawn = tool("rich.table").Table(box=tool("rich.box").SIMPLE_HEAD, padding=0)
    for place, (name, width) in enumerate(columns.items()):
        drawn.add_column(name, justify="right" if place else "left", min_width=width)
    return drawn


def _cells(row: Row, spread: Spread) -> list[str]:
    return [
        row.entry.contender,
        f"{1e3 * spread.median:.4g}",
        f"{1e3 * spread.lower:.3g}-{1e3 * spread.upper:.3g}",
        _number(row.flops, 1e-9, ".1f"),
        _number(row.fraction, 1, ".2f"),
        _number(row.temp_bytes, 1e-6, ".1f"),
        _number(row.compile_seconds, 1, ".2f"),
    ]


def _number(value: float | int | None, factor: float | int, form: str) -> str:
    return "-" if value is None else format(factor * value, form)


def verdict_table(verdicts: Sequence[Verdict]) -> Any:
    """The claims as a `rich` table: the measured and the wanted number, and the outcome."""
    drawn = _table({"claim": 40, "got": 6, "wanted": 8, "outcome": 8})
    text = tool("rich.text").Text
    for verdict in verdicts:
        reason = "" if verdict.reason is None else f": {verdict.reason}"
        drawn.add_row(
            text(verdict.claim.text),
            _number(verdict.got, 1, ".2f"),
            verdict.claim.wanted,
            text(verdict.outcome + reason, style=_STYLES[verdict.outcome]),
        )
    return drawn


def as_json(rows: Sequence[Row], verdicts: Sequence[Verdict], facts: Mapping[str, object]) -> str:
    """Facts of the run, every row and every verdict, as JSON; missing numbers are null."""
    document = {
        **facts,
        "rows": [_record(row) for row in rows],
        "claims": [
            {
                "claim": verdict.claim.text,
                "got": verdict.got,
                "wanted": verdict.claim.wanted,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
            }
            for verdict in verdicts
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _record(row: Row) -> dict[str, object]:
    case, spread = row.entry.case, row.spread
    return {
        "shape": dataclasses.asdict(case.shape),
        "dtype": case.dtype,
        "direction": case.direction,
        "contender": row.entry.contender,
        "seconds": None if spread is None else dataclasses.asdict(spread),
        "flops": case.flops,
        "least_bytes": case.least_bytes,
        "flops_per_second": row.flops,
        "matrix_product_flops_per_second": row.matmul_flops,
        "fraction_of_matrix_product": row.fraction,
        "temp_bytes": row.temp_bytes,
        "compile_seconds": row.compile_seconds,
        "reason": row.reason,
    }


def write(directory: Path, name: str, content: str | bytes) -> Path:
    """Writes one file of the report and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
