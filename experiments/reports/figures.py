"""BLEU by length, alignments between words, and figures as PNG files.

Bahdanau et al., "Neural machine translation by jointly learning to align and translate" (2014),
figs. 2 and 3, https://arxiv.org/abs/1409.0473. pyplot is not used, and equal numbers give equal
bytes.
"""

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.measures.alignments import Alignment
from experiments.measures.scores import BINS, FEWEST_SENTENCES, ScoreTable
from experiments.reports.styles import hatched_cell, line_styles, remove_frame

DOTS_PER_INCH = 150
CELL = 0.22  # inches of a word in an alignment, wide enough for its label
LETTER = 0.075  # approximate inches of a letter in a label
BAR = 0.9  # inches of the colour bar
WIDEST = 11.0  # inches of a row of panels
LOWEST_ROW = 1.6  # inches of the cells of a row, so that the labels at the sides fit


def png(figure: Figure) -> bytes:
    """The figure as PNG without date and version, so that equal figures are equal bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def bleu_by_length(tables: Sequence[ScoreTable]) -> Figure:
    """BLEU with 95 % intervals against the source length, one line for each system (fig. 2).

    Bins with fewer than FEWEST_SENTENCES sentences are not drawn; a note lists them.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    counts = {b.label: tables[0].row(b.label).sentences if tables else 0 for b in BINS}
    drawn = [label for label, count in counts.items() if count >= FEWEST_SENTENCES]
    styles = line_styles([table.system for table in tables])
    for place, table in enumerate(tables):
        x = np.arange(len(drawn)) + 0.07 * (place - (len(tables) - 1) / 2)
        _draw_table(axes, x, table, drawn, styles[table.system])
    axes.set_xticks(range(len(drawn)), [f"{label}\nn = {counts[label]:,}" for label in drawn])
    axes.set_xlim(-0.4, max(len(drawn) - 0.6, 0.4))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("source length (words)")
    axes.set_ylabel("BLEU")
    axes.set_title("BLEU by the length of the source, with 95 % intervals", fontsize=10)
    remove_frame(axes)
    if drawn:
        figure.legend(loc="outside upper center", ncols=2, frameon=False, handlelength=4)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "too few sentences", transform=axes.transAxes, ha="center")
    left_out = [f"{label} ({n})" for label, n in counts.items() if n and label not in drawn]
    if left_out:
        note = f"Not drawn, fewer than {FEWEST_SENTENCES} sentences: {', '.join(left_out)}."
        figure.supxlabel(note, fontsize=8, color="0.35")
    return figure


def alignment_maps(
    alignments: Sequence[Alignment],
    *,
    titles: Sequence[str],
    source_label: str = "source (English)",
    generated_label: str = "generated (French)",
) -> Figure:
    """Generated words on rows, source words on columns, attention weight as darkness (fig. 3).

    All panels have one scale from 0 to 1 and one cell size; they are laid out in rows. Masked pairs
    are hatched.

    Args:
      alignments: one a panel.
      titles: one a panel.
      source_label: of the columns.
      generated_label: of the rows.
    """
    panels = [
        _Panel.of(alignment, title, source_label, generated_label)
        for alignment, title in zip(alignments, titles, strict=True)
    ]
    rows_of_panels = _panel_rows(panels)
    width = max((sum(p.width for p in row) for row in rows_of_panels), default=1.0) + BAR
    height = max(sum(_row_height(row) for row in rows_of_panels), 2.0)
    figure = Figure(figsize=(width, height))
    top, letters = height, map(chr, itertools.count(ord("a")))
    for row in rows_of_panels:
        left, labels = 0.0, max(panel.top for panel in row)
        for panel in row:
            box = (left + panel.left, top - labels - panel.rows, panel.columns, panel.rows)
            axes = figure.add_axes(_fraction(box, width, height))
            _draw_alignment(axes, panel)
            corner = ((left + 0.1) / width, (top - 0.1) / height)
            title = f"({next(letters)})  {panel.title}"
            figure.text(*corner, title, va="top", fontweight="bold", fontsize=10)
            left += panel.width
        top -= _row_height(row)
    if rows_of_panels:
        labels = max(panel.top for panel in rows_of_panels[0])
        bar = min(2.0, height - labels - 0.1)
        box = (width - BAR + 0.15, height - labels - bar, 0.16, bar)
        _draw_scale(figure, _fraction(box, width, height))
    return figure


def _draw_table(
    axes: Axes, x: np.ndarray, table: ScoreTable, labels: Sequence[str], style: Mapping
) -> None:
    rows = [table.row(label) for label in labels]
    scores = np.array([row.bleu for row in rows], dtype=np.float64)
    bounds = np.array([row.interval for row in rows], dtype=np.float64).reshape(-1, 2)
    reach = np.abs(bounds.T - scores)
    axes.errorbar(x, scores, yerr=reach, label=table.system, elinewidth=0.9, capsize=2.5, **style)


@dataclasses.dataclass(frozen=True)
class _Panel:
    """One alignment with its texts, and the size in inches of its cells and of their labels."""

    alignment: Alignment
    title: str
    source_label: str
    generated_label: str
    left: float
    top: float
    columns: float
    rows: float

    @classmethod
    def of(
        cls, alignment: Alignment, title: str, source_label: str, generated_label: str
    ) -> "_Panel":
        rows, columns = max(len(alignment.generated), 1), max(len(alignment.source), 1)
        left = 0.4 + LETTER * max(map(len, alignment.generated), default=0)
        top = 0.65 + LETTER * max(map(len, alignment.source), default=0)
        labels = title, source_label, generated_label
        return cls(alignment, *labels, left, top, CELL * columns, CELL * rows)

    @property
    def width(self) -> float:
        title = 0.5 + 0.09 * len(self.title) - self.left  # bold letters are wider
        return self.left + max(self.columns, 1.4, title) + 0.1  # 1.4: the axis label fits


def _panel_rows(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    rows_of_panels: list[list[_Panel]] = []
    for panel in panels:
        if rows_of_panels and sum(p.width for p in rows_of_panels[-1]) + panel.width <= WIDEST:
            rows_of_panels[-1].append(panel)
        else:
            rows_of_panels.append([panel])
    return rows_of_panels


def _row_height(row: Sequence[_Panel]) -> float:
    rows = max(LOWEST_ROW, *(p.rows for p in row))
    return max(p.top for p in row) + rows + 0.15


def _fraction(
    box: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _draw_alignment(axes: Axes, panel: _Panel) -> None:
    alignment = panel.alignment
    rows, columns = alignment.weights.shape
    axes.imshow(alignment.weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(
        np.zeros((0, 2)) if alignment.masked is None else alignment.masked
    ):
        axes.add_patch(hatched_cell(float(column) - 0.5, float(row) - 0.5))
    axes.set_xticks(range(columns), alignment.source, rotation=90, fontsize=9)
    axes.set_yticks(range(rows), alignment.generated, fontsize=9)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("0.8")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(panel.source_label, fontsize=9, color="0.35", loc="left", labelpad=7)
    axes.set_ylabel(panel.generated_label, fontsize=9, color="0.35", loc="top")


def _draw_scale(figure: Figure, box: tuple[float, float, float, float]) -> None:
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), "Blues"), cax=figure.add_axes(box), ticks=(0, 0.5, 1)
    )
    bar.set_label("attention weight", fontsize=9)
    bar.outline.set_visible(False)
