import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.training import checkpoints, seals
from experiments.training.checkpoints import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNotSaved,
)


class Moments(NamedTuple):
    count: jax.Array
    mean: dict[str, jax.Array]


def tree(scale=1.0):
    """Every container and dtype a training state has, no two leaves alike."""
    kernel = scale * jax.random.normal(jax.random.key(3), (2, 5))
    return {
        "params": {"kernel": kernel, "layers": [jnp.arange(3, dtype=jnp.bfloat16)]},
        "moments": Moments(jnp.asarray(7), {"kernel": kernel * kernel}),
        "key": jax.random.key(11),
    }


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        raw = [
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
            for x in (a, b)
        ]
        assert np.asarray(raw[0]).tobytes() == np.asarray(raw[1]).tobytes()


def shapes(arrays):
    return jax.eval_shape(lambda: arrays)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints of steps 20 and 40; tests copy it."""
    directory = tmp_path_factory.mktemp("two")
    for step in (20, 40):
        checkpoints.save(directory, step, tree(step), {"cursor": {"next": step}}, f"log {step}\n")
    return directory


@pytest.fixture
def copy(two, tmp_path):
    return shutil.copytree(two, tmp_path / "checkpoints")


def test_a_checkpoint_gives_back_every_bit_and_every_container(two):
    found = checkpoints.newest(two)
    assert (found.step, found.state["cursor"], found.log) == (40, {"next": 40}, "log 40\n")
    assert_same_bits(checkpoints.restore(found, shapes(tree())), tree(40))


def test_one_branch_can_be_restored_alone(two):
    like = shapes(tree())["params"]
    found = checkpoints.newest(two)
    assert_same_bits(checkpoints.restore(found, like, under="params"), tree(40)["params"])


def test_the_state_of_a_flax_module_comes_back_as_one(tmp_path):
    def linear(seed):
        return nnx.state(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(seed))))

    checkpoints.save(tmp_path, 20, {"params": linear(5)}, {}, "")
    restored = checkpoints.restore(checkpoints.newest(tmp_path), linear(6), under="params")
    assert_same_bits(restored, linear(5))


def test_where_nothing_was_saved_there_is_no_checkpoint(tmp_path):
    assert checkpoints.newest(tmp_path / "checkpoints") is None


def test_only_the_newest_two_are_kept(copy):
    checkpoints.save(copy, 60, tree(60), {}, "")
    assert names(copy) == ["step-00000040", "step-00000060"]


def test_nine_digits_are_newer_than_eight(tmp_path):
    for step in (99_999_999, 100_000_000, 100_000_001):
        checkpoints.save(tmp_path, step, tree(), {}, "")
    assert names(tmp_path) == ["step-100000000", "step-100000001"]
    assert checkpoints.newest(tmp_path).step == 100_000_001


def test_a_relative_directory_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = Path("runs/checkpoints")
    checkpoints.save(directory, 20, tree(20), {}, "")
    restored = checkpoints.restore(checkpoints.newest(directory), shapes(tree()))
    assert_same_bits(restored, tree(20))


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two arrays have the name a\.b"):
        checkpoints.save(tmp_path, 20, {"a": {"b": jnp.ones(2)}, "a.b": jnp.ones(3)}, {}, "")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


@pytest.mark.parametrize("harm", [flip, truncate, empty, delete])
def test_harm_to_any_file_is_found_and_the_checkpoint_before_is_used(copy, tmp_path, harm):
    files = [path for path in sorted((copy / "step-00000040").rglob("*")) if path.is_file()]
    assert len(files) > 8
    for path in files:
        if not path.stat().st_size and harm is not delete:
            continue  # an empty file cannot be flipped, cut or emptied
        backup = shutil.copy(path, tmp_path / "backup")
        harm(path)
        found = checkpoints.newest(copy)
        assert found.step == 20, path
        assert [damaged.name for damaged in found.damaged] == ["step-00000040"]
        shutil.copy(backup, path)
    assert checkpoints.newest(copy).step == 40


def test_a_file_that_appears_is_damage_but_a_desktops_is_not(copy):
    (copy / "step-00000040" / ".DS_Store").write_text("x")
    assert checkpoints.newest(copy).step == 40
    (copy / "step-00000040" / "arrays" / "more").write_text("x")
    assert "arrays/more is not listed" in next(iter(checkpoints.newest(copy).damaged.values()))


@pytest.mark.parametrize("listed", ["nothing", "one file"])
def test_a_seal_that_lists_too_little_is_damage(copy, listed):
    newest = copy / "step-00000040"
    line = (newest / seals.SUMS).read_text().splitlines(keepends=True)[0]
    kept = line.split()[1] if listed == "one file" else None
    for path in sorted(newest.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(newest)) != kept and path.name != seals.SUMS:
            path.unlink()
    (newest / seals.SUMS).write_text(line if kept else "")
    found = checkpoints.newest(copy)
    assert found.step == 20
    assert "SHA256SUMS does not list" in found.damaged[newest]


def test_a_link_to_the_checkpoint_of_another_step_is_damage_and_is_removed_alone(copy):
    newest = copy / "step-00000040"
    shutil.rmtree(newest)
    newest.symlink_to(copy / "step-00000020")
    found = checkpoints.newest(copy)
    assert (found.step, found.damaged) == (20, {newest: "it is a checkpoint of step 20"})
    checkpoints.remove_leftovers(copy, found.damaged)
    assert names(copy) == ["step-00000020"]
    assert checkpoints.newest(copy).step == 20


def test_a_folder_of_a_checkpoint_that_became_a_link_is_damage(copy, tmp_path):
    arrays = copy / "step-00000040" / "arrays"
    other = copy.parent / "other"
    shutil.copytree(copy / "step-00000020" / "arrays", other)
    shutil.rmtree(arrays)
    arrays.symlink_to(other)
    found = checkpoints.newest(copy)
    assert found.step == 20
    assert "is missing" in next(iter(found.damaged.values()))


def test_an_old_checkpoint_that_is_a_link_makes_room_too(copy):
    moved = (copy / "step-00000020").rename(copy.parent / "moved")
    (copy / "step-00000020").symlink_to(moved)
    checkpoints.save(copy, 60, tree(60), {}, "")
    assert names(copy) == ["step-00000040", "step-00000060"]
    assert (moved / "state.json").exists()


def test_sums_have_the_format_of_sha256sum(two):
    directory = two / "step-00000040"
    lines = (directory / seals.SUMS).read_text().splitlines()
    assert len(lines) == len([path for path in directory.rglob("*") if path.is_file()]) - 1
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest


def test_when_all_are_damaged_the_message_names_the_files_and_the_remedy(copy):
    flip(copy / "step-00000040" / "state.json")
    delete(copy / "step-00000020" / "metrics.jsonl")
    expected = r"00040: sha256 of state.json differs; .*00020: metrics.jsonl is missing.*--fresh"
    with pytest.raises(CheckpointCorrupt, match=expected):
        checkpoints.newest(copy)


def test_a_newer_format_is_refused(two, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    checkpoints.save(tmp_path, 20, tree(), {}, "")
    monkeypatch.setattr(checkpoints, "FORMAT", 1)
    with pytest.raises(CheckpointMismatch, match="format 2, and this program supports up to 1"):
        checkpoints.newest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"kernel": jnp.zeros((2, 6))},
            r"params.kernel float32\[2,5\] in .*, float32\[2,6\] requested",
        ),
        ({"kernel": jnp.zeros((2, 5), jnp.int32)}, r"float32\[2,5\] in .*, int32\[2,5\] requested"),
        ({"bias": jnp.zeros(5)}, r"params.bias absent in the checkpoint, float32\[5\] requested"),
        ({"layers": []}, r"params.layers.0 bfloat16\[3\] in the checkpoint, none requested"),
    ],
)
def test_arrays_of_another_model_are_refused_by_name(two, changes, expected):
    like = tree()["params"] | changes
    with pytest.raises(CheckpointMismatch, match=expected):
        checkpoints.restore(checkpoints.newest(two), like, under="params")


def refuse(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function"),
    [(checkpoints, "_write_arrays"), (seals, "seal"), (seals, "flush")],
)
def test_a_failed_save_leaves_the_earlier_checkpoint_and_nothing_else(
    copy, monkeypatch, module, function
):
    with monkeypatch.context() as patch:
        patch.setattr(module, function, refuse)
        with pytest.raises(CheckpointNotSaved, match=r"step 60 .*No space.*step 40 is intact"):
            checkpoints.save(copy, 60, tree(60), {}, "")
    assert names(copy) == ["step-00000020", "step-00000040"]
    checkpoints.save(copy, 60, tree(60), {}, "")
    assert checkpoints.newest(copy).step == 60


def test_a_disk_that_is_too_full_is_not_written_at_all(copy, monkeypatch):
    monkeypatch.setattr(checkpoints, "_write_arrays", lambda *_: pytest.fail("it was written"))
    usage = shutil.disk_usage(copy)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointNotSaved, match=r"\(No space left on device\).*Free some space"):
        checkpoints.save(copy, 60, tree(60), {}, "")
    assert names(copy) == ["step-00000020", "step-00000040"]


def test_a_read_only_disk_is_not_reported_as_full(copy, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkpoints, "_write_arrays", refuse)
    expected = rf"\(Read-only file system\).*Make {copy} writable and run"
    with pytest.raises(CheckpointNotSaved, match=expected):
        checkpoints.save(copy, 60, tree(60), {}, "")


_FILL = """
import pathlib, resource, sys
import jax
from experiments.training import checkpoints
directory = pathlib.Path(sys.argv[1])
arrays = {f"a{i}": jax.random.normal(jax.random.key(i), (100, 500)) for i in range(3)}
checkpoints.save(directory, 20, arrays, {}, "")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.save(directory, 40, arrays, {}, "")
except checkpoints.CheckpointNotSaved as error:
    print(error)
print(checkpoints.newest(directory).step)
"""


def test_a_file_system_that_refuses_is_one_clear_message(tmp_path, pytestconfig):
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=pytestconfig.rootpath,
        check=True,
    )
    message, step = done.stdout.splitlines()
    assert "step 40 was not saved" in message
    assert "about 0.6 MB" in message
    assert "step 20 is intact" in message
    assert step == "20"
    assert names(tmp_path) == ["step-00000020"]
    assert "(File too large)" in message
    assert done.stderr == ""


def test_leftovers_and_damage_are_tidied_away(copy):
    (copy / "step-00000060.writing").mkdir()
    (copy / "step-00000000.removing").mkdir()
    flip(copy / "step-00000040" / "state.json")
    checkpoints.remove_leftovers(copy, checkpoints.newest(copy).damaged)
    assert names(copy) == ["step-00000020"]


def test_nothing_is_unpickled(two, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a checkpoint must not be able to run code")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    checkpoints.restore(checkpoints.newest(two), shapes(tree()))
