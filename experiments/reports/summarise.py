"""The scores of several `translate` reports in one table.

.venv/bin/python -m experiments.reports.summarise experiments/results
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.command_line.errors import exit_on_user_error
from experiments.command_line.options import parse, shell_command
from experiments.reports.report import Table, bullets, score_cell
from experiments.training.runs import write_whole

HEADER = """\
# Results

`make results` makes the reports, and `experiments.reports.summarise` writes this page.
BLEU is sacrebleu's, lower-cased, with its 95 % bootstrap interval. Each folder has a full report:
the translations below, [grammar](grammar/report.md) (the lecture's sentence),
[length](length/report.md) (copying longer sequences than in training),
[lm](lm/report.md) (a language model of one book), [sort](sort/report.md) (a GPT that sorts).

"""
COLUMNS = ("run", "system", "seed", "parameters", "training", "BLEU", "BLEU, over 20 words", "chrF")


def summary(directory: Path) -> str:
    """A page with one row for each system of each report below `directory`.

    Raises:
      ValueError: there is no report.
    """
    paths = sorted(directory.glob("*/report.json"))
    if not paths:
        raise ValueError(f"directory={directory} has no */report.json; run `make results` first")
    found = {path.parent.name: json.loads(path.read_text()) for path in paths}
    reports = {name: report for name, report in found.items() if "picks" in report}  # translations
    rows = [row for name, report in reports.items() for row in _rows(name, report)]
    places = sorted({_place(report["environment"]) for report in reports.values()})
    return "\n".join([HEADER, Table(COLUMNS, rows).markdown(), "", bullets(places), ""])


def _rows(name: str, report: Mapping[str, Any]) -> list[list[str]]:
    tables = {table["system"]: table for table in report["scores"]["tables"]}
    rows = []
    for system in report["systems"]:
        table = tables[system["name"]]
        scores = {row["label"]: row for row in table["rows"]}
        rows.append(
            [
                f"[{name}]({name}/report.md)",
                system["name"],
                str(report["seed"]),
                f"{system['parameters']:,}",
                f"{system['seconds'] / 60:.1f} min",
                score_cell(scores["all"]["bleu"], scores["all"]["interval"]),
                score_cell(scores["over 20"]["bleu"], scores["over 20"]["interval"]),
                f"{table['chrf']:.1f}",
            ]
        )
    return rows


def _place(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return (
        f"{environment['date']}, {environment['processor']}, {environment['cores']} cores, "
        f"{environment['device']}; python {environment['python']}, {versions}"
    )


@dataclasses.dataclass(frozen=True)
class Options:
    """Writes README.md with the scores of all reports in a folder.

    Attributes:
      directory: the folder of the reports' folders.
    """

    directory: Annotated[Path, tyro.conf.Positional] = Path("experiments/results")


def main(arguments: Sequence[str]) -> None:
    """Rewrites README.md in the directory named on the command line."""
    options = parse(Options, arguments, prog=shell_command("reports.summarise"))
    with exit_on_user_error():
        page = summary(options.directory)
        write_whole(options.directory / "README.md", page.encode())
    print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
