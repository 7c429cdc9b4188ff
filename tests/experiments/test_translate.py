"""`translate` in its smoke preset: it runs, resumes, reports, translates, and refuses clearly."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.command_line.options import parse
from experiments.measures import translation_run
from experiments.measures.alignments import Alignment, group_by_word
from experiments.measures.translation_run import RunContext
from experiments.reports import sample
from experiments.reports.animation import MEANS_OF_HEADS
from experiments.training import runs, sentences
from experiments.training.checkpoints import CheckpointMismatch
from experiments.training.sentences import (
    identity,
    load_vocabulary,
    prepare_corpus,
    prepare_directory,
)
from experiments.training.settings import PRESETS, from_command_line
from experiments.training.whole_run import WholeRun
from experiments.translate import main, sample_arguments

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["--preset", "smoke", "--name", "smoke"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The working directory of a finished smoke run."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        main(SMOKE)
    return home


@pytest.fixture
def home(finished, monkeypatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def message(arguments: list[str]) -> str:
    """What the command line says as it gives up."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return str(stopped.value)


def test_a_run_ends_with_a_report_on_every_system(home):
    report = json.loads((home / "runs/smoke/report/report.json").read_text())
    assert [s["name"] for s in report["systems"]] == [
        "word by word",
        "RNN, last state",
        "RNN + attention",
        "Transformer",
    ]
    assert all(table["rows"] for table in report["scores"]["tables"])
    text = (home / "runs/smoke/report/report.md").read_text()
    assert "bleu_by_length.png" in text
    assert PRESETS["smoke"].rule.__str__() in text
    assert "The lecture's sentence, alignment of Transformer" in text
    assert "This is a test run" in text
    assert text.splitlines()[4] == " ".join(report["finding"])
    page = (home / "runs/smoke/report/alignments.html").read_text()
    for system in ("RNN, last state", "RNN + attention", "Transformer"):
        assert f"{system}: the lecture's sentence" in page
    assert '"annotations"' in page
    assert MEANS_OF_HEADS in page
    for figure in ("bleu_by_length", "training", "alignments"):
        assert (home / f"runs/smoke/report/{figure}.png").stat().st_size > 5_000


def test_the_same_command_again_trains_and_translates_nothing_and_reports_the_same(
    home, capsys, monkeypatch
):
    before = {path.name: path.read_bytes() for path in Path("runs/smoke/report").iterdir()}

    def refuse(*args, **options):
        raise AssertionError("measured again")

    for name in ("network", "lexicon"):
        monkeypatch.setattr(translation_run, name, refuse)
    main(SMOKE)
    said = capsys.readouterr().out
    assert said.count("already trained and translated") == 4
    assert "to translate again, remove runs/smoke/bahdanau/outcome.json; to train" in said
    assert "The whole run takes" not in said
    after = {path.name: path.read_bytes() for path in Path("runs/smoke/report").iterdir()}
    assert after == before


def test_a_system_without_a_stored_outcome_is_translated_again_and_not_trained(home, capsys):
    outcome = home / "runs/smoke/bahdanau/outcome.json"
    stored = json.loads(outcome.read_text())
    outcome.unlink()
    main(SMOKE)
    said = capsys.readouterr().out
    assert "already trained: RNN + attention, 30 steps" in said
    assert "The whole run takes about 0:00:0" in said
    assert re.search(r"sentence 60/60 · .* elapsed · 0:00:00 left \(whole run 0:00:00\)", said)
    again = json.loads(outcome.read_text())
    assert again["key"] == stored["key"]
    parts = "lecture", "picks", "lecture_alignment", "traced"
    assert [again["outcome"][p] for p in parts] == [stored["outcome"][p] for p in parts]
    texts = [found["outcome"]["output"]["translations"] for found in (again, stored)]
    assert texts[0] == texts[1]


def test_outcomes_of_other_code_and_of_another_lecture_are_not_used(home, monkeypatch):
    settings = from_command_line(SMOKE)
    corpus = prepare_corpus(settings)
    vocabulary = load_vocabulary(settings.directory)
    context = RunContext(settings, corpus, vocabulary, Console(), WholeRun({}))

    def key(name):
        return translation_run.outcome_key(context, name)

    before = {name: key(name) for name in ("lexicon", "bahdanau")}
    with monkeypatch.context() as patch:
        patch.setattr(translation_run, "code_digest", lambda: "other code")
        assert all(key(name) != before[name] for name in before)
    monkeypatch.setattr(translation_run, "LECTURE", "Another sentence.")
    assert all(key(name) != before[name] for name in before)


def test_another_beam_gives_another_outcome(home, capsys):
    main([*SMOKE, "--systems", "bahdanau", "--beam.width", "1"])
    assert "already trained: RNN + attention" in capsys.readouterr().out
    key = json.loads((home / "runs/smoke/bahdanau/outcome.json").read_text())["key"]
    assert key["beam"]["width"] == 1


