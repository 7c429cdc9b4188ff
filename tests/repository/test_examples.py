"""The examples run and say what they are there to say; what the guides show runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NAMES = ("caches", "checkpoints", "generation", "how_to_choose", "moving")
GUIDES = [ROOT / "docs" / f"{name}.md" for name in NAMES]
MOST_LINES = 40

if not (ROOT / "pyproject.toml").exists():
    pytest.skip("the wheel has neither examples nor guides", allow_module_level=True)

# What an example prints, as a pattern; its own asserts hold the numbers.
FACTS = {
    "additive_long": r"blockwise: \d MiB .*\nthe hidden layer, written out: 64 MiB",
    "alibi_slopes": r"loss \de-02 -> \de-0[5-9]\nlearned \[0\.25",
    "gemma": r"differs from plain jnp by \de-0[5-9]\n.*82% empty\n▒·{15}\n■▒",
    "graph": r"same as sums over edges\nnode 6 has no edge and reads \[0\. 0\. 0\. 0\.\]",
    "head_windows": r"■■■·······\n·■■■······\n(.*\n)+head 0 reads nothing but itself",
    "hessian_vector": r"symmetric: (-?\d+\.\d{4})\d = \1\d\n.*within \de-0[4-9] of at most 0\.\d+",
    "packed_documents": r"···■■■■·\n·{8}\neach of 5 documents reads .*\npadding reads nothing: \[0",
    "t5_bias": r"differ by (0e\+00|\de-0[6-9])\n25 of 32 buckets have a gradient",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_its_fact(path):
    run = subprocess.run(
        [sys.executable, "-m", f"examples.{path.stem}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert re.search(FACTS[path.stem], run.stdout), run.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_public_names_only(path):
    program = path.read_text()
    assert 0 < len(program.splitlines()) <= MOST_LINES
    assert "import" in program
    assert not re.search(r"attn_jax[\w.]*\._", program)


def test_every_topic_has_its_example():
    assert set(FACTS) == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_what_a_guide_shows_runs(page):
    names = {}
    blocks = _python_blocks(page.read_text())
    assert blocks
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):  # as users have it
        for block in blocks:
            exec(block, names)
    assert sum(block.count("assert ") for block in blocks) >= max(3, len(blocks))


def _python_blocks(text: str) -> list[str]:
    """The fenced blocks of a page, those in lists without their indent."""
    fences = re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in fences]
