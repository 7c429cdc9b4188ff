"""`make tpu-example` compiles the TPU kernel for a v5e, on a machine without one."""

import os
import re
import subprocess
import sys

from tests.helpers.tpu_compiler import COMPILER, ROOT, needs_the_compiler

pytestmark = needs_the_compiler


def settings() -> dict[str, str]:
    """The environment in which the Makefile runs the example."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = "\ntpu-example: $(TPU)\n\t$(FOR_A_TPU) $(PY) -m examples.fused_on_tpu\n"
    assert recipe in makefile
    [given] = re.findall(r"^FOR_A_TPU := (.*)$", makefile, re.MULTILINE)
    return dict(one.split("=") for one in given.split())


def test_the_example_compiles_a_training_step_with_the_fused_kernel_for_a_v5e():
    assert (COMPILER / "libtpu").exists(), "the TPU compiler is missing: run `make tpu`"
    run = subprocess.run(
        [sys.executable, "-m", "examples.fused_on_tpu"],
        # Other tests may use the compiler at the same time.
        env=os.environ | settings() | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    printed = run.stdout
    assert printed.startswith("implementation  mosaic_tpu\n")
    assert re.search(r"^blockwise +not chosen: 'mosaic_tpu' keeps", printed, re.MULTILINE)
    # Of 4×4 tiles of 512×512, causal and documents leave 8 in each example, for each of 4 heads.
    assert re.search(r"^tiles +64 of 128 visited", printed, re.MULTILINE)
    assert "compiled for tpu" in printed
    assert re.search(r"^predicted +\d+\.\d µs forward, .*not measured$", printed, re.MULTILINE)
    [temporary] = re.findall(r"on one TPU v5 lite: (\d+\.\d) MiB of temporaries", printed)
    assert 0 < float(temporary) < 4  # the logits take 128 MiB, a query 2 MiB
