"""One head's matrix as a picture for a paper, by matplotlib."""

import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from attn_jax.viewer._pack import pool
from attn_jax.viewer._reading import OVERVIEW, Reading

CELL = 0.26  # inches
LETTER = 0.085
LABELLED = 96  # rows or columns that have labels


def drawn(readings: Sequence[Reading], layer: int, head: int, kind: str) -> bytes:
    """The matrices side by side, as "png" or "svg"; the same numbers give the same bytes.

    Raises:
      ValueError: a reading has no such layer or head.
      ModuleNotFoundError: matplotlib is not installed.
    """
    for reading in readings:
        layers, heads = reading.sizes
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"layer={layer}, head={head} is not there: {reading.name!r} has {layers} layers of "
                f"{heads} heads, counted from 0"
            )
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_png and to_svg need matplotlib: pip install matplotlib"
        ) from error
    rc_context = importlib.import_module("matplotlib").rc_context
    sizes = [_size(reading) for reading in readings]
    width, height = sum(w for w, _ in sizes) + 1.0, max(h for _, h in sizes)
    with rc_context({"svg.hashsalt": "attn_jax", "svg.fonttype": "path", "font.size": 9}):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        ratios = [w for w, _ in sizes]
        axes = figure.subplots(1, len(readings), squeeze=False, width_ratios=ratios)[0]
        for one, reading in zip(axes, readings, strict=True):
            _draw(figure, one, reading, layer, head)
        buffer = io.BytesIO()
        nameless = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        figure.savefig(buffer, format=kind, dpi=200, metadata=nameless)
    return buffer.getvalue()


def _size(reading: Reading) -> tuple[float, float]:
    """Inches of cells and labels."""

    def side(tokens: list[str], across: list[str]) -> float:
        cells = CELL * len(tokens) if len(tokens) <= LABELLED else 4.5
        label = LETTER * min(max(map(len, across)), 24) if len(across) <= LABELLED else 0.5
        return max(cells, 1.6) + label + 0.4

    return side(reading.keys, reading.queries), side(reading.queries, reading.keys) + 0.3


def _draw(figure: Any, axes: Any, reading: Reading, layer: int, head: int) -> None:
    weights = reading.weights(layer, head)
    picture = pool(weights, OVERVIEW)
    T, S = weights.shape
    most = 1.0 if max(T, S) <= LABELLED else float(np.nanmax(picture, initial=1e-9))
    palette = importlib.import_module("matplotlib").colormaps["Blues"].with_extremes(bad="#c2185b")
    extent = (-0.5, S - 0.5, T - 0.5, -0.5)
    image = axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=palette,
        vmin=0,
        vmax=most,
        aspect="auto",
        extent=extent,
        interpolation="nearest",
    )
    if reading.may_read is not None:
        hatch(axes, ~reading.may_read(layer, head))
    _label(axes.set_xticks, reading.keys, {"rotation": 90})
    _label(axes.set_yticks, reading.queries, {})
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_color("0.8")
    axes.set_title(_plain(reading.name, 60), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, label="weight")


def hatch(axes: Any, hidden: np.ndarray) -> None:
    """Hatches the cells [T S] that may not be read, a rectangle for each run of them in a row."""
    ends = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, edges = np.nonzero(ends)
    row, begin, end = rows[::2], edges[::2] - 0.5, edges[1::2] - 0.5
    around = ((begin, row - 0.5), (end, row - 0.5), (end, row + 0.5), (begin, row + 0.5))
    corners = np.stack([np.stack(corner, axis=1) for corner in around], axis=1)
    collections = importlib.import_module("matplotlib.collections")
    style = {"facecolor": "white", "edgecolor": "0.65", "hatch": "////", "linewidth": 0}
    axes.add_collection(collections.PolyCollection(corners, **style), autolim=False)


def _label(ticks: Any, tokens: list[str], options: dict[str, Any]) -> None:
    if len(tokens) <= LABELLED:
        ticks(range(len(tokens)), [_plain(token, 24) for token in tokens], **options)


def _plain(text: str, most: int) -> str:
    """Text that matplotlib takes for no formula and no character of control."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else f"[{ord(c):X}]" for c in cut).replace("$", r"\$")
