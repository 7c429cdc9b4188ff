"""The file of measured tiles: written whole, read with care, and reported where it is unusable."""

import json
import os
import warnings
from pathlib import Path

import jax
import pytest

from attn_jax._base.grid import TileShape
from attn_jax._engine import measured_tiles
from attn_jax._engine.measured_tiles import Situation

HERE = Situation.of("blockwise", "cpu", dtype="float32", widths=(8, 3), sizes=(300, 130), heads=5)
THERE = Situation.of("mosaic_tpu", "TPU v6 lite", dtype="bfloat16", widths=(64, 32), sizes=(9, 7))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tiles.json"


def test_calls_of_similar_size_share_a_situation():
    assert (HERE.T, HERE.S, HERE.heads) == (512, 256, 8)
    similar = Situation.of(
        "blockwise", "cpu", dtype="float32", widths=(8, 3), sizes=(512, 256), heads=6
    )
    larger = Situation.of(
        "blockwise", "cpu", dtype="float32", widths=(8, 3), sizes=(513, 256), heads=6
    )
    assert similar == HERE
    assert larger != HERE


def test_what_is_stored_is_read_and_none_removes_it(path):
    assert measured_tiles.tile_of(HERE) is None
    assert not path.exists(), "reading makes no file"
    assert measured_tiles.store({HERE: TileShape(48, 64)}) == path
    measured_tiles.store({THERE: TileShape(256, 128)})
    assert measured_tiles.tile_of(HERE) == (48, 64)
    assert measured_tiles.tile_of(THERE) == (256, 128)
    measured_tiles.store({HERE: None})
    assert dict(measured_tiles.read()) == {THERE: (256, 128)}


def test_the_file_has_a_version_and_the_version_of_jax(path):
    measured_tiles.store({HERE: TileShape(48, 64)})
    document = json.loads(path.read_text())
    assert document["version"] == 1
    assert document["tiles"][0]["jax"] == jax.__version__


def test_a_tile_of_another_version_of_jax_is_kept_and_not_used(path):
    measured_tiles.store({HERE: TileShape(48, 64)})
    text = path.read_text()
    path.write_text(text.replace(f'"{jax.__version__}"', '"0.1"'))
    assert measured_tiles.tile_of(HERE) is None
    measured_tiles.store({THERE: TileShape(256, 128)})
    assert '"0.1"' in path.read_text()


def changed(**changes):
    """The content of a file with one entry, in which some fields are other ones."""
    entry = {
        "kernel": "blockwise", "device": "cpu", "jax": "0.12", "dtype": "float32", "head_dim": 8,
        "value_dim": 3, "T": 512, "S": 256, "heads": 8, "compares_positions": False,
        "tile": [48, 64],
    }  # fmt: skip
    entry |= changes
    return json.dumps({"format": "attn_jax tiles", "version": 1, "tiles": [entry]}).encode()


DAMAGED = {
    "empty": (b"", "not JSON"),
    "cut off": (changed()[:-20], "not JSON"),
    "not text": (b"\xff\xfe\x00\x9f", "not JSON"),
    "a list": (b"[1, 2]", "did not write"),
    "of another program": (b'{"format": "other", "version": 1}', "did not write"),
    "newer": (b'{"format": "attn_jax tiles", "version": 2}', "version 2"),
    "without tiles": (b'{"format": "attn_jax tiles", "version": 1}', "no list"),
    "an entry is a number": (
        b'{"format": "attn_jax tiles", "version": 1, "tiles": [3]}',
        "entry 0 does not",
    ),
    "a field is missing": (changed().replace(b'"heads": 8, ', b""), "entry 0 does not"),
    "a field too many": (changed(colour="red"), "entry 0 does not"),
    "a size is text": (changed(T="512"), "T is '512'"),
    "a size is a truth value": (changed(heads=True), "heads is True"),
    "a tile of one number": (changed(tile=[48]), "two positive numbers"),
    "a tile of zero": (changed(tile=[48, 0]), "two positive numbers"),
    "deep": (b"[" * 200_000, "not JSON"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_an_unusable_file_is_ignored_reported_once_and_not_overwritten(path, content):
    written, problem = content
    path.parent.mkdir()
    path.write_bytes(written)
    with pytest.warns(RuntimeWarning, match=problem) as reports:
        assert measured_tiles.tile_of(HERE) is None
    assert str(path) in str(reports[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measured_tiles.tile_of(THERE) is None
    with pytest.raises(ValueError, match=problem):
        measured_tiles.store({HERE: TileShape(48, 64)})
    assert path.read_bytes() == written


def test_the_content_of_the_damaged_examples_is_usable_without_the_damage(path):
    path.parent.mkdir()
    path.write_bytes(changed())
    assert list(measured_tiles.read().values()) == [(48, 64)]


def test_a_folder_in_the_place_of_the_file_is_reported(path):
    path.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="directory"):
        assert not measured_tiles.read()


def test_a_file_that_is_repaired_is_read_again(path):
    path.parent.mkdir()
    path.write_bytes(b"{")
    with pytest.warns(RuntimeWarning, match="ignores"):
        measured_tiles.read()
    path.unlink()
    measured_tiles.store({HERE: TileShape(48, 64)})
    assert measured_tiles.tile_of(HERE) == (48, 64)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    measured_tiles.store({HERE: TileShape(48, 64)})
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="full"):
        measured_tiles.store({HERE: TileShape(16, 16)})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["tiles.json"]


def test_the_new_content_is_complete_before_it_gets_the_name(path, monkeypatch):
    measured_tiles.store({HERE: TileShape(48, 64)})
    seen = []
    replace = os.replace

    def look(source, target):
        seen.append((json.loads(path.read_text()), json.loads(Path(source).read_text())))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    measured_tiles.store({HERE: TileShape(16, 32)})
    old, new = (document["tiles"][0]["tile"] for document in seen[0])
    assert (old, new) == ([48, 64], [16, 32])


def test_where_the_file_is(monkeypatch, tmp_path):
    monkeypatch.delenv("ATTN_JAX_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert measured_tiles.file() == tmp_path / "xdg" / "attn_jax" / "tiles.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert measured_tiles.file() == tmp_path / "home" / ".cache" / "attn_jax" / "tiles.json"
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", str(tmp_path / "own"))
    assert measured_tiles.file() == tmp_path / "own" / "tiles.json"


def test_a_trial_overrides_the_file_and_notes_who_asks(path):
    measured_tiles.store({HERE: TileShape(48, 64)})
    with measured_tiles.trying(TileShape(16, 32)) as asked:
        assert measured_tiles.tile_of(HERE) == (16, 32)
        assert measured_tiles.tile_of(THERE) == (16, 32)
    assert list(asked) == [HERE, THERE]
    with measured_tiles.trying(None):
        assert measured_tiles.tile_of(HERE) is None
    assert measured_tiles.tile_of(HERE) == (48, 64)


def test_a_program_for_an_absent_platform_has_the_kind_of_the_abstract_device():
    assert measured_tiles.device_kind("cpu") == jax.devices()[0].device_kind
    assert measured_tiles.device_kind("tpu") is None
    device = jax.sharding.AbstractDevice(device_kind="TPU v6 lite", num_cores=1, platform="tpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert measured_tiles.device_kind("tpu") == "TPU v6 lite"
