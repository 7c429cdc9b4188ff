"""The report of an experiment: report.md to read, report.json with the same numbers, and figures.

Each experiment builds a `Report`; `publish` writes its files and prints its tables.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from matplotlib.figure import Figure
from rich.console import Console

from experiments.reports.claims import Claim, claims_note
from experiments.reports.environment import Environment, environment
from experiments.reports.figures import png
from experiments.training.runs import write_whole

NOTHING = "–"  # the cell of a table where nothing was measured


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text; columns of numbers are aligned to the right. A terminal shows the title."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None

    def markdown(self) -> str:
        """The table as Markdown.

        Example:
          >>> print(Table(["system", "BLEU"], [["a", "1.5"], ["b", "–"]]).markdown())
          | system | BLEU |
          | --- | ---: |
          | a | 1.5 |
          | b | – |
        """
        marks = ["---:" if is_number else "---" for is_number in self._are_numbers()]
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.header, marks, *self.rows))

    def for_terminal(self) -> rich.table.Table:
        """The table for a terminal."""
        table = rich.table.Table(
            title=self.title,
            title_justify="left",
            box=rich.box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        for name, is_number in zip(self.header, self._are_numbers(), strict=True):
            table.add_column(name, justify="right" if is_number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _are_numbers(self) -> list[bool]:
        number = re.compile(rf"[+-]?\d|{NOTHING}$|$")
        return [all(number.match(row[i]) for row in self.rows) for i in range(len(self.header))]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report, its file name, and the text for readers who do not see it."""

    file: str
    figure: Figure
    caption: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sentence about the numbers, in the report and on the terminal."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an experiment found.

    Attributes:
      title: of the page.
      findings: everything that was measured, by name; report.json.
      body: the blocks below the claims, in order; plain text is Markdown.
      claims: what should be true of the findings.
      preset: of the run's settings; with "smoke" the page says that it is a test run.
      files: further files by name.
      decimals: of the numbers in arrays of report.json; None keeps all.
      environment: where and when the experiment ran.
    """

    title: str
    findings: Mapping[str, Any]
    body: Sequence[str | Finding | Table | Picture]
    claims: Sequence[Claim] = ()
    preset: str = ""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    decimals: int | None = 4
    environment: Environment = dataclasses.field(default_factory=environment)

    def markdown(self) -> str:
        """The page."""
        note = claims_note(self.preset)
        parts = [f"# {self.title}", f"**{note}**" if note else ""]
        parts.append("\n".join(claim.markdown() for claim in self.claims))
        for block in self.body:
            if isinstance(block, Table):
                parts.append(block.markdown())
            elif isinstance(block, Picture):
                parts.append(f"![{block.caption}]({block.file})")
            else:
                parts.append(block.text if isinstance(block, Finding) else block)
        return "\n\n".join(part for part in parts if part) + "\n"

    def json(self) -> str:
        """The findings and the environment; dataclasses are objects, and arrays are lists."""
        content = {**self.findings, "environment": self.environment}
        text = json.dumps(
            content, indent=2, ensure_ascii=False, allow_nan=False, default=self._plain
        )
        return text + "\n"

    def show(self, console: Console) -> None:
        """Prints the tables and the findings."""
        for block in self.body:
            if isinstance(block, Table):
                console.print(block.for_terminal())
            elif isinstance(block, Finding):
                text = block.text.replace("*", "")
                console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _plain(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return vars(value)
        is_exact = self.decimals is None or value.dtype == bool
        return (value if is_exact else value.round(self.decimals)).tolist()


def publish(report: Report, directory: Path, console: Console | None = None) -> None:
    """Writes a report, each file whole or not at all, and prints its tables and findings.

    Args:
      report: to be written.
      directory: is made if it does not exist. Each .png and .html in it that is not part of this
        report is removed.
      console: where to print; None for nowhere.
    """
    files = {
        **{b.file: png(b.figure) for b in report.body if isinstance(b, Picture)},
        **report.files,
        "report.json": report.json().encode(),
        "report.md": report.markdown().encode(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.suffix in {".png", ".html"} and path.name not in files:
            path.unlink()
    for name, content in files.items():
        write_whole(directory / name, content)
    if console is not None:
        console.rule("results", align="left")
        if note := claims_note(report.preset):
            console.print(f"{note}\n", style="yellow", soft_wrap=True)
        report.show(console)
        console.print(f"\nThe report, with figures: {directory / 'report.md'}\n", soft_wrap=True)


def escaped(text: str) -> str:
    """Text for Markdown in which no character is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))


def bullets(sentences: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def training_times(seconds: Mapping[str, float]) -> str:
    """How long each system trained.

    Example:
      >>> training_times({"a": 1.2, "b": 30.0})
      'a 1 s, b 30 s'
    """
    return ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())


def duration(seconds: float) -> str:
    """Seconds with a unit: `0.4 s`, `42 s`, `12 min`, `3 h 07 min`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def score_cell(bleu: float | None, interval: Sequence[float] | None) -> str:
    """BLEU with its interval, as the cell of a table."""
    if bleu is None:
        return NOTHING
    if interval is None:
        return f"{bleu:.1f}"
    return f"{bleu:.1f} ({interval[0]:.1f} to {interval[1]:.1f})"
