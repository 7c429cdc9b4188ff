"""The library compiles for 4 to 256 TPU chips with the real compiler, without a TPU."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = ROOT / ".tpu"
PROGRAM = ROOT / "tests" / "programs" / "compile_for_tpu.py"

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the TPU compiler is published for Linux on x86-64 only",
)


@pytest.fixture(scope="module")
def compiled():
    assert (COMPILER / "libtpu").exists(), "the TPU compiler is missing: run `make tpu`"
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(COMPILER), str(ROOT)]),
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # test_tpu_kernel.py may run at the same time
    )
    run = subprocess.run(
        [sys.executable, PROGRAM],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_dot_product_attention_compiles_and_moves_nothing_between_chips(compiled):
    report = compiled["dot_product_attention"]
    assert report["chips"] == 4
    assert report["flops"] > 0
    assert report["collectives"] == {}


def test_a_training_step_compiles_and_exchanges_gradients_only(compiled):
    report = compiled["training_step"]
    assert report["chips"] == 4
    assert set(report["collectives"]) == {"all-reduce"}
    assert 0 < report["temporary_bytes"] < 16 * 2**30  # a v5e chip has 16 GiB


def test_tensor_parallelism_on_256_chips_needs_all_reduces_only(compiled):
    report = compiled["tensor_parallel_step"]
    assert report["chips"] == 256
    assert set(report["collectives"]) == {"all-reduce"}
    # Two forward and two backward in each of two blocks. The others are of the sharded vocabulary
    # (embedding lookup; maximum, sum and target of the loss) and of the gradients.
    assert 8 <= report["collectives"]["all-reduce"] <= 14


@pytest.mark.parametrize(("name", "chips"), [("v5e:2x2", 4), ("v6e:16x16", 256)])
def test_memory_of_long_attention_is_linear_on_every_chip(compiled, name, chips):
    short, long = compiled["long_attention"][name]  # 4 times as long
    assert short["chips"] == long["chips"] == chips
    assert short["collectives"] == long["collectives"] == {}
    # Arrays in on-chip memory are not counted, so the ratio is a little over 4.
    assert 3 * short["temporary_bytes"] < long["temporary_bytes"] < 4.4 * short["temporary_bytes"]
