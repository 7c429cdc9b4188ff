"""Runs programs with the TPU compiler, which `make tpu` fetches, on a machine without a TPU."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = ROOT / ".tpu"

needs_the_compiler = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="the TPU compiler is published for Linux on x86-64 only",
)


def output_of(program: str) -> Any:
    """The last line that a program of tests/programs prints, which is JSON."""
    assert (COMPILER / "libtpu").exists(), "the TPU compiler is missing: run `make tpu`"
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(COMPILER), str(ROOT)]),
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # else two programs at once fail for a lock file
    )
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "programs" / program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])
