"""A translation experiment written down: report.md to read, report.json with the same numbers.

Beside them stand the figures, and translations.jsonl, from which every score can be computed again.
Each file is written whole or not at all.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from attn_jax.viewer import AttentionView
from experiments.measures.alignments import Alignment
from experiments.measures.scores import Scores, score_systems, word_count
from experiments.reports.environment import Environment, environment
from experiments.reports.figures import alignment_maps, bleu_by_length, png, training_curves
from experiments.reports.report_text import (
    FIGURES,
    PAGE,
    Example,
    Report,
    markdown,
    observations,
    score_cells,
)
from experiments.reports.report_time import duration
from experiments.training.runs import write_whole

QUANTILES = {"A short": 0.1, "A middling": 0.5, "A long": 0.9, "The longest": 1.0}


def write_report(
    directory: Path,
    report: Report,
    *,
    console: Console | None = None,
    place: Environment | None = None,
) -> Scores:
    """Score the systems and write the report with its figures.

    Args:
      directory: is made if it does not exist; what an earlier report left is replaced.
      report: of at least one system.
      console: where to print the table of scores; None is silence.
      place: where the run happened; None is here and now.

    Returns:
      The scores that were written.

    Raises:
      ValueError: there is no system, or translations and sources do not match.
    """
    scores = score_systems(report.systems, report.sources, report.references)
    examples = (*report.examples, *_test_examples(report))
    place = place or environment()
    directory.mkdir(parents=True, exist_ok=True)
    _write_figures(directory, report, scores)
    _write_page(directory / PAGE, report)
    _write_translations(directory / "translations.jsonl", report)
    content = _content(report, scores, examples, place)
    write_whole(directory / "report.json", _json(content, indent=2).encode())
    write_whole(directory / "report.md", markdown(report, scores, examples, place).encode())
    if console is not None:
        print_scores(console, report, scores)
    return scores


def print_scores(console: Console, report: Report, scores: Scores) -> None:
    """The result table and what it says, for a terminal."""
    header, rows = score_cells(scores)
    table = Table(title="BLEU (95 % interval) by source length", title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row("training", "", *(duration(system.seconds) for system in report.systems))
    console.print(table)
    for sentence in observations(scores, report.curves):
        console.print(f"• {sentence.replace('*', '')}", markup=False, highlight=False)


def _test_examples(report: Report) -> list[Example]:
    """Test sentences at fixed places in the order of length, so that nobody has chosen them."""
    order = sorted(range(len(report.sources)), key=lambda i: word_count(report.sources[i]))
    examples, shown = [], set()
    for title, quantile in QUANTILES.items():
        i = order[round(quantile * (len(order) - 1))]
        if i not in shown:
            shown.add(i)
            translations = {system.name: system.translations[i] for system in report.systems}
            words = word_count(report.sources[i])
            title = f"{title} test sentence ({words} words, number {i + 1})"
            examples.append(Example(title, report.sources[i], translations, report.references[i]))
    return examples


def _write_figures(directory: Path, report: Report, scores: Scores) -> None:
    figures = {"bleu": bleu_by_length(scores.tables)}
    if report.curves:
        figures["training"] = training_curves(report.curves, [s.name for s in report.systems])
    if report.picks is not None and report.picks.alignments:
        figures["alignments"] = alignment_maps(report.picks.alignments)
    for name, file in FIGURES.items():
        if name in figures:
            write_whole(directory / file, png(figures[name]))
        else:  # nothing of an earlier run may stand beside this one's numbers
            (directory / file).unlink(missing_ok=True)


def _write_page(path: Path, report: Report) -> None:
    """The alignments that are drawn in the report, on a page of the attention viewer."""
    picked = () if report.picks is None else report.picks.alignments
    drawn = [(" ".join(one.source), one) for one in picked]
    drawn += [(example.title, example.alignment) for example in report.examples]
    views = [_view(title, one) for title, one in drawn if one is not None and one.generated]
    if not picked or not views:
        path.unlink(missing_ok=True)
        return
    readings = tuple(reading for view in views for reading in view.readings)
    note = "What each generated word reads of the source, between whole words."
    page = AttentionView(readings, "Alignments of test sentences", note).to_html()
    write_whole(path, page.encode())


def _view(title: str, alignment: Alignment) -> AttentionView:
    words = alignment.generated, alignment.source
    return AttentionView.from_weights(alignment.weights, words[0], key_tokens=words[1], title=title)


def _write_translations(path: Path, report: Report) -> None:
    lines = []
    for i, (source, reference) in enumerate(zip(report.sources, report.references, strict=True)):
        outputs = {system.name: system.translations[i] for system in report.systems}
        lines.append(_json({"source": source, "reference": reference, **outputs}))
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def _content(
    report: Report, scores: Scores, examples: Sequence[Example], place: Environment
) -> dict[str, object]:
    """What report.json holds; the translations have a file of their own."""
    return {
        "data": dataclasses.asdict(report.data),
        "systems": [
            {
                name: fact
                for name, fact in dataclasses.asdict(system).items()
                if name != "translations"
            }
            for system in report.systems
        ],
        "scores": dataclasses.asdict(scores),
        "observations": observations(scores, report.curves),
        "curves": [dataclasses.asdict(curve) for curve in report.curves],
        "picks": None if report.picks is None else dataclasses.asdict(report.picks),
        "examples": [dataclasses.asdict(example) for example in examples],
        "command": report.command,
        "seed": report.seed,
        "environment": dataclasses.asdict(place),
    }


def _json(content: object, *, indent: int | None = None) -> str:
    return json.dumps(
        content, indent=indent, ensure_ascii=False, allow_nan=False, default=np.ndarray.tolist
    )
