"""The finding of a translation report and its tables follow the numbers, whatever they are."""

import json

import pytest

from experiments.measures.scores import (
    ALL,
    BINS,
    LAST_STATE,
    OVER_20,
    Comparison,
    LengthRow,
    Scores,
    ScoreTable,
)
from experiments.reports.curves import Curve, read_curve
from experiments.reports.finding import TRANSFORMER, WORD_BY_WORD, finding
from experiments.reports.translation_tables import (
    comparison_table,
    equal_time_table,
    length_and_loss_table,
    score_table,
)

ATTENTION = "RNN + attention"
QUICK = Curve("quick", ((20, 2.5),), ((10, 4.0), (20, 3.0)), (5.0, 10.0))
SLOW = Curve("slow", (), ((10, 3.5), (20, 2.5)), (9.0, 80.0))
SLOWEST = Curve("slowest", (), ((10, 2.0),), (200.0,))


def hand_made(system, length_ratio=None, penalty=None, **scores_by_bin):
    """A table of 50 sentences a bin, with these scores and without the other bins."""
    rows = []
    for length_bin in (*BINS, OVER_20, ALL):
        score = scores_by_bin.get(length_bin.label.replace("–", "_").replace(" ", "_"))
        interval = None if score is None else (score - 1, score + 1)
        count = 0 if score is None else 50
        rows.append(LengthRow(length_bin.label, count, score, interval, length_ratio, penalty))
    return ScoreTable(system, tuple(rows), 40.0)


def compared(*tables, p_value=0.001, label="all"):
    """Scores with a comparison of every pair."""
    pairs = [(a, b) for i, a in enumerate(tables) for b in tables[i + 1 :]]
    return Scores(
        "",
        "",
        tables,
        tuple(
            Comparison(
                a.system,
                b.system,
                label,
                (a.row(label).bleu or 0) - (b.row(label).bleu or 0),
                0.9,
                0.1,
                p_value,
            )
            for a, b in pairs
        ),
    )


def test_the_best_system_is_named_with_its_lead_over_the_second_and_the_last_state():
    scores = compared(
        hand_made(LAST_STATE, all=15.3), hand_made(ATTENTION, all=38.3), hand_made("c", all=33.1)
    )
    assert finding(scores)[0] == (
        f"*{ATTENTION}* is best: 38.3 BLEU on 50 test sentences, 5.2 more than *c* and 23.0 more "
        f"than *{LAST_STATE}*."
    )


def test_no_system_is_best_where_the_difference_can_be_chance():
    scores = compared(hand_made("a", all=20.0), hand_made("b", all=20.4), p_value=0.3)
    assert finding(scores)[0] == (
        "*b* (20.4 BLEU) and *a* (20.0) are best on 50 test sentences; the difference can be "
        "chance (p = 0.300)."
    )
    few = Scores("", "", scores.tables, ())
    assert "there are too few sentences to tell them apart" in finding(few)[0]
    alone = Scores("", "", (hand_made("a", all=20.0),), ())
    assert finding(alone) == ["*a* scores 20.0 BLEU on 50 test sentences."]


@pytest.mark.parametrize(
    ("last", "change"),
    [
        (12.0, "falls from 20.0 to 12.0 BLEU"),
        (28.0, "rises from 20.0 to 28.0 BLEU"),
        (20.04, "stays at 20.0 BLEU"),
    ],
)
def test_the_change_with_length_is_that_of_the_shortest_and_the_longest_sentences(last, change):
    table = hand_made(LAST_STATE, **{"1_10": 20.0, "11_20": 1.0, "31_40": last})
    _, said = finding(Scores("", "", (table,), ()))
    assert said == f"From 1–10 to 31–40 words, *{LAST_STATE}* {change}."


