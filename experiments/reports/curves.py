"""Accuracy against size, a line a system, with the sizes that were trained on shaded."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reports.figures import COLOURS, LINES, MARKERS

type BySize = Mapping[int, float]
"""Accuracy at each size."""


def accuracy_curves(
    panels: Mapping[str, Mapping[str, BySize]],
    *,
    trained: Mapping[str, tuple[int, int]],
    size_label: Mapping[str, str],
    accuracy_label: str,
) -> Figure:
    """Panels side by side, every system in the same style in each.

    Args:
      panels: by title, the curve of each system.
      trained: by title, the smallest and the largest size in training.
      size_label: by title, what the size is.
      accuracy_label: what is measured, for all panels.
    """
    figure = Figure(figsize=(3.6 * max(len(panels), 1.6), 3.6), layout="constrained")
    systems = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    lines = {}
    for axes, (title, curves) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        axes.axvspan(*trained[title], color="0.92", zorder=0)
        for name, curve in curves.items():
            (lines[name],) = axes.plot(
                list(curve), list(curve.values()), label=name, **_style(systems, name)
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(f"{size_label[title]} (trained: shaded)", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-0.03, 1.03)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
    figure.axes[0].set_ylabel(accuracy_label)
    figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=3, frameon=False)
    return figure


def _style(systems: Sequence[str], name: str) -> dict:
    place = systems.index(name)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place % len(LINES)],
        "markersize": 5,
        "linewidth": 1.6,
    }
