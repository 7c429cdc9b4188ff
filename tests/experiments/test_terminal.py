"""Alignments drawn in a terminal: shades, labels, widths, and ASCII."""

import io

import numpy as np
import pytest
from rich.console import Console

from experiments.measures.alignments import Alignment
from experiments.reports import terminal

SWAP = Alignment(
    ("the", "red", "car"),
    ("la", "voiture", "rouge"),
    np.array([[0.95, 0.04, 0.01], [0.1, 0.3, 0.6], [0.05, 0.7, 0.25]]),
)


def long_alignment(words):
    weights = np.eye(words)
    return Alignment(tuple(f"w{i}" for i in range(words)), tuple("é" * words), weights)


def test_the_whole_drawing_is_this():
    assert terminal.draw_alignment(SWAP, width=60).splitlines() == [
        "         t r c",
        "         h e a",
        "         e d r",
        "     la │██      the 0.95",
        "voiture │░░▒▒▓▓  car 0.60",
        "  rouge │░░▓▓▒▒  red 0.70",
        "attention weight from ░ 0.05, ▒ 0.25, ▓ 0.5, █ 0.75",
    ]


def test_labels_are_vertical_and_end_at_their_columns():
    words = Alignment(("to", "agreement"), ("x",), np.array([[0.5, 0.5]]))
    lines = terminal.draw_alignment(words, width=60).splitlines()
    assert "".join(line[5:6] for line in lines[:9]) == "agreement"
    assert [line[3] for line in lines[:9]] == [*"       to"]


@pytest.mark.parametrize("width", [24, 40, 41, 80, 200])
@pytest.mark.parametrize("words", [1, 11, 35])
def test_no_line_is_longer_than_the_terminal_and_every_weight_is_drawn_once(width, words):
    text = terminal.draw_alignment(long_alignment(words), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert text.count("█") - 1 in (words, 2 * words)  # the legend has one


def test_wide_cells_are_used_where_they_fit_and_parts_where_nothing_else_does():
    wide = terminal.draw_alignment(long_alignment(11), width=80)
    narrow = terminal.draw_alignment(long_alignment(30), width=40)
    parts = terminal.draw_alignment(long_alignment(50), width=40)
    assert (wide.count("█"), narrow.count("█"), parts.count("█")) == (23, 31, 51)
    assert len(parts.split("\n\n")) == 2


def test_long_words_are_cut_and_marked():
    words = Alignment(("a" * 30,), ("b" * 30,), np.ones((1, 1)))
    row = terminal.draw_alignment(words, width=80).splitlines()[-2]
    assert row.startswith("b" * 13 + "… │██")


def test_ascii_has_no_accents_and_no_blocks():
    words = Alignment(("“cœur”",), ("été",), np.array([[1.0]]))
    text = terminal.draw_alignment(words, ascii_only=True)
    assert text.isascii()
    assert "ete |##" in text


@pytest.mark.parametrize(("encoding", "shade"), [("utf-8", "█"), ("latin-1", "#")])
def test_console_gets_what_it_can_write(encoding, shade):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal.show_alignment(Console(file=file, width=50), SWAP)
    file.seek(0)
    assert f"la {'│' if shade == '█' else '|'}{shade}{shade}" in file.read()


def test_brackets_in_words_are_not_taken_for_markup():
    file = io.StringIO()
    words = Alignment(("[bold]",), ("[/x]",), np.array([[1.0]]))
    terminal.show_alignment(Console(file=file, width=50), words)
    assert "[/x] " in file.getvalue()


@pytest.mark.parametrize(("source", "generated"), [((), ()), (("a",), ()), ((), ("b",))])
def test_nothing_to_draw_is_no_error(source, generated):
    empty = Alignment(source, generated, np.zeros((len(generated), len(source))))
    assert "attention weight" in terminal.draw_alignment(empty)
