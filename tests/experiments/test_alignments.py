"""Subwords merged into words, and the choice of sentences whose alignment has a crossing."""

import numpy as np
import pytest

from experiments.measures import alignments
from experiments.measures.alignments import Alignment


def reading(source, generated, columns, weight=0.9):
    """Each generated word reads one source word with `weight`, the others evenly."""
    source, generated = tuple(source.split()), tuple(generated.split())
    rest = (1 - weight) / (len(source) - 1)
    weights = np.full((len(generated), len(source)), rest)
    weights[np.arange(len(generated)), columns] = weight
    return Alignment(source, generated, weights)


ZONE = reading(
    "the European Economic Area was signed today here",
    "la zone économique européenne a été signé ici",
    [0, 3, 2, 1, 4, 4, 5, 7],
)


def test_pieces_of_a_source_word_are_added_and_of_a_generated_word_averaged():
    weights = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1]])
    merged = alignments.merge_subwords(weights, [0, 0, 1], [0, 1, 1])
    np.testing.assert_allclose(merged, [[0.3, 0.7], [0.75, 0.25]], rtol=1e-12)


def test_merged_rows_still_sum_to_one():
    weights = np.random.default_rng(0).dirichlet(np.ones(7), size=5).astype(np.float32)
    merged = alignments.merge_subwords(weights, [0, 1, 1, 1, 2, 3, 3], [0, 0, 1, 2, 2])
    assert merged.shape == (3, 4)
    np.testing.assert_allclose(merged.sum(axis=1), 1, rtol=1e-6)


def test_words_of_one_piece_each_are_left_alone():
    weights = np.random.default_rng(1).dirichlet(np.ones(3), size=2)
    np.testing.assert_array_equal(alignments.merge_subwords(weights, [0, 1, 2], [0, 1]), weights)


@pytest.mark.parametrize("words", [[0, 1], [1, 1, 2], [0, 2, 2], [0, 1, 0]])
def test_numbers_that_do_not_count_the_words_are_refused(words):
    with pytest.raises(ValueError, match="source_words"):
        alignments.merge_subwords(np.ones((2, 3)) / 3, words, [0, 1])


def test_alignment_refuses_weights_of_another_shape():
    with pytest.raises(ValueError, match=r"weights has shape \(2, 3\)"):
        Alignment(("a", "b"), ("c", "d"), np.ones((2, 3)) / 3)


def test_swapped_adjectives_are_crossings():
    found = alignments.crossings(ZONE)
    assert [(c.row, c.column) for c in found] == [(1, 2), (2, 1)]
    assert all(c.sharpness == pytest.approx(0.9) for c in found)


@pytest.mark.parametrize(
    ("alignment", "why"),
    [
        (reading("black cats sleep", "noirs chats dorment", [0, 1, 2]), "in order"),
        (reading("black cats sleep", "chats noirs dorment", [1, 0, 2], 0.45), "not sharp"),
        (reading("of that thing", "chose dont ici", [1, 0, 2]), "short words"),
        (reading("2014 cats sleep", "chats 2014 dorment", [1, 0, 2]), "a number"),
        (reading("black cats sleep now", "dorment noirs encore tous", [2, 0, 3, 3]), "far jump"),
        (Alignment((), (), np.zeros((0, 0))), "nothing"),
    ],
)
def test_other_alignments_are_not_crossings(alignment, why):
    assert alignments.crossings(alignment) == [], why


def test_picks_are_the_sharpest_crossings_of_easy_length_without_repeats():
    dull = reading("one two three four five six", "un deux trois quatre cinq six", range(6), 0.95)
    sharp = reading(
        "they read short books each day", "ils lisent livres courts", [0, 1, 3, 2], 0.99
    )
    again = reading("we like short books more than that", "nous livres courts", [0, 3, 2], 0.97)
    brief = reading("black cats sleep", "chats noirs dorment", [1, 0, 2], 0.999)
    picks = alignments.pick_alignments([dull, again, ZONE, brief, sharp], count=3)
    assert picks.alignments == (sharp, ZONE, brief)
    assert picks.rule.startswith("In 4 of 5 test sentences")
    assert "filled" not in picks.rule


def test_without_crossings_the_sharpest_sentences_fill_the_figure_and_the_rule_mentions_it():
    blurred, sharp = (
        reading("one two three four five six", "un deux trois", [0, 1, 2], w) for w in (0.6, 0.8)
    )
    picks = alignments.pick_alignments([blurred, sharp], count=1)
    assert picks.alignments == (sharp,)
    assert picks.rule.startswith("In 0 of 2")
    assert "filled up (1)" in picks.rule


def test_equal_sentences_are_picked_in_their_order():
    first, second = (reading(f"{w} two", "un deux", [0, 1]) for w in ("one", "once"))
    picks = alignments.pick_alignments([first, second], count=2)
    assert [alignment.source[0] for alignment in picks.alignments] == ["one", "once"]


def test_no_sentences_give_no_picks():
    assert alignments.pick_alignments([]).alignments == ()
