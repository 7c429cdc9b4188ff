"""The colour, marker and line of each system, the same in every figure.

The colour of a system is used for nothing else: other lines have other colours. Masked cells are
hatched in every figure. The colours are those of Okabe & Ito, "Color Universal Design" (2008),
which colour-blind readers can distinguish; marker and line distinguish the systems in a grey print,
too. The display names are in systems/translation.py.
"""

import itertools
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments.systems.translation import SYSTEMS

ORDER = tuple(
    SYSTEMS[name].label for name in ("lexicon", "final", "bahdanau", "transformer", "luong")
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The options of matplotlib's `plot` for each line of a figure.

    Args:
      names: display names. One that is no system gets a colour that no system has.

    Example:
      >>> styles = line_styles(["RNN, last state", "mine"])
      >>> styles["RNN, last state"]["color"], styles["mine"]["color"]
      ('#D55E00', '#E69F00')
    """
    places = {name: ORDER.index(name) if name in ORDER else None for name in names}
    free = itertools.cycle(range(len(ORDER), len(COLOURS)))
    styles = {}
    for name, place in places.items():
        i = next(free) if place is None else place
        styles[name] = {
            "color": COLOURS[i],
            "marker": MARKERS[i],
            "linestyle": LINES[i],
            "markersize": 5,
            "linewidth": 1.6,
        }
    return styles


def hatched_cell(left: float, top: float) -> Rectangle:
    """A masked cell of a matrix, one unit wide and high."""
    options = {"facecolor": "white", "edgecolor": "0.75", "linewidth": 0.0, "hatch": "/////"}
    return Rectangle((left, top), 1, 1, **options)


def remove_frame(axes: Axes) -> None:
    """Leaves two axes and horizontal grid lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
