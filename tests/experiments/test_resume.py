"""An interrupted run ends with the bits of an uninterrupted one."""

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from rich.console import Console
from tiny_task import CONFIG, fingerprint, init, task, untimed

from experiments.training import checkpoints
from experiments.training.train import fit, load_params

_PROGRAM = Path(__file__).with_name("tiny_task.py")


def start(directory, root, pause=0.0):
    return subprocess.Popen(
        [sys.executable, str(_PROGRAM), str(directory), "--pause", str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def wait_for_lines(directory, process, count):
    history = directory / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not history.exists() or history.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, pytestconfig):
    directory = tmp_path_factory.mktemp("unbroken")
    return directory, finish(start(directory, pytestconfig.rootpath))


def test_kill_9_twice_and_the_bits_are_those_of_an_unbroken_run(unbroken, tmp_path, pytestconfig):
    for lines in (4, 9):
        process = start(tmp_path, pytestconfig.rootpath, pause=0.02)
        wait_for_lines(tmp_path, process, lines)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert finish(start(tmp_path, pytestconfig.rootpath)) == unbroken[1]
    assert untimed(tmp_path / "metrics.jsonl") == untimed(unbroken[0] / "metrics.jsonl")


def test_ctrl_c_saves_and_the_same_command_resumes(unbroken, tmp_path, pytestconfig):
    process = start(tmp_path, pytestconfig.rootpath, pause=0.02)
    wait_for_lines(tmp_path, process, 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    step = checkpoints.newest(tmp_path / "checkpoints").step
    assert said.splitlines()[-1] == f"stopped at step {step}; run the same command to continue"
    assert "Traceback" not in said
    assert finish(start(tmp_path, pytestconfig.rootpath)) == unbroken[1]
    assert untimed(tmp_path / "metrics.jsonl") == untimed(unbroken[0] / "metrics.jsonl")


class InterruptError(Exception):
    """Stands for whatever breaks a run in this process."""


def interrupted(step):
    """The tiny task, whose dataset breaks after `step` batches."""
    plain = task()
    seen = iter(range(step))

    def passing(batch):
        if next(seen, None) is None:
            raise InterruptError
        return batch

    return dataclasses.replace(plain, dataset=plain.dataset.map(passing))


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run of this process that broke after step 24: checkpoints 14 and 21, metrics up to 24."""
    directory = tmp_path_factory.mktemp("broken")
    with pytest.raises(InterruptError):
        fit(interrupted(24), CONFIG, directory)
    assert [line["step"] for line in untimed(directory / "metrics.jsonl")][-1] == 24
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(task(), CONFIG, tmp_path_factory.mktemp("whole"))


def resume(directory):
    console = Console(file=io.StringIO())
    return fit(task(), CONFIG, directory, console=console), console.file.getvalue()


def assert_same(result, whole):
    assert fingerprint(result.params) == fingerprint(whole.params)
    assert untimed(result.history) == untimed(whole.history)


def test_a_run_resumes_from_the_newest_checkpoint(broken, whole, tmp_path):
    result, said = resume(shutil.copytree(broken, tmp_path / "copy"))
    assert_same(result, whole)
    assert said.startswith("continuing tiny after step 21 of 40, in ")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(broken, whole, tmp_path):
    copy = shutil.copytree(broken, tmp_path / "copy")
    next((copy / "checkpoints" / "step-00000021").glob("arrays/d/*")).write_bytes(b"")
    result, said = resume(copy)
    assert_same(result, whole)
    assert "step-00000021 is damaged (sha256 of arrays/d/" in said
    assert "using step 14 instead" in said


def test_a_metrics_file_that_was_lost_or_cut_comes_back_whole(broken, whole, tmp_path):
    copy = shutil.copytree(broken, tmp_path / "copy")
    history = copy / "metrics.jsonl"
    os.truncate(history, history.stat().st_size - 9)
    assert_same(resume(copy)[0], whole)


def test_a_half_written_checkpoint_is_ignored_and_removed(broken, whole, tmp_path):
    copy = shutil.copytree(broken, tmp_path / "copy")
    draft = copy / "checkpoints" / "step-00000028.writing"
    shutil.copytree(copy / "checkpoints" / "step-00000021", draft)
    assert_same(resume(copy)[0], whole)
    assert not draft.exists()


def test_a_full_disk_stops_the_run_and_room_continues_it(broken, whole, tmp_path, monkeypatch):
    copy = shutil.copytree(broken, tmp_path / "copy")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_arrays", refuse)
        with pytest.raises(checkpoints.CheckpointNotSaved, match="the one of step 21 is intact"):
            resume(copy)
    assert_same(resume(copy)[0], whole)


def test_params_of_an_unfinished_run_can_be_loaded(broken):
    initial = init(jax.random.key(CONFIG.seed))
    params = load_params(broken, initial)
    assert params["first"].shape == (3, 6)
    assert fingerprint(params) != fingerprint(initial)


def test_seconds_and_tokens_add_up_over_sittings(broken, whole, tmp_path):
    copy = shutil.copytree(broken, tmp_path / "copy")
    stored = checkpoints.newest(copy / "checkpoints").state["seconds"]
    result, _ = resume(copy)
    assert result.seconds > stored > 0
    assert untimed(result.history)[-1]["tokens"] == untimed(whole.history)[-1]["tokens"]
