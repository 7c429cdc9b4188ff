"""The roofline figure: each call's GFLOP/s, below the limits of memory bandwidth and matmul rate.

Williams, Waterman & Patterson, "Roofline" (2009), https://doi.org/10.1145/1498765.1498785. The
x axis counts the least number of bytes that must move. A call far below the roof moves more bytes
than that, or computes slowly.
"""

import io
from collections.abc import Sequence

from attn_jax.benchmark._tools import tool
from attn_jax.benchmark.measure import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def png(rows: Sequence[Row], bandwidth: float) -> bytes:
    """The figure as PNG: a panel for each dtype, a marker for each contender.

    Hollow markers are calls with gradients. `bandwidth` is in bytes a second.
    """
    measured = [row for row in rows if row.spread is not None]
    dtypes = list(dict.fromkeys(row.entry.case.dtype for row in measured)) or ["nothing measured"]
    names = list(dict.fromkeys(row.entry.contender for row in measured))
    size = (max(7.2, 5.0 * len(dtypes)), 4.6)
    figure = tool("matplotlib.figure").Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(dtypes), squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        here = [row for row in measured if row.entry.case.dtype == dtype]
        _draw(axes, here, names, bandwidth)
        axes.set_title(dtype, fontsize=10)
        axes.set_xlabel("operations per byte that must move")
    panels[0].set_ylabel("GFLOP/s")
    if names:
        handles, labels = _legend(panels)
        figure.legend(
            handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8
        )
    tool("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes, rows: Sequence[Row], names: Sequence[str], bandwidth: float) -> None:
    """Draws one panel: the rows' points, and the roof."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    if not rows:
        return
    intensity = {id(row): row.entry.case.flops / row.entry.case.least_bytes for row in rows}
    for place, name in enumerate(names):
        for backward in (False, True):
            points = [
                row
                for row in rows
                if (row.entry.contender, row.entry.case.backward) == (name, backward)
            ]
            axes.plot(
                [intensity[id(row)] for row in points],
                [(row.flops or 0) / 1e9 for row in points],
                linestyle="",
                marker=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)],
                fillstyle="none" if backward else "full",
                label="" if backward else name,
                alpha=0.8,
            )
    peak = max(row.matmul_flops or 0 for row in rows)
    ridge = peak / bandwidth
    left = min(*intensity.values(), ridge) / 2
    right = max(*intensity.values(), ridge) * 2
    axes.plot(
        [left, ridge, right],
        [left * bandwidth / 1e9, peak / 1e9, peak / 1e9],
        color="0.4",
        label="memory, matmul",
    )


def _legend(panels) -> tuple[list, list]:
    """Handles and labels of all panels, each label once."""
    found = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found)
