"""An alignment in a terminal: one row for each generated word, darker blocks for larger weights.

Bahdanau et al., "Neural machine translation by jointly learning to align and translate" (2014),
fig. 3, https://arxiv.org/abs/1409.0473.
"""

import dataclasses
import textwrap
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from rich.console import Console

from experiments.measures.alignments import Alignment

STEPS = (0.05, 0.25, 0.5, 0.75)  # a weight of at least STEPS[i] has shade i + 1
LONGEST_LABEL = 14  # letters of a word that are shown
NARROWEST = 24  # the fewest columns, even if the terminal has fewer


@dataclasses.dataclass(frozen=True)
class _Pen:
    """The characters of a drawing: shades in increasing order, a frame, and a truncation mark."""

    shades: str
    edge: str
    cut: str

    def label(self, word: str) -> str:
        """A word in the characters of this pen, one column a letter."""
        word = unicodedata.normalize("NFC", word)
        if self.shades.isascii():
            parts = unicodedata.normalize("NFKD", word)
            bare = "".join(part for part in parts if not unicodedata.combining(part))
            word = bare.encode("ascii", "replace").decode()
        return word if len(word) <= LONGEST_LABEL else word[: LONGEST_LABEL - 1] + self.cut

    def row(self, weights: Num[np.ndarray, " S"], cell: int) -> str:
        """One row of blocks, `cell` columns a weight."""
        return "".join(cell * self.shades[i] for i in np.searchsorted(STEPS, weights, side="right"))

    def legend(self, width: int) -> list[str]:
        """The meaning of the shades, wrapped so that each shade is next to its weight."""
        pairs = zip(self.shades[1:], STEPS, strict=True)
        words = "attention weight from " + ", ".join(f"{s}\N{NO-BREAK SPACE}{w}" for s, w in pairs)
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(words, width)]


BLOCKS = _Pen(" ░▒▓█", "│", "…")
ASCII = _Pen(" .:+#", "|", "~")


def show_alignment(console: Console, alignment: Alignment) -> None:
    """Prints an alignment as wide as the console, in ASCII if its encoding is not UTF."""
    ascii_only = not console.encoding.startswith("utf")
    text = draw_alignment(alignment, width=console.width, ascii_only=ascii_only)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def draw_alignment(alignment: Alignment, *, width: int = 80, ascii_only: bool = False) -> str:
    """The alignment as lines of text, none longer than `width`.

    Source words are written downwards over their columns. Each row ends with the source word of the
    largest weight, if all of them fit. A source that is too long for the width is drawn in parts,
    one below the other.

    Args:
      alignment: to be drawn.
      width: columns of the terminal; fewer than NARROWEST count as NARROWEST.
      ascii_only: draw with `.:+#` and write letters without their accents.

    Returns:
      Lines joined by newlines; the last is a legend of the shades.

    Example:
      >>> swap = Alignment(("red", "car"), ("auto", "rouge"), np.array([[0.1, 0.9], [0.8, 0.2]]))
      >>> print(draw_alignment(swap, ascii_only=True))
             r c
             e a
             d r
       auto |..##  car 0.90
      rouge |##..  red 0.80
      attention weight from . 0.05, : 0.25, + 0.5, # 0.75
    """
    pen = ASCII if ascii_only else BLOCKS
    width = max(width, NARROWEST)
    source = [pen.label(word) for word in alignment.source]
    generated = [pen.label(word) for word in alignment.generated]
    margin = max(map(len, generated), default=0)
    room = width - margin - 2
    cell = 2 if 2 * len(source) <= room else 1
    notes = _largest_weights(alignment, source)
    if cell * len(source) + max(map(len, notes), default=0) > room:
        notes = [""] * len(notes)
    lines: list[str] = []
    for start in range(0, len(source), room // cell):
        part = slice(start, start + room // cell)
        lines += [""] * (start > 0)
        lines += [" " * (margin + 2) + line for line in _vertical(source[part], cell)]
        shaded = [pen.row(weights[part], cell) for weights in alignment.weights]
        for word, blocks, note in zip(generated, shaded, notes, strict=True):
            lines.append(f"{word:>{margin}} {pen.edge}{blocks}{note}")
    return "\n".join([line.rstrip() for line in lines] + pen.legend(width))


def _vertical(words: Sequence[str], cell: int) -> list[str]:
    """Words written downwards, each in a column of its own, their last letters on the last line."""
    height = max(map(len, words), default=0)
    columns = [f"{word:>{height}}" for word in words]
    return ["".join(f"{column[line]:<{cell}}" for column in columns) for line in range(height)]


def _largest_weights(alignment: Alignment, source: Sequence[str]) -> list[str]:
    if not source:
        return [""] * len(alignment.generated)
    return [f"  {source[int(row.argmax())]} {row.max():.2f}" for row in alignment.weights]
