"""Training on a mesh of devices and in two processes equals training on one device."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from attn_jax.models import DecoderConfig
from experiments import lm
from experiments.data.windows import evaluation_windows, training_windows
from experiments.systems.language_model import LanguageModel
from experiments.training import mesh_processes, runs
from experiments.training.mesh import MeshSizes, OneDevice, placement
from experiments.training.mesh_processes import Processes, join
from experiments.training.task import Task, TrainConfig
from experiments.training.train import fit

# 22 tokens and one key head: two devices along `tensor` share the former, not the latter.
CONFIG = DecoderConfig(
    vocab_size=22, model_dim=8, num_layers=1, num_heads=2, num_kv_heads=1, max_length=6
)
TRAIN = TrainConfig(
    steps=12,
    batch_size=4,
    optimiser="adamw",
    weight_decay=0.1,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=2,
    validate_every=6,
    checkpoint_every=5,
)
LEARNER = LanguageModel.of(replace(CONFIG, dropout_rate=0.2))
STREAM = np.random.default_rng(0).integers(0, 22, 300).astype(np.int32)
MESHES = {
    "data and tensor": MeshSizes(data=2, tensor=2),
    "tensor and fsdp": MeshSizes(tensor=2, fsdp=2),
    "all three": MeshSizes(data=2, tensor=2, fsdp=2),
}


def task(where, stop_after=None):
    """The tiny model's task; after `stop_after` batches its dataset breaks."""
    held_out = evaluation_windows(STREAM[:94], length=6, batch_size=16)  # 15 windows: an odd number
    evaluate = LEARNER.evaluation([where.batch(batch) for batch in held_out])
    windows = training_windows(STREAM, length=6, batch_size=4, seed=0)
    if stop_after is not None:
        left = iter(range(stop_after))
        windows = windows.map(lambda batch: batch if next(left, None) is not None else 1 / 0)
    parts = LEARNER.init, LEARNER.loss, windows, lambda params: {"loss": evaluate(params)}
    return Task("tiny", {}, *parts)


def trained(directory, sizes, stop_after=None):
    where = placement(sizes, CONFIG, 4)
    return fit(task(where, stop_after), TRAIN, directory, placement=where)


def broken(directory, sizes, stop_after):
    with pytest.raises(ZeroDivisionError):
        trained(directory, sizes, stop_after)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The whole run on a mesh, made once."""
    return functools.cache(lambda sizes: trained(tmp_path_factory.mktemp("whole"), sizes))


def numbers(history):
    """Loss, gradient's norm and validation of every line."""
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    names = ("loss", "grad_norm", "validation_loss")
    return np.array([line[name] for line in lines for name in names if name in line])


def leaves(result):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(result.params)]


def told(result):
    """All parameters but the keys' biases: softmax cancels these, so their gradients are rounding
    errors alone, which AdamW divides by their own size."""
    named = jax.tree_util.tree_leaves_with_path(result.params)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in named
        if "b_key" not in str(path)
    }


def assert_alike(result, other):
    assert len(numbers(other.history)) == 14
    np.testing.assert_allclose(numbers(result.history), numbers(other.history), rtol=1e-5)
    mine, theirs = told(result), told(other)
    assert mine.keys() == theirs.keys()
    assert len(mine) == len(leaves(other)) - CONFIG.num_layers
    for name, values in mine.items():
        assert np.abs(values - theirs[name]).max() <= 1e-5, name


@pytest.mark.parametrize("name", MESHES)
def test_training_on_a_mesh_equals_training_on_one_device(name, unbroken):
    sizes = MESHES[name]
    result = unbroken(sizes)
    assert_alike(result, unbroken(MeshSizes()))
    up = result.params["blocks"][0]["feed_forward"]["w_up"].get_value()
    assert up.addressable_shards[0].data.size * sizes.tensor * sizes.fsdp == up.size
    table = result.params["embedding"]["table"].get_value()
    assert table.addressable_shards[0].data.shape == (22 // sizes.tensor, 8 // sizes.fsdp)
    key = result.params["blocks"][0]["attention"]["w_key"].get_value()
    assert key.addressable_shards[0].data.shape == (8 // sizes.fsdp, 1, 4)


def test_each_device_has_its_rows_and_no_others():
    where = placement(MESHES["all three"], CONFIG, 4)
    batch = next(iter(training_windows(STREAM, length=6, batch_size=4, seed=0)))
    tokens = where.batch(batch).tokens
    np.testing.assert_array_equal(tokens, batch.tokens)
    assert sorted(shard.index[0].start for shard in tokens.addressable_shards) == [
        *(0, 0, 1, 1, 2, 2, 3, 3)
    ]
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(1, 7)}
    odd = where.batch(batch._replace(tokens=batch.tokens[:3])).tokens
    assert {shard.data.shape for shard in odd.addressable_shards} == {(3, 7)}


def test_a_run_that_broke_on_a_mesh_ends_there_with_the_same_bits(unbroken, tmp_path):
    sizes = MESHES["all three"]
    broken(tmp_path, sizes, 7)
    again, whole = trained(tmp_path, sizes), unbroken(sizes)
    for one, two in zip(leaves(again), leaves(whole), strict=True):
        np.testing.assert_array_equal(one, two)
    assert numbers(again.history).tolist() == numbers(whole.history).tolist()


def test_a_run_resumes_on_another_mesh_and_then_on_one_device(unbroken, tmp_path):
    broken(tmp_path, MESHES["data and tensor"], 6)
    broken(tmp_path, MeshSizes(fsdp=4), 6)
    result = trained(tmp_path, MeshSizes())
    assert_alike(result, unbroken(MeshSizes()))
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(result.params)} == {1}


