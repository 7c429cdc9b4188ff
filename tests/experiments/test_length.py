"""The length experiment trains on short sequences only, and its measures are correct."""

import dataclasses
import json

import numpy as np
import pytest
from smoke_runs import assert_is_a_test_run

from experiments import length
from experiments.data.synthetic import Item, digits
from experiments.measures import alignment_error
from experiments.measures.alignments import Alignment
from experiments.measures.toy_translation import TrainingPairs, Vocabulary, train_translator
from experiments.reports.length_report import TaskResult
from experiments.training.task import TrainConfig

QUICK = length.PRESETS["quick"]


def reading(generated, weights, source=("a", "b", "c", "d")):
    return Alignment(source[: weights.shape[1]], tuple(generated), weights.astype(np.float64))


@pytest.mark.parametrize("task", ["copy", "reverse", "digits", "agreement"])
def test_nothing_longer_than_trained_is_in_training_and_twice_that_is_in_the_test(task):
    data = length.make_data(task, dataclasses.replace(QUICK, items=300, test_items=3))
    low, high = data.trained
    assert {item.size for item in data.train} == set(range(low, high + 1))
    tested = [item.size for item in data.test]
    assert {high, 2 * high} <= set(tested)
    assert all(tested.count(size) == 3 for size in tested)
    if task != "agreement":
        assert all(item.size == len(item.source) for item in data.train + data.test)


def test_the_digits_of_the_test_are_not_those_of_training():
    data = length.make_data("digits", dataclasses.replace(QUICK, items=3000, test_items=5))
    rows = [tuple(map(str, row)) for row in digits(3000).tolist()]
    long = [item.source for item in data.test if 9 <= item.size <= 16]
    assert all(item.source == row[: item.size] for item, row in zip(data.train, rows, strict=True))
    assert len(long) >= 15
    assert not any(source == row[: len(source)] for source in long for row in rows)


def test_targets_of_reverse_and_digits_are_reversed_and_those_of_copy_are_not():
    settings = dataclasses.replace(QUICK, items=40, test_items=2)
    for task, step in (("copy", 1), ("reverse", -1), ("digits", -1)):
        data = length.make_data(task, settings)
        assert all(item.target == item.source[::step] for item in data.train + data.test)


def test_a_word_counts_only_in_its_place():
    items = [Item(("a", "b"), ("a", "b"), 2), Item(("a", "b", "c"), ("a", "b", "c"), 3)] * 2
    said = [("a", "b"), ("b", "c"), ("b", "a"), ("a", "b", "c", "a")]
    readings = [reading(words, np.ones((len(words), 2)) / 2) for words in said]
    assert length.accuracy_by_size(items, readings) == {2: 0.5, 3: 0.5}


def test_attention_that_moves_forth_or_back_is_measured_so():
    items = [
        Item(("a",) * 4, ("a",) * 4, 4),
        Item(("a",) * 4, ("a",) * 4, 5),
        Item(("a",), ("a",), 1),
    ]
    readings = [
        reading("aaaa", np.eye(4)),
        reading("aaaa", np.eye(4)[::-1]),
        reading("a", np.eye(1)),
    ]
    assert length.moves_by_size(items, readings) == {4: 1.0, 5: -1.0}
    soft = 0.5 * np.eye(4) + 0.125
    assert alignment_error.mean_move(soft) == pytest.approx(0.5)


def result(attention, last_state, move, far=0.2):
    accuracy = {
        length.LAST_STATE: {4: 1.0, 20: last_state, 40: 0.0},
        length.ATTENTION: {4: 1.0, 20: attention, 40: far},
    }
    example = reading("ab", np.eye(2))
    return TaskResult((1, 20), "length", {}, accuracy, {4: move, 20: move, 40: 3.0}, example)


