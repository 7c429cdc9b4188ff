"""The report: equal numbers in both files, true sentences, and no partly written file."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from experiments.measures.alignments import Alignment, pick_alignments
from experiments.measures.scores import (
    ALL,
    BINS,
    LAST_STATE,
    OVER_20,
    Comparison,
    LengthRow,
    Scores,
    ScoreTable,
    SystemOutput,
    score_systems,
)
from experiments.reports.curves import Curve
from experiments.reports.environment import Environment, environment
from experiments.reports.observations import duration, observations
from experiments.reports.report import publish
from experiments.reports.translation_report import DataNote, Example, Outputs, make_report

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
    return make_outputs(SHARES, curves=curves, picks=pick_alignments([SWAP]), examples=(example,))


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
            shown = cells[row["label"]]
            assert shown[1] == str(row["sentences"])
            low_high = "({:.1f} to {:.1f})".format(*row["interval"]) if row["interval"] else ""
            bleu = "–" if row["bleu"] is None else f"{row['bleu']:.1f} {low_high}".strip()
            assert shown[2 + i] == bleu
    for sentence in content["observations"]:
        assert sentence in page
    assert len(content["observations"]) == 10


def test_page_names_everything_needed_to_repeat_it(written):
    page = (written[0] / "report.md").read_text()
    for fact in ("python -m x --y", "seed: 3", "c0ffee", "jax 0.12", "2026-01-02", "CPU, 2 cores"):
        assert fact in page
    assert "case:lc" in page


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


def hand_made(system, **scores_by_bin):
    """A table of 50 sentences a bin, with these scores and without the other bins."""
    rows = []
    for length_bin in (*BINS, OVER_20, ALL):
        score = scores_by_bin.get(length_bin.label.replace("–", "_").replace(" ", "_"))
        interval = None if score is None else (score - 1, score + 1)
        rows.append(LengthRow(length_bin.label, 0 if score is None else 50, score, interval))
    return ScoreTable(system, tuple(rows), 40.0)


@pytest.mark.parametrize(
    ("attention", "change"),
    [
        ({"all": 30.0, "over_20": 15.0}, "larger over 20 words: 3.00, overall 1.50"),
        ({"all": 30.0, "over_20": 5.0}, "smaller over 20 words: 1.00, overall 1.50"),
        ({"all": 10.0, "over_20": 2.5}, "the same over 20 words: 0.50, overall 0.50"),
    ],
)
def test_observations_follow_the_ratios_whichever_way_they_come_out(attention, change):
    tables = (hand_made(LAST_STATE, all=20.0, over_20=5.0), hand_made(BAHDANAU, **attention))
    won = Comparison(LAST_STATE, BAHDANAU, "all", -10.0, 0.002, 0.998, 0.004)
    overall, over_20, ratio = observations(Scores("", "", tables, (won,)))
    assert overall == (
        f"On all 50 sentences, *{BAHDANAU}* scores {attention['all']:.1f} BLEU and *{LAST_STATE}* "
        f"20.0, {attention['all'] / 20:.2f} times as much; it is ahead in 99.8 % of 1,000 "
        "resamples, and the difference of +10.0 can hardly be chance (p = 0.004)."
    )
    assert "fewer than 10 sentences are too few for a test" in over_20
    assert ratio == f"The ratio of *{BAHDANAU}* to *{LAST_STATE}* is {change}."


@pytest.mark.parametrize(
    ("last", "change"),
    [
        (12.0, "falls from 20.0 to 12.0 BLEU"),
        (28.0, "rises from 20.0 to 28.0 BLEU"),
        (20.04, "stays at 20.0 BLEU"),
    ],
)
def test_observations_describe_how_a_system_changes_with_length(last, change):
    table = hand_made(LAST_STATE, **{"1_10": 20.0, "11_20": 1.0, "31_40": last})
    said = observations(Scores("", "", (table,), ()))
    assert said == [f"From 1–10 to 31–40 words *{LAST_STATE}* {change}."]


def test_observations_name_the_best_system_of_each_length_that_was_tested():
    tables = (
        hand_made(LAST_STATE, **{"1_10": 20.0, "11_20": 10.0}),
        hand_made(BAHDANAU, **{"1_10": 19.0, "11_20": 15.0}),
    )
    *_, said = observations(Scores("", "", tables, ()))
    assert said == (
        f"Highest BLEU by length: *{LAST_STATE}* at 1–10 words (20.0), "
        f"*{BAHDANAU}* at 11–20 words (15.0)."
    )


def test_observations_do_not_claim_a_difference_that_is_not_there():
    report = make_outputs({LAST_STATE: 0.5})
    system = report.systems[0]
    almost = (system.translations[0] + " encore", *system.translations[1:])
    twin = dataclasses.replace(system, name=BAHDANAU, translations=almost)
    scores = score_systems([system, twin], report.sources, report.references)
    said = observations(scores)
    assert " can be chance" in said[0]
    assert "is the same over 20 words: 1.00, overall 1.00" in said[2]


def test_a_system_that_scores_zero_gets_no_ratio(tmp_path):
    report = make_outputs({BAHDANAU: 0.3})
    silent = SystemOutput(LAST_STATE, ("",) * 60, 1.0, 1)
    report = dataclasses.replace(report, systems=(*report.systems, silent))
    scores = write_report(tmp_path, report)
    assert "times as much" not in " ".join(observations(scores))


def test_report_survives_one_system_few_sentences_and_no_extras(tmp_path):
    report = make_outputs({WORD_BY_WORD: 0.5}, sentences=3, longest=9)
    (tmp_path / "alignments.png").write_bytes(b"of an earlier run")
    write_report(tmp_path, report)
    page = (tmp_path / "report.md").read_text()
    assert "alignments.png" not in page
    assert not (tmp_path / "alignments.png").exists()
    assert "| over 20 | 0 | – |" in page
    assert "None" not in page


def test_console_shows_the_table_and_the_observations(full, tmp_path):
    file = io.StringIO()
    scores = write_report(tmp_path, full, console=Console(file=file, width=150))
    shown = file.getvalue()
    assert f"{scores.table(BAHDANAU).row('all').bleu:.1f} (" in shown
    assert "over 60" in shown
    assert "61 s" in shown
    assert "times as much" in shown


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
