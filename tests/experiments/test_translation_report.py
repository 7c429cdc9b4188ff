"""The report: equal numbers in both files, true sentences, and no partly written file."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from sacrebleu.metrics import BLEU

from experiments.measures.alignments import Alignment, pick_alignments
from experiments.measures.outcomes import TracedSentence
from experiments.measures.scores import LAST_STATE, SystemOutput, score_systems
from experiments.reports.curves import Curve
from experiments.reports.environment import Environment, environment
from experiments.reports.finding import finding
from experiments.reports.report import duration, publish
from experiments.reports.translation_report import DataNote, Example, Outputs, make_report
from experiments.reports.translation_tables import comparison_table

WORD_BY_WORD, BAHDANAU = "word by word", "RNN, Bahdanau attention"
WORDS = ("serveur", "fichier", "dans", "page", "avec", "lit", "écrit", "<tag>", "*", "a|b")
PLACE = Environment("2026-01-02", "c0ffee", "3.12", "Linux", "CPU", 2, "cpu", {"jax": "0.12"})
SWAP = Alignment(
    ("some", "black", "cats", "sleep"),
    ("des", "chats", "noirs", "dorment"),
    np.eye(4)[[0, 2, 1, 3]],
)


def make_outputs(shares, *, sentences=60, longest=45, **parts):
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(4, longest, size=sentences)]
    references = tuple(" ".join(rng.choice(WORDS, size=n)) for n in lengths)

    def noisy(share):
        return tuple(
            " ".join(rng.choice(WORDS) if rng.random() < share else w for w in line.split())
            for line in references
        )

    systems = tuple(
        SystemOutput(name, noisy(s), 61.0, 1234, "a note") for name, s in shares.items()
    )
    sources = tuple(" ".join(["word"] * n) for n in lengths)
    data = DataNote("docs", "CC-BY", "From 4 to 45 words.", 1000, 50, sentences)
    return Outputs(data, systems, sources, references, "python -m x --y", 3, **parts)


def traced_sentence():
    """A translation of two words, for the page with the animation."""
    weights = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], np.float32)
    annotations = np.arange(8, dtype=np.float32).reshape(2, 4)
    fields = {
        "source_mask": np.ones(2, bool),
        "target_mask": np.ones(3, bool),
        "states": np.ones((3, 5), np.float32),
        "scores": np.log(weights + 1e-3),
        "weights": weights,
        "contexts": weights @ annotations,
        "top_tokens": np.array([[4, 5], [5, 4], [2, 4]]),
        "top_log_probs": np.log(np.array([[0.5, 0.25]] * 3, np.float32)),
        "annotations": annotations,
    }
    labels = {2: "<end>", 4: "▁le", 5: "▁chat"}
    source, target = ("▁the", "▁cat"), ("▁le", "▁chat", "<end>")
    return TracedSentence("The cat", source, target, (0, 1), (0, 1, 2), labels, fields)


def write_report(directory, outputs, console=None):
    """The scores that were written."""
    report = make_report(outputs, PLACE)
    publish(report, directory, console)
    return report.findings["scores"]


SHARES = {WORD_BY_WORD: 0.8, LAST_STATE: 0.6, BAHDANAU: 0.3}


@pytest.fixture(scope="module")
def full():
    example = Example("The lecture's sentence", "The cat", {BAHDANAU: "Le chat"}, "Le <chat>", SWAP)
    curves = (Curve(LAST_STATE, ((1, 7.0), (9, 2.0)), ((9, 3.0),)),)
    picks = pick_alignments([SWAP])
    parts = {"examples": (example,), "traced": (traced_sentence(),), "picked_from": BAHDANAU}
    return make_outputs(SHARES, curves=curves, picks=picks, **parts)


@pytest.fixture(scope="module")
def written(full, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    scores = write_report(directory, full)
    return directory, scores


def test_page_shows_the_numbers_of_the_json_file(written):
    directory, scores = written
    page = (directory / "report.md").read_text()
    content = json.loads((directory / "report.json").read_text())
    assert content["scores"] == json.loads(json.dumps(dataclasses.asdict(scores)))
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    cells = {row[0]: row for row in rows}
    for i, table in enumerate(content["scores"]["tables"]):
        for row in table["rows"]:
            if not row["sentences"]:
                assert row["label"] not in cells
                continue
            shown = cells[row["label"]]
            assert shown[1] == str(row["sentences"])
            low_high = "({:.1f} to {:.1f})".format(*row["interval"]) if row["interval"] else ""
            bleu = "–" if row["bleu"] is None else f"{row['bleu']:.1f} {low_high}".strip()
            assert shown[2 + i] == bleu
    assert page.splitlines()[2] == " ".join(content["finding"])
    assert len(content["finding"]) == 3


def test_page_names_everything_needed_to_repeat_it(written):
    page = (written[0] / "report.md").read_text()
    for fact in ("python -m x --y", "c0ffee", "jax 0.12", "2026-01-02", "CPU, 2 cores", "case:lc"):
        assert fact in page
    facts = page[page.index("| fact | value |") : page.index("## What to try next")]
    assert "| seed | 3 |" in facts
    assert "| training pairs | 1,000 |" in facts
    assert facts.count("\n| ") == 1 + 15


def test_a_report_of_the_smoke_preset_begins_with_a_note_and_others_do_not(full):
    note = "This is a test run: the preset smoke only tests the program."
    smoke = make_report(dataclasses.replace(full, preset="smoke"), PLACE).markdown()
    assert smoke.splitlines()[2].startswith(f"**{note}")
    assert note not in make_report(dataclasses.replace(full, preset="quick"), PLACE).markdown()


def test_every_file_the_page_shows_is_there_and_nothing_else(written):
    directory, _ = written
    page = (directory / "report.md").read_text()
    figures = {"bleu_by_length.png", "training.png", "alignments.png"}
    assert {path.name for path in directory.iterdir()} == figures | {
        "report.md", "report.json", "translations.jsonl", "alignments.html"
    }  # fmt: skip
    assert all(f"]({name})" in page for name in figures)


def test_scores_can_be_computed_again_from_the_translations(full, written):
    directory, scores = written
    text = (directory / "translations.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    systems = [SystemOutput(name, tuple(x[name] for x in lines), 0.0, 0) for name in SHARES]
    sources, references = ([x[name] for x in lines] for name in ("source", "reference"))
    assert score_systems(systems, sources, references) == scores


def test_swaps_and_the_lectures_sentence_are_on_the_page(written):
    page = (written[0] / "report.md").read_text()
    assert "(a) *chats noirs* attend to *cats*, then *black*" in page
    assert "**The lecture's sentence**" in page
    assert "  chats │    ██" in page


def test_no_sentence_turns_into_markup(written):
    page = (written[0] / "report.md").read_text()
    assert r"Le \<chat\>" in page
    examples = page[page.index("## Examples") : page.index("## Caveats")]
    assert "<tag>" not in examples
    assert r"\<tag\>" in examples


def test_same_report_gives_the_same_bytes(full, written, tmp_path):
    write_report(tmp_path, full)
    for path in written[0].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_report_does_not_claim_a_difference_that_is_not_there():
    report = make_outputs({LAST_STATE: 0.5})
    system = report.systems[0]
    almost = (system.translations[0] + " encore", *system.translations[1:])
    twin = dataclasses.replace(system, name=BAHDANAU, translations=almost)
    scores = score_systems([system, twin], report.sources, report.references)
    best, _, difference = finding(scores)
    assert "the difference can be chance" in best
    assert "which can be chance" in difference
    assert "because" not in difference


def test_the_lengths_and_penalties_are_those_of_sacrebleu():
    report = make_outputs({LAST_STATE: 0.3})
    short = tuple(" ".join(line.split()[:-2]) for line in report.systems[0].translations)
    system = dataclasses.replace(report.systems[0], translations=short)
    row = score_systems([system], report.sources, report.references).tables[0].row("all")
    expected = BLEU(lowercase=True).corpus_score(short, [report.references])
    assert row.length_ratio == pytest.approx(expected.sys_len / expected.ref_len)
    assert row.brevity_penalty == pytest.approx(expected.bp)
    assert expected.bp < 0.95
    assert row.without_penalty == pytest.approx(expected.score / expected.bp)


def test_a_system_that_scores_zero_gets_no_ratio(tmp_path):
    report = make_outputs({BAHDANAU: 0.3})
    silent = SystemOutput(LAST_STATE, ("",) * 60, 1.0, 1)
    report = dataclasses.replace(report, systems=(*report.systems, silent))
    scores = write_report(tmp_path, report)
    [table] = comparison_table(scores)
    assert table.rows[0][2] == "–"


def test_report_survives_one_system_few_sentences_and_no_extras(tmp_path):
    report = make_outputs({WORD_BY_WORD: 0.5}, sentences=3, longest=9)
    (tmp_path / "alignments.png").write_bytes(b"of an earlier run")
    write_report(tmp_path, report)
    page = (tmp_path / "report.md").read_text()
    assert "alignments.png" not in page
    assert not (tmp_path / "alignments.png").exists()
    assert "over 20" not in page
    assert "None" not in page


def test_console_shows_the_table_and_the_observations(full, tmp_path):
    file = io.StringIO()
    scores = write_report(tmp_path, full, console=Console(file=file, width=150))
    shown = file.getvalue()
    assert f"{scores.table(BAHDANAU).row('all').bleu:.1f} (" in shown
    assert "over 60" not in shown
    assert "over 20" in shown
    assert "61 s" in shown
    assert "times as much" in shown
    assert " ".join(make_report(full, PLACE).findings["finding"]).replace("*", "") in shown


def test_systems_that_do_not_fit_the_test_set_leave_nothing_behind(full, tmp_path):
    wrong = dataclasses.replace(full, sources=full.sources[:-1])
    with pytest.raises(ValueError, match="references has 60"):
        write_report(tmp_path / "run", wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0.4 s"),
        (42.4, "42 s"),
        (99.4, "99 s"),
        (100.0, "2 min"),
        (3599.0, "1 h 00 min"),
        (11220.0, "3 h 07 min"),
    ],
)
def test_durations_have_a_readable_unit(seconds, said):
    assert duration(seconds) == said


def test_environment_describes_this_machine():
    place = environment()
    assert place.cores >= 1
    assert place.processor
    assert place.device == "cpu"
    assert place.versions["sacrebleu"][0].isdigit()
