"""Figures: what they draw and leave out, their size, and that equal numbers give equal bytes."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from experiments.measures.alignments import Alignment
from experiments.measures.scores import BINS, LengthRow, ScoreTable
from experiments.reports import curves, figures
from experiments.reports.styles import COLOURS, ORDER, line_styles

COUNTS = (120, 340, 96, 9, 0, 12)


def table(system, start, counts=COUNTS):
    rows = []
    for i, (length_bin, count) in enumerate(zip(BINS, counts, strict=True)):
        score = start - i if count else None
        interval = (start - i - 2, start - i + 1) if count >= 10 else None
        rows.append(LengthRow(length_bin.label, count, score, interval))
    return ScoreTable(system, tuple(rows), 40.0)


def maps(*shown):
    return figures.alignment_maps(shown, titles=[f"panel {i}" for i in range(len(shown))])


def alignment(source, generated):
    weights = np.random.default_rng(source).dirichlet(np.ones(source), size=generated)
    names = [f"word{i}" for i in range(max(source, generated))]
    return Alignment(tuple(names[:source]), tuple(names[:generated]), weights)


def size(image):
    """Width and height of a PNG, from its header."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(image[16:20]), int.from_bytes(image[20:24])


def test_bleu_by_length_draws_scores_intervals_and_counts_of_big_enough_bins():
    axes = figures.bleu_by_length([table("a", 30.0), table("b", 20.0)]).axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["1–10\nn = 120", "11–20\nn = 340", "21–30\nn = 96", "over 60\nn = 12"]
    line, caps, bars = axes.containers[1]
    assert line.get_ydata().tolist() == [20, 19, 18, 15]
    assert bars[0].get_segments()[0][:, 1].tolist() == [18.0, 21.0]
    assert len(caps) == 2


def test_bleu_by_length_names_the_bins_it_leaves_out():
    figure = figures.bleu_by_length([table("a", 30.0)])
    assert figure.get_supxlabel() == "Not drawn, fewer than 10 sentences: 31–40 (9)."


def test_bleu_by_length_has_a_note_where_no_bin_is_big_enough():
    figure = figures.bleu_by_length([table("a", 30.0, (3, 0, 0, 0, 0, 0))])
    assert [text.get_text() for text in figure.axes[0].texts] == ["too few sentences"]
    figures.png(figure)


def test_systems_differ_in_colour_marker_and_line_and_in_grey():
    styles = list(line_styles([*ORDER, "6", "7"]).values())
    for name in ("color", "marker", "linestyle"):
        assert len({str(style[name]) for style in styles}) == 7
    greys = sorted(np.dot(to_rgb(style["color"]), (0.299, 0.587, 0.114)) for style in styles[:3])
    assert np.diff(greys).min() > 0.04  # the lecture's three systems


def test_alignment_cells_are_squares_of_one_size_in_every_panel():
    figure = maps(alignment(5, 9), alignment(30, 24), alignment(2, 1))
    width, height = figure.get_size_inches()
    for axes, (columns, rows) in zip(figure.axes, [(5, 9), (30, 24), (2, 1)], strict=False):
        box = axes.get_position()
        assert box.width * width / columns == pytest.approx(figures.CELL)
        assert box.height * height / rows == pytest.approx(figures.CELL)
        assert 0 < box.x0 < box.x1 < 1
        assert 0 < box.y0 < box.y1 < 1


def test_alignment_panels_share_a_scale_from_zero_to_one_and_have_labels():
    shown = alignment(3, 4)
    axes, bar = maps(shown).axes
    image = axes.images[0]
    assert image.get_clim() == (0, 1)
    np.testing.assert_array_equal(image.get_array(), shown.weights)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(shown.source)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(shown.generated)
    assert axes.get_xlabel() == "source (English)"
    assert axes.get_ylabel() == "generated (French)"
    assert bar.get_ylabel() == "attention weight"


def test_no_words_run_out_of_the_alignment_figure():
    words = ("incomprehensibilities", "of", "internationalization")
    figure = maps(Alignment(words, words[::-1], np.eye(3)))
    assert_inside(figure, *figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels())


def test_the_labels_of_a_figure_with_one_row_are_inside_too():
    figure = figures.alignment_maps([alignment(9, 1)], titles=["A title longer than the labels"])
    axes, bar = figure.axes
    assert_inside(figure, axes.yaxis.label, axes.xaxis.label, bar.yaxis.label, *figure.texts)


def assert_inside(figure, *labels):
    FigureCanvasAgg(figure).draw()  # so that the labels have a place
    inside = figure.bbox
    for label in labels:
        box = label.get_window_extent()
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_curves_are_read_from_a_file_of_metrics(tmp_path):
    later = {"step": 20, "loss": 3.0, "validation_loss": 3.5, "seconds": 9.5}
    lines = [{"step": 1, "loss": 7.5, "seconds": 1.0}, later]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = curves.Curve("a", ((1, 7.5), (20, 3.0)), ((20, 3.5),), (9.5,))
    assert curves.read_curve("a", path) == curve


def test_a_system_keeps_its_colour_in_the_curves():
    curve = curves.Curve("RNN, last state", ((1, 7.0), (9, 2.0)), ((9, 3.0),))
    training, validation = curves.training_curves([curve]).axes
    assert training.lines[0].get_color() == COLOURS[1]
    assert training.lines[0].get_xydata().tolist() == [[1.0, 7.0], [9.0, 2.0]]
    assert validation.lines[0].get_xydata().tolist() == [[9.0, 3.0]]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.bleu_by_length([table("a", 30.0), table("b", 20.0)]),
        lambda: maps(alignment(6, 5), alignment(4, 7)),
        lambda: curves.training_curves([curves.Curve("a", ((1, 7.0), (9, 2.0)), ())]),
    ],
)
def test_equal_numbers_give_equal_bytes_of_a_readable_size(draw):
    image = figures.png(draw())
    assert image == figures.png(draw())
    width, height = size(image)
    assert 300 < width < 1800
    assert 200 < height < 1800
    assert b"Software" not in image[:400]


def test_no_alignments_give_an_empty_figure():
    assert maps().axes == []


def test_panels_have_a_letter_and_their_title():
    figure = figures.alignment_maps([alignment(2, 3), alignment(3, 2)], titles=["one", "two"])
    assert [text.get_text() for text in figure.texts] == ["(a)  one", "(b)  two"]


def test_masked_pairs_are_hatched_and_others_are_not():
    masked = np.array([[False, True, True], [False, False, True]])
    shown = Alignment(("a", "b", "c"), ("d", "e"), np.eye(2, 3), masked)
    axes = maps(shown).axes[0]
    assert all(patch.get_hatch() for patch in axes.patches)
    corners = {(patch.get_x(), patch.get_y()) for patch in axes.patches}
    assert corners == {(0.5, -0.5), (1.5, -0.5), (1.5, 0.5)}
    assert not maps(alignment(3, 2)).axes[0].patches


def test_a_line_that_is_no_system_has_a_colour_of_no_system():
    systems = line_styles(ORDER).values()
    other = line_styles(["a language model"])["a language model"]
    assert other["color"] not in {style["color"] for style in systems}