@pytest.mark.parametrize(
    ("transformer", "rival", "said"),
    [
        # 33.1 = 0.85 · 38.9 and 38.3 = 0.97 · 39.5: the penalty is the larger factor
        (
            (33.1, 0.86, 0.85),
            (38.3, 0.97, 0.97),
            "behind *{}*, mostly because its translations are",
        ),
        ((33.1, 0.97, 0.97), (38.3, 0.96, 0.97), "mostly because its words match the references l"),
        ((38.3, 0.97, 0.97), (33.1, 0.86, 0.85), "ahead of *{0}*, mostly because the translations"),
        ((38.3, 0.97, 0.97), (33.1, 0.97, 0.97), "its words match the references more often"),
    ],
)
def test_the_transformer_is_compared_with_the_best_other_system(transformer, rival, said):
    tables = [
        hand_made(name, ratio, penalty, all=bleu)
        for name, (bleu, ratio, penalty) in ((TRANSFORMER, transformer), (ATTENTION, rival))
    ]
    curves = [Curve(TRANSFORMER, (), ((9, 1.98),)), Curve(ATTENTION, (), ((9, 1.96),))]
    others = hand_made("worse", all=5.0), hand_made(WORD_BY_WORD, all=90.0)  # no network
    sentence = finding(compared(*tables, *others), curves)[-1]
    assert sentence.startswith(f"*{TRANSFORMER}* is 5.2 BLEU ")
    assert said.format(ATTENTION) in sentence
    assert (
        f"its translations have {transformer[1]} of the length of the references, those of "
        f"*{ATTENTION}* {rival[1]}; without BLEU's penalty for short translations the scores are "
        f"{transformer[0] / transformer[2]:.1f} and {rival[0] / rival[2]:.1f}"
    ) in sentence
    assert sentence.endswith("; the last validation losses are 1.98 and 1.96.")


def test_no_cause_is_named_for_chance_or_for_scores_near_zero():
    for bleu, p_value in ((20.0, 0.5), (0.4, 0.001)):
        tables = hand_made(TRANSFORMER, 0.5, 0.4, all=bleu), hand_made("b", 0.9, 0.9, all=bleu * 2)
        assert "because" not in finding(compared(*tables, p_value=p_value))[-1]


def test_rows_and_columns_without_sentences_are_left_out():
    tables = hand_made(LAST_STATE, all=20.0), hand_made("b", all=30.0)
    table = score_table(compared(*tables))
    assert [row[0] for row in table.rows] == ["all", "chrF, all"]
    [against] = comparison_table(compared(*tables))
    assert against.header == [f"against {LAST_STATE}", "BLEU, all", "times as much", "p"]
    assert against.rows == [["b", "+10.0", "1.50", "0.001"]]
    assert not list(comparison_table(compared(tables[0])))


def test_sentences_of_over_20_words_have_their_own_columns():
    tables = hand_made(LAST_STATE, all=20.0, over_20=0.0), hand_made("b", all=30.0, over_20=5.0)
    [against] = comparison_table(compared(*tables))
    assert against.header[4:] == ["BLEU, over 20", "times as much", "p"]
    assert against.rows == [["b", "+10.0", "1.50", "0.001", "+5.0", "–", "–"]]


def test_lengths_and_losses_stand_side_by_side():
    scores = Scores("", "", (hand_made("quick", 0.8, 0.5, all=20.0), hand_made("b", all=1.0)), ())
    assert length_and_loss_table(scores, [QUICK]).rows == [
        ["quick", "0.80", "0.50", "40.0", "2.50", "3.00", "-1.00"],
        ["b", "–", "–", "1.0", "–", "–", "–"],
    ]


def test_losses_of_all_systems_are_given_when_a_faster_one_is_done():
    [table] = equal_time_table([SLOWEST, SLOW, QUICK])
    assert table.header == ["when this was done", "after", "quick", "slow", "slowest"]
    assert table.rows == [
        ["quick", "10 s", "3.00", "3.50", "–"],
        ["slow", "80 s", "3.00", "2.50", "–"],
    ]


@pytest.mark.parametrize("curves", [[], [QUICK], [QUICK, Curve("untimed", (), ((10, 1.0),))]])
def test_there_is_no_table_of_fewer_than_two_timed_systems(curves):
    assert not list(equal_time_table(curves))


def test_a_curve_has_the_seconds_of_its_validations(tmp_path):
    lines = [
        {"step": 5, "loss": 4.0, "seconds": 1.0},
        {"step": 10, "loss": 3.0, "seconds": 2.5, "validation_loss": 3.5},
        {"step": 20, "loss": 2.0, "seconds": 4.5, "validation_loss": 2.5},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    curve = read_curve("a system", path)
    assert curve.training == ((5, 4.0), (10, 3.0), (20, 2.0))
    assert curve.validation == ((10, 3.5), (20, 2.5))
    assert curve.validated_after == (2.5, 4.5)