def test_other_settings_under_the_same_name_are_refused(home):
    said = message([*SMOKE, "--widths.hidden-dim", "40"])
    assert "widths.hidden_dim 32 in the checkpoint, 40 requested" in said
    assert "--name" in said
    assert "--fresh" in said


def test_the_last_line_works_when_it_is_pasted(home, capsys):
    main([*SMOKE, "--systems", "lexicon", "bahdanau"])
    python, _, module, *arguments = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert module == "experiments.translate"
    subprocess.run([python, "-c", "import rich"], check=True)
    assert "--page" in arguments
    main(arguments)
    said = capsys.readouterr().out
    assert f"{arguments[-1]}\n→ " in said
    assert "warning" not in said


@pytest.mark.parametrize(
    "sentence", ["A file.", "-l lists the file's lines.", "--page", "-- a -- b"]
)
def test_sample_reads_the_printed_command_of_any_sentence(sentence):
    arguments = sample_arguments(Path("runs/smoke"), "bahdanau", sentence)
    found = parse(sample.Sample, arguments[1:], prog="sample")
    assert (found.sentence, found.system, found.page) == (sentence, "bahdanau", True)


def test_a_run_without_a_checkpoint_is_replaced_by_other_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (
        from_command_line(["--name", "late", "--corpus", corpus]) for corpus in ("multi30k", "docs")
    )
    runs.directory_of("late").mkdir(parents=True)
    corpus = prepare_corpus(from_command_line(SMOKE))
    prepare_directory(first, corpus)
    (first.directory / "french.json").write_text("word pieces of a first start")
    learned = prepare_directory(second, corpus)
    assert json.loads((first.directory / "settings.json").read_text()) == identity(second)
    assert load_vocabulary(first.directory).fingerprint == learned.fingerprint
    (first.directory / "bahdanau/checkpoints/step-00000010").mkdir(parents=True)
    assert prepare_directory(second, corpus).fingerprint == learned.fingerprint
    with pytest.raises(CheckpointMismatch, match=r"corpus docs .*multi30k requested.*--name"):
        prepare_directory(first, corpus)