def test_claims_hold_or_fail_with_what_was_measured():
    good = length.claims_of("copy", result(0.99, 0.2, 0.95))
    assert [claim.holds for claim in good] == [True, True, True, True]
    moving_forth = length.claims_of("reverse", result(0.99, 0.2, 0.95))
    assert [claim.holds for claim in moving_forth] == [True, True, True, False]
    assert not length.claims_of("copy", result(0.99, 0.2, 0.95, far=0.05))[2].holds
    assert length.claims_of("digits", result(0.99, 0.7, -1.0))[1].holds
    assert not length.claims_of("digits", result(0.98, 0.7, -1.0))[1].holds
    assert not length.claims_of("copy", result(0.9, 0.2, 0.95))[1].holds
    assert not length.claims_of("copy", result(0.99, 0.7, 0.95))[1].holds
    across = dataclasses.replace(result(0.99, 0.2, 1.0), trained=(0, 4))
    assert not length.claims_of("agreement", across)[0].holds


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="symbols=30 must be at least 2"):
        dataclasses.replace(QUICK, symbols=30)
    with pytest.raises(ValueError, match=r"tasks=.*sort"):
        dataclasses.replace(QUICK, tasks=("copy", "sort"))


def test_a_vocabulary_keeps_words_apart_from_special_tokens():
    vocabulary = Vocabulary.of([("b", "a"), ("c", "a")])
    assert vocabulary.encode(("c", "a")) == [6, 4]
    assert vocabulary.decode([6, 4, 3]) == ("c", "a", "?")
    assert vocabulary.size == 7
    with pytest.raises(ValueError, match=r"\['x'\] are not among the 3 words"):
        vocabulary.encode(("a", "x"))


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    words = [tuple(pair) for pair in ("ab", "ba", "aa", "bb")] * 16
    config = TrainConfig(steps=200, batch_size=16, learning_rate=0.03, checkpoint_every=200)
    widths = length.Widths(embed_dim=5, hidden_dim=8, align_dim=6, readout_dim=7)
    pairs = TrainingPairs([(pair, pair) for pair in words], longest=3, shapes=1)
    return train_translator(pairs, "bahdanau", widths, config, tmp_path_factory.mktemp("copier"))


def test_a_translator_learns_its_pairs_and_has_a_row_of_weights_for_each_word(copier):
    found = copier.translate([("b", "a"), ("a", "a")])
    assert [alignment.generated for alignment in found] == [("b", "a"), ("a", "a")]
    for alignment in found:
        assert alignment.weights.shape == (2, 2)
        np.testing.assert_allclose(alignment.weights.sum(axis=1), 1, atol=1e-6)


def test_the_weights_for_a_given_target_are_those_of_decoding_it(copier):
    sources = [("b", "a"), ("a", "b", "b")]
    found = copier.translate(sources)
    forced = copier.align([(a.source, a.generated) for a in found])
    for one, other in zip(found, forced, strict=True):
        assert (one.source, one.generated) == (other.source, other.generated)
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)


def test_the_experiment_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--train.steps", "3", "--train.warmup-steps", "1"]
    assert length.main(["--preset", "smoke", *options]) == 0
    report = tmp_path / "runs" / "length-smoke" / "report"
    found = json.loads((report / "report.json").read_text())
    assert list(found["results"]["copy"]["accuracy"]) == [length.LAST_STATE, length.ATTENTION]
    assert found["results"]["copy"]["trained"] == [1, 5]
    assert len(found["claims"]) == 4
    assert_is_a_test_run(capsys.readouterr().out, report / "report.md")
    assert "## Copy" in (report / "report.md").read_text()
    figures = ("accuracy_by_length.png", "alignments.png")
    assert all((report / name).stat().st_size > 5000 for name in figures)


def test_an_unknown_preset_lists_the_presets(capsys):
    with pytest.raises(SystemExit):
        length.main(["--preset", "long"])
    told = capsys.readouterr()
    assert "invalid choice 'long'" in told.out + told.err
