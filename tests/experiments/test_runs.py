import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.training import runs

_HOLD = """
import pathlib, sys, time
from experiments.training import runs
with runs.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, pytestconfig):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=pytestconfig.rootpath,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_directory_in_use_is_refused_and_the_message_names_the_process(holder, tmp_path):
    expected = rf"process {holder.pid};.*--name"
    with pytest.raises(runs.RunInUse, match=expected), runs.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file")
    directory = tmp_path / "runs" / "one"
    expected = rf"{tmp_path}/runs is a file, .*rename the file"
    with pytest.raises(OSError, match=expected), runs.locked(directory):
        pass

    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    expected = r"two/one cannot be written \(Permission denied\): make it writable, or copy"
    with pytest.raises(OSError, match=expected), runs.locked(tmp_path / "two" / "one"):
        pass


def test_a_failed_start_leaves_no_folder_and_a_failure_in_training_does(tmp_path):
    for name, trained in (("early", False), ("late", True)):
        directory = tmp_path / name

        def start(directory=directory, trained=trained):
            with runs.opened(directory, "sort"):
                if trained:
                    (directory / "model").mkdir()
                    (directory / "model" / "metrics.jsonl").write_text("")
                raise ValueError("no data")

        with pytest.raises(ValueError, match="no data"):
            start()
        assert directory.exists() is trained


def test_a_failed_start_keeps_a_run_that_was_there_before(tmp_path):
    directory = tmp_path / "one"
    with runs.opened(directory, "sort"):
        (directory / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no data"), runs.opened(directory, "sort"):
        raise ValueError("no data")
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_failed_start_removes_no_hidden_file_of_the_user(tmp_path):
    (tmp_path / ".notes").write_text("mine")
    with pytest.raises(runs.OtherProgram), runs.opened(tmp_path, "sort"):
        raise ValueError("no data")
    assert (tmp_path / ".notes").read_text() == "mine"


def test_a_run_of_another_program_is_refused_and_unchanged(tmp_path):
    with runs.opened(tmp_path / "one", "sort"):
        pass
    expected = r"one is a run of `sort`, not of `lm`; choose another --name"
    with pytest.raises(runs.OtherProgram, match=expected), runs.opened(tmp_path / "one", "lm"):
        pass
    assert runs.program_of(tmp_path / "one") == "sort"
    with runs.opened(tmp_path / "one", "sort"):
        pass


def test_files_of_an_unknown_program_are_refused_and_unchanged(tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    expected = r"one has files, but no file `program`.*choose another --name.*`translate`"
    with pytest.raises(runs.OtherProgram, match=expected), runs.opened(directory, "translate"):
        pass
    assert [path.name for path in directory.iterdir()] == ["config.json"]
    (directory / "program").write_text("lm\n")
    with runs.opened(directory, "lm"):
        pass


def test_a_folder_with_only_a_lock_or_a_draft_is_free_and_a_failed_start_does_not_own_it(tmp_path):
    directory = tmp_path / "one"
    for program in ("sort", "lm"):
        directory.mkdir(exist_ok=True)
        (directory / "lock").write_text("7\n")
        (directory / ".program.7").write_text("sort\n")
        with pytest.raises(ValueError, match="no data"), runs.opened(directory, program):
            raise ValueError("no data")
        assert runs.program_of(directory) is None


def test_kill_9_releases_the_directory(holder, tmp_path):
    holder.kill()
    holder.wait()
    with runs.locked(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_is_free_again_after_its_run(tmp_path):
    for _ in range(2):
        with runs.locked(tmp_path / "new"):
            pass


def test_clearing_leaves_what_the_run_did_not_write(tmp_path):
    (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "notes.txt"):
        (tmp_path / name).write_text("x")
    runs.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_config_is_read_back(tmp_path):
    runs.write_config(tmp_path, {"task": "tiny", "config": {"width": 3}})
    assert runs.read_config(tmp_path) == {"task": "tiny", "config": {"width": 3}}


def test_reading_a_missing_config_is_an_error_that_nothing_was_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was trained"):
        runs.read_config(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    runs.write_whole(path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        runs.write_whole(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["report.md"]


def test_a_reader_of_the_old_file_gets_all_of_it_while_it_is_replaced(tmp_path):
    path = tmp_path / "report.md"
    runs.write_whole(path, b"old")
    with path.open("rb") as reader:
        runs.write_whole(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


def test_a_disk_too_small_is_refused_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    runs.require_space(tmp_path, 5_000_000, "the checkpoints")
    with pytest.raises(OSError, match=r"checkpoints need about 312\.0 MB .* 5\.0 MB are free"):
        runs.require_space(tmp_path, 312_000_000, "the checkpoints")


def test_signals_act_as_usual_after_a_run_that_nobody_stopped():
    usual = signal.getsignal(signal.SIGINT)
    with runs.stop_requests():
        assert signal.getsignal(signal.SIGINT) != usual
    assert signal.getsignal(signal.SIGINT) == usual


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_acts_as_usual(number):
    seen = []
    usual = signal.signal(number, lambda *_: seen.append("usual"))
    try:
        with runs.stop_requests() as stop:
            assert stop.signal is None
            signal.raise_signal(number)
            assert stop.signal == number
            assert not seen
            signal.raise_signal(number)
            assert seen == ["usual"]
        signal.raise_signal(number)
        assert seen == ["usual", "usual"]
    finally:
        signal.signal(number, usual)
