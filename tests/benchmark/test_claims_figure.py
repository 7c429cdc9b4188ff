"""The figure of measured ratios: its numbers, its picture, and its command."""

import json
from pathlib import Path

import numpy as np
import pytest

from attn_jax.benchmark import claims, claims_figure

ROOT = Path(__file__).resolve().parents[2]


def row(name: str, contender: str, median: float | None, dtype: str = "float32") -> dict:
    seconds = None if median is None else {"median": median}
    call = {"shape": {"name": name}, "dtype": dtype, "direction": "forward"}
    return call | {"contender": contender, "seconds": seconds}


REPORT = {
    "date": "2026-01-02T03:04:05+00:00",
    "processor": "a CPU",
    "cores": 6,
    "versions": {"jax": "0.12", "torch": "2.13"},
    "rows": [
        row("reference-1k-full", claims.OURS, 2.0),
        row("reference-1k-full", "jax.nn", 3.0),
        row("reference-1k-full", "torch SDPA", 1.0),
        row("reference-1k-full", claims.OURS, 5.0, "bfloat16"),
        row("reference-1k-full", "torch SDPA", 20.0, "bfloat16"),
        row("window-8k", claims.OURS, 4.0),
        row("window-8k", "torch FlexAttention", None),
    ],
}


def test_a_ratio_is_the_other_time_over_ours_in_the_same_call():
    assert claims_figure.ratios(REPORT) == [
        ("1k-full, float32, forward", "jax.nn", 1.5),
        ("1k-full, float32, forward", "torch SDPA", 0.5),
        ("1k-full, bfloat16, forward", "torch SDPA", 4.0),
    ]


def test_the_legend_names_date_machine_and_versions():
    text = claims_figure.machine(REPORT)
    assert text == "2026-01-02: a CPU, 6 cores, jax 0.12, PyTorch 2.13"


def test_the_committed_figure_is_drawn_from_the_committed_runs(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="the extra benchmark is not installed")
    runs = sorted((ROOT / "docs" / "benchmarks").glob("claims-*.json"))
    if not runs:
        pytest.skip("the wheel has no committed runs")
    drawn = tmp_path / "drawn.png"
    assert claims_figure.main([*map(str, runs), "-o", str(drawn)]) == 0
    ours = image.imread(drawn)
    committed = image.imread(ROOT / "docs" / "figures" / "performance.png")
    assert ours.shape == committed.shape
    assert np.abs(ours - committed).mean() < 1e-3  # fonts may be drawn a little differently


def test_another_run_is_another_picture():
    other = json.loads(json.dumps(REPORT))
    other["rows"][0]["seconds"]["median"] = 4.0
    assert claims_figure.png([REPORT]) != claims_figure.png([other])


def test_a_missing_report_is_one_line_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "figure.png"
    assert claims_figure.main([str(tmp_path / "none.json"), "-o", str(out)]) == 1
    assert "none.json" in capsys.readouterr().err
    assert not out.exists()


def test_a_report_that_is_no_json_is_one_line(tmp_path, capsys):
    report = tmp_path / "broken.json"
    report.write_text("{")
    assert claims_figure.main([str(report), "-o", str(tmp_path / "f.png")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_more_reports_than_markers_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        claims_figure.main(["a.json"] * 6 + ["-o", str(tmp_path / "f.png")])
    assert "6 reports are given; a figure shows 5" in capsys.readouterr().err


def test_no_ratio_lies_outside_the_figure(monkeypatch):
    limits = []
    draw = claims_figure._draw_axes
    seen = lambda axes, calls: (draw(axes, calls), limits.extend(axes.get_xlim()))  # noqa: E731
    monkeypatch.setattr(claims_figure, "_draw_axes", seen)
    rows = [
        row("a", claims.OURS, 1.0),
        row("a", "jax.nn", 0.01),
        row("b", claims.OURS, 1.0),
        row("b", "jax.nn", 99.0),
    ]
    claims_figure.png([REPORT | {"rows": rows}])
    assert limits[0] < 0.01 < 99 < limits[1]
