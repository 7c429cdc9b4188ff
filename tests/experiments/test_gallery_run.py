"""The gallery's program writes its arrays whole, and a test run writes in its own folder."""

from pathlib import Path

import numpy as np
import pytest

from experiments.command_line.options import choose_settings
from experiments.gallery import arrays
from experiments.gallery.__main__ import PRESETS


def test_saved_arrays_are_read_back(tmp_path):
    path = arrays.save({"weights": np.eye(3)}, tmp_path / "data" / "one.npz")
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["weights"], np.eye(3))


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = arrays.save({"weights": np.eye(3)}, tmp_path / "one.npz")
    old = path.read_bytes()

    def interrupted(file, *, allow_pickle, **named):
        if isinstance(file, Path):
            file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arrays.save({"weights": np.eye(4)}, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], "docs/gallery/data"),
        (["--name", "x"], "docs/gallery/data"),
        (["--preset", "smoke"], "runs/gallery-smoke/data"),
        (["--preset", "smoke", "--name", "x"], "runs/x/data"),
        (["--preset", "smoke", "--name", "x", "--data", "y"], "y"),
    ],
)
def test_the_arrays_of_a_test_run_are_in_the_folder_of_its_name(arguments, folder):
    settings = choose_settings("gallery", "", PRESETS, arguments)
    assert settings.data_folder == Path(folder)
