"""The attention matrix of one head as a picture for a paper, drawn with matplotlib."""

import importlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attn_jax.viewer._overview import LONG_SIDE, max_pool
from attn_jax.viewer._record import AttentionRecord

CELL = 0.26  # inches of a cell
LETTER = 0.085  # inches of a letter
LABELLED = 96  # most rows or columns that get labels


def matrix_picture(
    records: Sequence[AttentionRecord],
    layer: int,
    head: int,
    kind: str,
    *,
    dpi: float = 200,
    most_pixels: float = math.inf,
) -> bytes:
    """The bytes of a "png" or "svg" file with one matrix for each record, side by side.

    Equal records give equal bytes. A "png" file has `dpi` pixels per inch, or fewer if it would be
    wider or higher than `most_pixels`.

    Raises:
      ValueError: a record has no such layer or head.
      ModuleNotFoundError: matplotlib is not installed.
    """
    for record in records:
        layers, heads = record.sizes
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"layer={layer}, head={head} does not exist: {record.name!r} has {layers} layers "
                f"of {heads} heads; count from 0"
            )
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_png and to_svg need matplotlib: pip install 'attn-jax[viewer]'"
        ) from error
    rc_context = importlib.import_module("matplotlib").rc_context
    sizes = [_size(record) for record in records]
    width, height = sum(w for w, _ in sizes) + 1.0, max(h for _, h in sizes)
    with rc_context({"svg.hashsalt": "attn_jax", "svg.fonttype": "path", "font.size": 9}):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        ratios = [w for w, _ in sizes]
        axes = figure.subplots(1, len(records), squeeze=False, width_ratios=ratios)[0]
        for one, record in zip(axes, records, strict=True):
            _draw(figure, one, record, layer, head)
        buffer = io.BytesIO()
        no_metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        resolution = min(dpi, most_pixels / max(width, height))
        figure.savefig(buffer, format=kind, dpi=resolution, metadata=no_metadata)
    return buffer.getvalue()


def _size(record: AttentionRecord) -> tuple[float, float]:
    """Width and height in inches, labels included."""

    def side(tokens: list[str], labels: list[str]) -> float:
        cells = CELL * len(tokens) if len(tokens) <= LABELLED else 4.5
        label = LETTER * min(max(map(len, labels)), 24) if len(labels) <= LABELLED else 0.5
        return max(cells, 1.6) + label + 0.4

    return side(record.keys, record.queries), side(record.queries, record.keys) + 0.3


def _draw(figure: Any, axes: Any, record: AttentionRecord, layer: int, head: int) -> None:
    weights = record.weights(layer, head)
    picture = max_pool(weights, LONG_SIDE)
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
    if record.mask is not None:
        hatch_masked(axes, ~record.mask(layer, head))
    _label(axes.set_xticks, record.keys, {"rotation": 90})
    _label(axes.set_yticks, record.queries, {})
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_color("0.8")
    axes.set_title(_plain(record.name, 60), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, label="weight")


def hatch_masked(axes: Any, masked: np.ndarray) -> None:
    """Hatches the cells where `masked` [T S] is True: a rectangle for each run in a row."""
    ends = np.diff(np.pad(masked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
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
    """Text without formulas or control characters, cut to `most` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else f"[{ord(c):X}]" for c in cut).replace("$", r"\$")