def test_one_device_is_the_default_and_changes_nothing():
    where = placement(MeshSizes(), CONFIG, 3)
    assert type(where) is OneDevice
    assert where.batch(STREAM) is STREAM
    assert lm.from_command_line([]).mesh == MeshSizes()


@pytest.mark.parametrize(
    ("sizes", "changes", "message"),
    [
        ({"tensor": 0}, {}, "mesh.tensor must be at least 1; got 0"),
        ({"data": 16}, {}, r"mesh.fsdp=1 need 16 devices and there are 8.*device_count=16"),
        ({"data": 3}, {}, r"train.batch_size=4 must be a multiple of mesh.data · mesh.fsdp=3"),
        ({"tensor": 4}, {}, "sizes.num_heads=2 must be a multiple of mesh.tensor=4"),
        ({"tensor": 2}, {"hidden_dim": 9}, "sizes.hidden_dim=9 must be a multiple"),
        ({"fsdp": 4}, {"model_dim": 10}, "sizes.model_dim=10 must be a multiple of mesh.fsdp=4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, changes, message):
    with pytest.raises(ValueError, match=message):
        placement(MeshSizes(**sizes), replace(CONFIG, **changes), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 2}, "needs processes.coordinator=HOST:PORT"),
        ({"coordinator": "auto", "count": 2}, "auto finds the count itself"),
        ({"coordinator": "node"}, "must be HOST:PORT or auto; got 'node'"),
        ({"coordinator": "node:1", "index": 1}, "index=1 must be at least 0 and below .*count=1"),
    ],
)
def test_processes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Processes(**options)


def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(mesh_processes, "PATIENCE", 0.3)
    address = f"localhost:{free_port()}"
    with pytest.raises(ConnectionError, match=f"no answer at processes.coordinator={address} .*0"):
        join(Processes(coordinator=address, count=2, index=1))


def test_without_a_cluster_the_error_names_what_to_pass(monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"auto found no cluster .* pass HOST:PORT"):
        join(Processes(coordinator="auto"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


SMALL = ["--preset", "smoke", "--corpus", "tinyshakespeare", "--data-dir", ".", "--name", "run"]
SMALL += ["--sizes.num-layers", "1", "--train.log-every", "2", "--sample-length", "8"]


def start(folder, *options):
    """Two processes of `python -m experiments.lm`, with one device each."""
    root = Path(lm.__file__).parents[1]
    quick = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, "PYTHONPATH": str(root), **quick}
    program = [sys.executable, "-m", "experiments.lm", *SMALL, "--mesh.data", "2", *options]
    program += ["--processes.coordinator", f"localhost:{free_port()}", "--processes.count", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [*program, "--processes.index", index], cwd=folder, env=environment, **pipes
        )
        for index in "01"
    ]


def finish(processes):
    """Status, output and errors of each."""
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]


@pytest.fixture
def folder(tmp_path):
    text = "the whale, the white whale; and the sea that swallowed the ship.\n"
    (tmp_path / "tinyshakespeare.txt").write_text(text * 30)
    return tmp_path


@pytest.fixture
def in_one_process(folder, monkeypatch):
    """Trains the same model here, in another run."""
    monkeypatch.chdir(folder)
    return lambda *options: lm.main([*SMALL, "--name", "alone", *options])


def history(folder, name):
    return numbers(folder / "runs" / name / "model" / "metrics.jsonl")


def test_training_in_two_processes_equals_training_in_one_and_one_of_them_prints(
    folder, in_one_process
):
    steps = ["--train.steps", "12"]
    (status, said, _), (other, silence, _) = finish(start(folder, *steps))
    assert (status, other) == (0, 0)
    assert "validation loss" in said
    assert "the white whale" not in silence
    assert "step" not in silence
    assert in_one_process(*steps) == 0
    np.testing.assert_allclose(history(folder, "run"), history(folder, "alone"), rtol=1e-5)
    found = [
        json.loads((folder / "runs" / name / "report" / "report.json").read_text())
        for name in ("run", "alone")
    ]
    assert found[0]["samples"] == found[1]["samples"]
    assert found[0]["scores"][-1]["loss"] == pytest.approx(found[1]["scores"][-1]["loss"], rel=1e-5)


def test_a_run_that_two_processes_stopped_resumes_in_one(folder, in_one_process, capsys):
    steps = ["--train.steps", "200", "--train.validate-every", "200"]
    pair = start(folder, *steps)
    log = folder / "runs" / "run" / "model" / "metrics.jsonl"
    while not log.exists() or log.read_text().count("\n") < 3:
        assert all(process.poll() is None for process in pair), finish(pair)
        time.sleep(0.01)
    pair[1].send_signal(signal.SIGINT)
    (status, said, _), (other, _, _) = finish(pair)
    assert (status, other) == (130, 130)
    stopped = int(said.partition("stopped at step ")[2].partition(";")[0])
    assert 6 <= stopped < 200
    before = log.read_text()
    assert in_one_process(*steps, "--name", "run") == 0
    assert f"after step {stopped} of 200" in capsys.readouterr().out
    assert log.read_text().startswith(before)
    assert in_one_process(*steps) == 0
    # The order of sums differs, and 200 steps amplify that.
    run, alone = (history(folder, name)[::2] for name in ("run", "alone"))
    np.testing.assert_allclose(run, alone, rtol=1e-3)


def test_what_process_0_refuses_ends_all(folder):
    with runs.locked(folder / "runs" / "run"):
        (status, _, why), (other, _, also) = finish(start(folder))
    assert (status, other) == (1, 1)
    assert f"error: runs/run is in use by process {os.getpid()}" in why
    assert "error: process 0 stopped: RunInUse: runs/run is in use" in also
