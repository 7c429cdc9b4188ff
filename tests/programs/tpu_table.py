"""Writes the table of docs/tpu.md from the rows of compile_tpu_kernel.py.

.venv/bin/python -m tests.programs.tpu_table
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "docs" / "benchmarks" / "tpu-compiled.jsonl"
PAGE = ROOT / "docs" / "tpu.md"
START, END = "<!-- table: start -->\n", "<!-- table: end -->\n"
WIDTHS, DTYPES = (64, 128, 256), ("bfloat16", "float32")
CHIPS = ("v5e", "v6e", "tpu7x")
MIB = 2**20


def stored() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds and MiB of temporaries for each option class and chip, and for each width and dtype.

    A case that has no row is "–".
    """
    cells = {(r["option"], r["chip"], r["H"], r["dtype"]): _cell(r) for r in rows}
    columns = [(H, dtype) for dtype in DTYPES for H in WIDTHS]
    options = list(dict.fromkeys(row["option"] for row in rows))
    head = [f"{dtype} {H}" for H, dtype in columns]
    lines = [
        _line("option class", "chip", *head),
        _line("---", "---", *("---:" for _ in head)),
    ]
    for option in options:
        for chip in CHIPS:
            found = (cells.get((option, chip, *column), "–") for column in columns)
            lines.append(_line(option, chip, *found))
    return "\n".join([*lines, "", _origin(rows), ""])


def _cell(row: dict[str, Any]) -> str:
    if "error" in row:
        return "fails"
    return f"{row['cpu_seconds']:.1f} s, {row['temporary_bytes'] / MIB:.2f}"


def _origin(rows: list[dict[str, Any]]) -> str:
    days = sorted({row["date"] for row in rows})
    versions = sorted({f"jax {row['jax']}, libtpu {row['libtpu']}" for row in rows})
    failed = sum("error" in row for row in rows)
    count = len(rows)
    possible = len({row["option"] for row in rows}) * len(CHIPS) * len(WIDTHS) * len(DTYPES)
    return (
        f"{count} of {possible} cases were compiled, and {failed} failed; on {', '.join(days)} "
        f"with {'; '.join(versions)}."
    )


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def with_table(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with the table between its two markers."""
    before, rest = page.split(START)
    return before + START + "\n" + table(rows) + "\n" + END + rest.split(END)[1]


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), stored()), "utf-8")


if __name__ == "__main__":
    main()