def test_a_fresh_start_that_was_killed_halfway_asks_for_fresh_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, fresh = (from_command_line([*SMOKE, *more]) for more in ([], ["--fresh"]))
    settings.directory.mkdir(parents=True)
    corpus = prepare_corpus(settings)
    prepare_directory(settings, corpus)
    for name in ("bahdanau", "transformer"):
        (settings.directory / name / "checkpoints/step-00000010").mkdir(parents=True)
    cleared = []

    def killed(directory):
        if cleared:
            raise KeyboardInterrupt
        cleared.append(directory)

    with monkeypatch.context() as patch:
        patch.setattr(sentences, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_directory(fresh, corpus)
    with pytest.raises(
        CheckpointMismatch, match=r"smoke has checkpoints, but no settings\.json.*--fresh"
    ):
        prepare_directory(settings, corpus)
    prepare_directory(fresh, corpus)
    assert json.loads((settings.directory / "settings.json").read_text()) == identity(settings)


def test_a_failed_start_leaves_no_run_and_other_options_work_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = message([*SMOKE, "--corpus", "multi30k"])
    assert "data_dir=None, but multi30k is not in the repository" in said
    assert "pass the folder of these files as --data-dir" in said
    assert not Path("runs/smoke").exists()
    with runs.opened(Path("runs/smoke"), "translate"):
        settings = from_command_line(SMOKE)
        prepare_directory(settings, prepare_corpus(settings))


def test_a_failed_fresh_start_keeps_the_run_that_was_there(home):
    before = sorted(path for path in Path("runs/smoke").rglob("*") if path.is_file())
    assert "data_dir=None" in message([*SMOKE, "--fresh", "--corpus", "multi30k"])
    assert "vocab_size=5 is too small" in message([*SMOKE, "--fresh", "--vocab-size", "5"])
    assert sorted(path for path in Path("runs/smoke").rglob("*") if path.is_file()) == before


def test_a_run_of_another_program_is_refused_by_translate_and_by_sample(home):
    with runs.opened(Path("runs/sorted"), "sort"):
        pass
    said = message(["--preset", "smoke", "--name", "sorted"])
    assert "runs/sorted is a run of `sort`, not of `translate`; choose another --name" in said
    said = message(["sample", "--run", "runs/sorted", "A file."])
    assert "run=runs/sorted is a run of `sort`, not of `translate`; pass --run with one" in said
    assert "runs/smoke" in said


def test_sample_translates_a_sentence(home, capsys):
    main(["sample", "--run=runs/smoke", "Select the file."])
    said = capsys.readouterr().out
    assert "Select the file.\n→ " in said
    assert "warning" not in said


def test_sample_writes_a_page_and_warns_about_what_training_lacks(home, capsys, monkeypatch):
    real = sample.translate_one
    alignment = Alignment(("the", "file"), ("le", "fichier"), np.eye(2))
    monkeypatch.setattr(sample, "translate_one", lambda *a: ("le", alignment, real(*a)[2]))
    main(["sample", "--run", "runs/smoke", "--system=transformer", "--page", "Ω the zyzzyva."])
    said = capsys.readouterr().out
    assert "warning: the training sentences do not have the characters Ω; the network" in said
    assert "warning: the training sentences do not have the words zyzzyva; the network" in said
    page = home / "runs/smoke/samples/ω-the-zyzzyva-transformer.html"
    assert f"The animation, to open in a browser: {page.relative_to(home)}" in said
    assert "Ω the zyzzyva." in page.read_text()
    assert MEANS_OF_HEADS in page.read_text()


def test_sample_draws_the_alignment(home, capsys, monkeypatch):
    alignment = Alignment(("the", "file"), ("le", "fichier"), np.eye(2))
    monkeypatch.setattr(sample, "translate_one", lambda *_: ("le fichier", alignment, None))
    main(["sample", "--run", "runs/smoke", "The file!"])
    assert "fichier │" in capsys.readouterr().out
    assert (home / "runs/smoke/samples/the-file-bahdanau.png").stat().st_size > 2_000


def test_each_system_and_each_long_sentence_has_its_own_files(home, monkeypatch):
    alignment = Alignment(("the", "file"), ("le", "fichier"), np.eye(2))
    monkeypatch.setattr(sample, "translate_one", lambda *_: ("le fichier", alignment, None))
    start = "the file that the user opens with the program and then saves in "
    for system in ("bahdanau", "transformer"):
        for end in ("a", "b"):
            main(["sample", "--run", "runs/smoke", "--system", system, start + end])
    assert len(list((home / "runs/smoke/samples").glob("the-file-that-the-user*.png"))) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sample", "--run", "runs/smoke", "  "], "sentence='  ' is empty"),
        (["sample", "--run", "runs/smoke", "file " * 99], "the model allows 24; split it"),
        (["sample", "--run", "runs/nothing", "A file."], "pass --run with one of these: runs/"),
        (
            ["sample", "--run", "runs/smoke", "--system", "luong", "A file."],
            "no checkpoint of 'luong'; pass --system with one of these: final, bahdanau, transform",
        ),
        (["--name", "acts", "--corpus", "acts"], "laws-lois-xml"),
        (["--corpus", "multi30k", "--data-dir", "nowhere"], "github.com/multi30k/dataset"),
    ],
)
def test_bad_input_is_refused_in_one_line(home, arguments, expected):
    assert expected in message(arguments)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--corpus", "wmt14"], "multi30k"),
        (["--preset", "huge"], "'smoke'"),
        (["sample", "--run", "runs/smoke", "--system", "lstm", "A file."], "'luong'"),
        (["--systems", "lstm"], "'lstm', which is unknown"),
        (["--systems", "final", "final"], "names one twice"),
        (["--rule.min-words", "50"], "is above max_words=40"),
        (["--train.clip-norm", "0"], "clip_norm must be positive"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_runs(option, expected, capsys):
    with pytest.raises(SystemExit):
        main(option)
    told = capsys.readouterr()
    assert expected in " ".join((told.out + told.err).replace("│", " ").split())


def test_a_run_in_use_is_refused(home):
    from experiments.training.runs import locked

    with locked(Path("runs/smoke")):
        assert "in use by process" in message(SMOKE)


def params_hash(run: Path) -> str:
    """A hash of the array data of the last checkpoint, whatever the names of its files."""
    from experiments.systems.translation import Network, model_config
    from experiments.training.sentences import load_vocabulary
    from experiments.training.train import load_params

    config = model_config("bahdanau", PRESETS["smoke"].widths, load_vocabulary(run).sizes)
    like = jax.eval_shape(Network.of(config).init, jax.random.key(0))
    params = load_params(run / "bahdanau", like)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def test_a_killed_run_resumes_and_ends_with_the_same_bits(home):
    command = [
        sys.executable,
        "-m",
        "experiments.translate",
        *["--preset", "smoke", "--name", "killed", "--systems", "bahdanau"],
    ]
    # XLA divides work among threads by the number of devices, and sums in another order.
    devices = str(jax.device_count())
    environment = dict(os.environ, PYTHONPATH=str(ROOT), JAX_NUM_CPU_DEVICES=devices)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    checkpoint = home / "runs/killed/bahdanau/checkpoints/step-00000010"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "continuing RNN + attention after step" in again.stdout
    assert params_hash(home / "runs/killed") == params_hash(home / "runs/smoke")


def test_subwords_are_grouped_into_words():
    assert group_by_word(["▁d'", "or", "▁(", "a", ")"]) == (
        [0, 1, 2, 3, 4],
        ["d'", "or", "(", "a", ")"],
    )


def test_the_seed_is_part_of_a_run_and_its_name_is_not():
    one = from_command_line(["--train.seed", "1"])
    assert identity(one)["train.seed"] == 1
    assert "name" not in identity(one)
    assert one.name == "translate-docs-quick"
