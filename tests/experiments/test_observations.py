"""Sentences about training time follow the seconds in the metrics."""

import json

import pytest

from experiments.reports.curves import Curve, read_curve
from experiments.reports.observations import at_equal_time

QUICK = Curve("quick", (), ((10, 4.0), (20, 3.0)), (5.0, 10.0))
SLOW = Curve("slow", (), ((10, 3.5), (20, 2.5)), (9.0, 80.0))
SLOWEST = Curve("slowest", (), ((10, 2.0),), (200.0,))


def test_losses_of_all_systems_are_given_when_a_faster_one_is_done():
    assert list(at_equal_time([SLOWEST, SLOW, QUICK])) == [
        "At equal time, when *quick* was done after 10 s, validation losses were 3.00 for "
        "*quick* (step 20), 3.50 for *slow* (step 10), nothing yet for *slowest*.",
        "At equal time, when *slow* was done after 80 s, validation losses were 3.00 for "
        "*quick* (step 20), 2.50 for *slow* (step 20), nothing yet for *slowest*.",
    ]


@pytest.mark.parametrize("curves", [[], [QUICK], [QUICK, Curve("untimed", (), ((10, 1.0),))]])
def test_there_is_no_sentence_about_fewer_than_two_systems(curves):
    assert not list(at_equal_time(curves))


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
