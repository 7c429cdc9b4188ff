"""The colour, marker and line of each system, the same in every figure.

The colours are those of Okabe & Ito, "Color Universal Design" (2008), which colour-blind readers
can distinguish; marker and line distinguish the systems in a grey print, too. The display names are
in systems/translation.py.
"""

import itertools
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes

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
      names: display names. One that is no system gets a style that no system of the figure has.

    Example:
      >>> styles = line_styles(["RNN, last state", "mine"])
      >>> styles["RNN, last state"]["color"], styles["mine"]["color"]
      ('#D55E00', '#0072B2')
    """
    places = {name: ORDER.index(name) if name in ORDER else None for name in names}
    free = itertools.cycle(i for i in range(len(COLOURS)) if i not in places.values())
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


def remove_frame(axes: Axes) -> None:
    """Leaves two axes and horizontal grid lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
