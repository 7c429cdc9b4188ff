"""A TPU's compiler takes every operation that a rule may use in a kernel, and its derivative."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from attn_jax._engine.rules.rewrite import FORMULAS, TAKEN

ROOT = Path(__file__).resolve().parents[2]
COMPILER = ROOT / ".tpu"
PROGRAM = ROOT / "tests" / "programs" / "compile_rules_for_tpu.py"

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
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # another test may be compiling at the same time
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
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


def test_every_operation_and_its_derivative_compiles(compiled):
    cases = [case for of_one in compiled["operations"].values() for case in of_one.items()]
    assert len(cases) > 150
    assert {case: error for case, error in cases if error is not None} == {}


def test_no_operation_is_left_out(compiled):
    assert set(compiled["operations"]) == TAKEN | set(FORMULAS)


def test_whole_rules_and_their_derivatives_compile(compiled):
    assert len(compiled["rules"]) >= 10
    assert {name: error for name, error in compiled["rules"].items() if error is not None} == {}
