"""The peer's learning rate is that of its train.py, and errors name what is missing."""

import pytest

from experiments.measures import nanogpt_peer


def test_the_rate_warms_up_and_ends_where_its_train_py_ends():
    rates = [nanogpt_peer.rate_at(step) for step in (0, 49, 100, 1050, 2000)]
    assert rates == pytest.approx([1e-3 / 101, 1e-3 * 50 / 101, 1e-3, 5.5e-4, 1e-4])


def test_a_folder_that_is_no_clone_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"has no model\.py; clone github\.com/karpathy/nanoGPT"):
        nanogpt_peer.main(["--nanogpt", str(tmp_path), "--data-dir", str(tmp_path)])
