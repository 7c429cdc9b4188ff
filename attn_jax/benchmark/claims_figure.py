"""`python -m attn_jax.benchmark.claims_figure A.json B.json -o F.png`: measured ratios as a figure.

The figure has a row for each call, a colour for each other library and a marker for each run of
`--claims`, so it shows how much machines differ.
"""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attn_jax.benchmark import claims
from attn_jax.benchmark._tools import MissingToolError, tool

# The colours of Okabe & Ito, "Color Universal Design" (2008).
PEERS = {
    "jax.nn": ("jax.nn", "#009E73"),
    "torch SDPA": ("PyTorch SDPA", "#D55E00"),
    "torch FlexAttention": ("PyTorch FlexAttention", "#0072B2"),
}
MARKERS = ("o", "s", "^", "D", "v")


class Ratio(NamedTuple):
    """The time of another library over the time of this one, for one call of one run."""

    call: str
    peer: str
    value: float


def ratios(report: Mapping[str, Any]) -> list[Ratio]:
    """The ratios of one run, from its report; calls that no other library computed have none."""
    found: list[Ratio] = []
    ours: dict[str, float] = {}
    measured = [row for row in report["rows"] if row["seconds"] is not None]
    for row in measured:  # those of one call are consecutive, this library first
        name = row["shape"]["name"].removeprefix("reference-")
        call = f"{name}, {row['dtype']}, {row['direction']}"
        median = row["seconds"]["median"]
        if row["contender"] == claims.OURS:
            ours[call] = median
        elif row["contender"] in PEERS:
            found.append(Ratio(call, row["contender"], median / ours[call]))
    return found


def machine(report: Mapping[str, Any]) -> str:
    """The date, machine and versions of a run, as one line of the legend."""
    jax, torch = (report["versions"][name] for name in ("jax", "torch"))
    where = f"{report['processor']}, {report['cores']} cores"
    return f"{report['date'][:10]}: {where}, jax {jax}, PyTorch {torch}"


def png(reports: Sequence[Mapping[str, Any]]) -> bytes:
    """The figure as PNG; its ground is white, so it is legible on a light and on a dark page."""
    runs = [ratios(report) for report in reports]
    calls = list(dict.fromkeys(one.call for run in runs for one in run))
    size = (8.4, 2.0 + 0.27 * len(calls))
    figure = tool("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for marker, run in zip(MARKERS, runs, strict=False):
        for peer, (_, colour) in PEERS.items():
            here = [one for one in run if one.peer == peer]
            x, y = [one.value for one in here], [calls.index(one.call) for one in here]
            axes.plot(x, y, marker, color=colour, alpha=0.85)
    _draw_axes(axes, calls)
    _draw_legend(figure, reports)
    tool("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_axes(axes: Any, calls: Sequence[str]) -> None:
    """Draws the line of equal times, the names of the calls, and the scale."""
    axes.axvline(1, color="0.2", linewidth=1.2)
    axes.set_xscale("log", base=2)
    least, greatest = axes.get_xlim()
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", "1", "2", "4", "8", "16"])
    axes.set_xlim(min(0.45, least), max(18, greatest))
    axes.set_yticks(range(len(calls)), calls, fontsize=9)
    axes.set_ylim(len(calls) - 0.5, -0.5)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("time of the other library / time of attn_jax (right of 1: attn_jax is faster)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_legend(figure: Any, reports: Sequence[Mapping[str, Any]]) -> None:
    """Draws what each colour and each marker stands for, above and below the panel."""
    line = tool("matplotlib.lines").Line2D
    colours = [line([], [], linestyle="", marker="o", color=colour) for _, colour in PEERS.values()]
    names = [name for name, _ in PEERS.values()]
    shapes = [line([], [], linestyle="", marker=one, color="0.3") for one in MARKERS]
    runs = [machine(report) for report in reports]
    plain = {"frameon": False, "fontsize": 9}
    figure.legend(colours, names, ncols=3, loc="outside upper center", **plain)
    figure.legend(shapes[: len(runs)], runs, loc="outside lower center", **plain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the reports of the command line; the exit status is 0 if the figure was written."""
    parser = argparse.ArgumentParser(prog="python -m attn_jax.benchmark.claims_figure")
    parser.add_argument("reports", nargs="+", type=Path, help="claims.json of one or more runs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the PNG file to write")
    chosen = parser.parse_args(arguments)
    if len(chosen.reports) > len(MARKERS):
        parser.error(f"{len(chosen.reports)} reports are given; a figure shows {len(MARKERS)}")
    try:
        picture = png([json.loads(path.read_text("utf-8")) for path in chosen.reports])
        chosen.out.write_bytes(picture)
    except (MissingToolError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
