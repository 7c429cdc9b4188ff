"""Lines in a figure: loss against the step, and accuracy against size."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reports.styles import line_styles, remove_frame


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss of one system during training: (step, nats per target token) pairs.

    `validated_after` has the training time in seconds at each pair of `validation`.
    """

    system: str
    training: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    validated_after: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Panel:
    """Accuracy against size.

    Attributes:
      title: of the panel.
      curves: by system, the accuracy at each size.
      trained: the smallest and the largest size in training.
      size_label: what a size is.
    """

    title: str
    curves: Mapping[str, Mapping[int, float]]
    trained: tuple[int, int]
    size_label: str


def read_curve(system: str, path: Path) -> Curve:
    """The curve in a metrics file: one JSON object a line, with `step` and a loss."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def pairs(name: str) -> tuple[tuple[int, float], ...]:
        return tuple((line["step"], line[name]) for line in lines if name in line)

    seconds = tuple(line["seconds"] for line in lines if "validation_loss" in line)
    return Curve(system, pairs("loss"), pairs("validation_loss"), seconds)


def training_curves(curves: Sequence[Curve]) -> Figure:
    """Training and validation loss against the step, side by side on one scale."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    styles = line_styles(curve.system for curve in curves)
    for curve in curves:
        style = styles[curve.system]
        left.plot(*_columns(curve.training), label=curve.system, markevery=0.2, **style)
        right.plot(*_columns(curve.validation), markevery=1, **style)
    left.set_ylabel("loss (nats per target token)")
    for axes, title in ((left, "training"), (right, "validation")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        remove_frame(axes)
    if curves:
        figure.legend(loc="outside upper center", ncols=2, frameon=False, handlelength=4)
    return figure


def accuracy_curves(panels: Sequence[Panel], accuracy_label: str) -> Figure:
    """Panels side by side, each system in the same style in all of them."""
    figure = Figure(figsize=(3.6 * max(len(panels), 1.6), 3.6), layout="constrained")
    styles = line_styles(name for panel in panels for name in panel.curves)
    lines = {}
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.axvspan(*panel.trained, color="0.92", zorder=0)
        for name, curve in panel.curves.items():
            (lines[name],) = axes.plot([*curve], [*curve.values()], label=name, **styles[name])
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(f"{panel.size_label} (trained: shaded)", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-0.03, 1.03)
        remove_frame(axes)
    figure.axes[0].set_ylabel(accuracy_label)
    figure.legend(handles=[*lines.values()], loc="outside upper center", ncols=3, frameon=False)
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> np.ndarray:
    return np.array(points, np.float64).reshape(-1, 2).T
