"""The time that is left of a run follows the measured speed, and compilation is no speed."""

import io

import pytest
from rich.console import Console

from experiments.training.progress import Progress, as_clock
from experiments.training.run_times import expected_times
from experiments.training.settings import from_command_line
from experiments.training.whole_run import PRIOR, WholeRun

TIMES = {"one": 100.0, "two": 300.0, "three": 600.0}


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_before_anything_is_measured_the_expected_times_and_compilation_are_left():
    assert WholeRun(TIMES, compilation=7.0).left == 1000 + 3 * 7


@pytest.mark.parametrize(("took", "ratio"), [(50.0, 0.5), (100.0, 1.0), (400.0, 4.0)])
def test_the_speed_of_one_part_corrects_the_others(took, ratio):
    clock = Clock()
    run = WholeRun(TIMES, clock=clock)
    run.part("one").start()
    clock.seconds = took
    run.part("one").done(1.0)
    prior = PRIOR * 1000
    assert run.left == pytest.approx(900 * (took + prior) / (100 + prior))
    assert abs(run.left / 900 - 1) <= abs(ratio - 1)


def test_time_between_parts_and_compilation_are_not_measured_as_speed():
    clock = Clock()
    run = WholeRun(TIMES, compilation=5.0, clock=clock)
    run.part("one").start()
    clock.seconds = 140.0
    run.part("one").exclude(40.0)
    run.part("one").done(1.0)
    assert run.left == pytest.approx(900 + 2 * 5)


def test_work_of_an_earlier_process_is_not_left_and_says_nothing_about_the_speed():
    clock = Clock()
    run = WholeRun(TIMES, clock=clock)
    run.part("one").start(1.0)
    run.part("two").start(0.5)
    assert run.left == 150 + 600
    clock.seconds = 75.0
    run.part("two").done(0.75)
    assert run.left == pytest.approx(75 + 600)


def test_time_after_a_part_that_an_earlier_process_finished_is_not_measured():
    clock = Clock()
    run = WholeRun(TIMES, clock=clock)
    run.part("one").start(1.0)
    clock.seconds = 50.0
    assert run.left == 300 + 600
    run.part("two").start()
    assert run.left == 300 + 600


def test_a_line_of_progress_has_the_time_left_of_the_whole_run():
    clock, file = Clock(), io.StringIO()
    run = WholeRun(TIMES, clock=clock)
    progress = Progress(Console(file=file), clock=clock, part=run.part("two"), unit="sentence")
    run.part("one").start(1.0)
    progress.start(0, 60)
    clock.seconds = 150.0
    progress.step(30)
    assert file.getvalue() == (
        "sentence 30/60 · 0:02:30 elapsed · 0:02:30 left (whole run 0:12:30)\n"
    )
    clock.seconds = 600.0
    progress.step(31)
    assert file.getvalue().splitlines()[-1].startswith("sentence 31/60 · 0:10:00 elapsed · 0:09:21")
    left = 29 * 600 / 31 + 600 * (600 + 30) / (155 + 30)
    assert file.getvalue().endswith(f"(whole run {as_clock(left)})\n")


def test_the_expected_time_of_the_quick_preset_is_that_of_the_stored_run():
    times = expected_times(from_command_line([]), (3000, 3000), 989)
    trained = {name: times[f"train {name}"] for name in ("final", "bahdanau", "transformer")}
    assert trained == pytest.approx({"final": 147, "bahdanau": 281, "transformer": 313}, rel=0.02)
    assert not any("lexicon" in name for name in times)
    half = from_command_line(["--train.steps", "750"])
    assert expected_times(half, (3000, 3000), 989)["train final"] == pytest.approx(73.5, rel=0.02)
