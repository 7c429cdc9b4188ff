"""The code in README, guides and examples runs unchanged, under several settings of JAX."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

import attn_jax

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "programs" / "run_documents.py"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40  # in an example

if not (ROOT / "pyproject.toml").exists():
    pytest.skip("the wheel has neither pages nor examples", allow_module_level=True)

# Most of the time is compilation of programs that run once: XLA need not optimise them.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONIOENCODING": "utf-8",
    "JAX_NUM_CPU_DEVICES": "8",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
STRICT = {"jax_numpy_dtype_promotion": "strict", "jax_numpy_rank_promotion": "raise"}
# A pattern of the output of each example; asserts in the example check the numbers.
FACTS = {
    "additive_long": r"blockwise: \d MiB .*\nthe hidden layer of all pairs: 64 MiB",
    "alibi_slopes": r"loss \de-02 -> \de-0[5-9]\nlearned \[0\.25",
    "gemma": r"differs from plain jnp by \de-0[5-9]\n.*82% empty\n▒·{15}\n■▒",
    "graph": r"equals sums over edges\nnode 6 has no edges and its output is \[0\. 0\. 0\. 0\.\]",
    "head_windows": r"■■■·······\n·■■■······\n(.*\n)+in head 0 each query attends to itself only",
    "hessian_vector": r"symmetric: (-?\d+\.\d{4})\d = \1\d\n.*within \de-0[4-9] of at most 0\.\d+",
    "packed_documents": r"···■■■■·\n·{8}\neach of 5 documents has .*\npadding .* fully masked: \[0",
    "t5_bias": r"differ by (0e\+00|\de-0[6-9])\n25 of 32 buckets have a gradient",
}


def outcomes(options: dict[str, object], part: str = "") -> dict[str, dict]:
    """The results of all programs whose name contains `part`, run in one new process."""
    run = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(options), part],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    return {one["name"]: one for one in map(json.loads, run.stdout.splitlines())}


def test_code_in_documents_runs_alone_under_strict_promotion_and_prints_its_facts():
    found = outcomes(STRICT)
    errors = [one["error"] for one in found.values() if one["error"]]
    assert not errors, "\n".join(errors)
    for example, fact in FACTS.items():
        printed = found[f"examples/{example}.py"]["printed"]
        assert re.search(fact, printed), printed
    names = {page.name for page in PAGES} | {path.name for path in EXAMPLES}
    assert len(found) > 40
    assert {Path(name).name.partition(":")[0] for name in found} <= names
    written = {file for name, one in found.items() if "viewer.md" in name for file in one["files"]}
    assert written == {"page.html", "figure.svg"}


def test_the_ten_lines_of_the_readme_are_causal_attention_with_slopes_that_have_gradients():
    [program] = re.findall(r"```python\n(.*?)```", PAGES[0].read_text("utf-8"), re.DOTALL)
    names = {}
    exec(program, names)
    assert names["gradient"].shape == (3,)
    assert jnp.all(names["gradient"] != 0)
    arrays = [names[name] for name in ("query", "key", "value")]
    plain = attn_jax.dot_product_attention(*arrays, is_causal=True)
    assert jnp.allclose(names["batch"](*arrays, jnp.zeros(3)), plain, atol=1e-6)


def test_code_in_documents_runs_alone_under_x64():
    """With the default dtype promotion, since jax.nn itself mixes dtypes under x64."""
    found = outcomes({"jax_enable_x64": True, "jax_numpy_rank_promotion": "raise"}, ".md:")
    assert len(found) > 30
    errors = [one["error"] for one in found.values()]
    assert not any(errors), "\n".join(filter(None, errors))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_guide_has_an_assert_for_each_code_block(page):
    text = page.read_text("utf-8")
    blocks = text.count("```python\n")
    if page.parent.name == "docs" and blocks > 2:
        assert text.count("assert ") >= blocks


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_public_names_only(path):
    program = path.read_text()
    assert 0 < len(program.splitlines()) <= MOST_LINES
    assert "import" in program
    assert not re.search(r"attn_jax[\w.]*\._", program)


def test_every_topic_has_its_example():
    assert set(FACTS) == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize(
    "target",
    re.findall(
        r"^make ([\w-]+)", "\n".join(page.read_text("utf-8") for page in PAGES[:2]), re.MULTILINE
    ),
)
def test_quoted_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_have_a_target(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name
)
def test_no_lock_file_names_a_package_index(path):
    assert "://" not in path.read_text()


def test_the_lock_file_of_the_oldest_versions_has_the_stated_minimum_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = (ROOT / "requirements" / "oldest.txt").read_text()
    locked = dict(re.findall(r"^([\w-]+)==([\d.]+)", oldest, re.MULTILINE))
    stated = project["dependencies"] + project["optional-dependencies"]["models"]
    floors = dict(re.match(r"([\w-]+)>=([\d.]+)", one).groups() for one in stated)
    assert {"jax", "flax", "numpy"} <= set(floors)
    for name, floor in floors.items():
        assert (locked[name] + ".0").startswith(floor + "."), name
    assert f"jax from {floors['jax']}" in PAGES[0].read_text("utf-8")
