"""The Transformer as a system: the same run and report as the recurrent ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.systems.translation import (
    SYSTEMS,
    Network,
    TransformerWidths,
    Widths,
    check_systems,
    model_config,
)
from experiments.translate import main

SYSTEMS_HERE = ["--systems", "final", "transformer"]
RUN = ["--preset", "smoke", "--name", "two", "--train.steps", "120", *SYSTEMS_HERE]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The working directory of a finished run of two systems, four times as long as smoke's."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        main([*RUN, "--train.validate-every", "60"])
        yield home


def validation_losses(home: Path, system: str) -> list[float]:
    lines = (home / "runs/two" / system / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [line["validation_loss"] for line in found if "validation_loss" in line]


def test_after_as_many_steps_the_transformer_predicts_better_than_the_last_state(home):
    ours, last_state = (validation_losses(home, name) for name in ("transformer", "final"))
    assert len(ours) == len(last_state) == 2
    assert ours[0] < last_state[0] - 0.1
    assert ours[1] < last_state[1] - 0.2


def test_the_report_has_it_at_equal_parameters_and_at_equal_time(home):
    report = json.loads((home / "runs/two/report/report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["RNN, last state", "Transformer"]
    assert all(system["parameters"] > 0 < system["seconds"] for system in report["systems"])
    assert any("*Transformer* is " in sentence for sentence in report["finding"])
    page = (home / "runs/two/report/report.md").read_text()
    assert " ".join(report["finding"]) in page
    assert "Validation losses at equal time:" in page


def test_its_alignments_are_those_of_the_report(home):
    report = json.loads((home / "runs/two/report/report.json").read_text())
    weights = [np.array(picked["weights"]) for picked in report["picks"]["alignments"]]
    assert weights
    for rows in weights:
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-5)
    assert report["examples"][0]["alignment"]


def test_a_finished_run_answers_with_it(home, capsys):
    main(["sample", "--run", "runs/two", "--system", "transformer", "Select the file."])
    assert "Select the file.\n→ " in capsys.readouterr().out


@pytest.mark.parametrize("vocab", [(3000, 3000)])
def test_systems_with_attention_have_about_as_many_parameters(vocab):
    sizes = {
        name: Network.of(model_config(name, widths, vocab)).size
        for name, widths in {"bahdanau": Widths(), "transformer": TransformerWidths()}.items()
    }
    assert sizes["transformer"] == pytest.approx(sizes["bahdanau"], rel=0.03)


@pytest.mark.parametrize(
    ("system", "widths"), [("transformer", Widths()), ("bahdanau", TransformerWidths())]
)
def test_widths_of_another_kind_of_network_are_refused(system, widths):
    with pytest.raises(ValueError, match=f"not those of the system '{system}'"):
        model_config(system, widths, (9, 7))


def test_every_system_may_be_compared():
    check_systems(tuple(SYSTEMS))
