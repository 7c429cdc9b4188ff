"""The code in README, guides and examples runs unchanged, under several settings of JAX."""

import ast
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
MOST_LINES = 40  # of code in an example, without its docstring and empty lines

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
    "bahdanau": r"output \[9 5 1 4 1 3\]\n·····■\n····■·\n···■··\n··■···\n·■····\n■·····\n",
    "checkpoint_heads": r"config\.json model\.safetensors\n.* hbadce as hbadce\n.*heads\.html",
    "fused_on_tpu": r"implementation  blockwise\n(.*\n)+.* one cpu: \d+\.\d MiB .*\nloss 0\.\d+, ",
    "gemma": r"differs from plain jnp by \de-0[5-9]\n.*82% empty\n▒·{15}\n■▒",
    "generate": r"\] -> (.*\n)+.*gives the same tokens\n.*32 KiB\n.*10 KiB\n.*28 KiB\nsampled",
    "gpt": r"given: The cat that was sitting\nmodel:  on the mat, .* the dog, jumped\. \n",
    "graph": r"equals sums over edges\nnode 6 has no edges and its output is \[0\. 0\. 0\. 0\.\]",
    "head_windows": r"■■■·······\n·■■■······\n(.*\n)+in head 0 each query attends to itself only",
    "hessian_vector": r"symmetric: (-?\d+\.\d{4})\d = \1\d\n.*within \de-0[4-9] of at most 0\.\d+",
    "packed_documents": r"···■■■■·\n·{8}\neach of 5 documents has .*\npadding .* fully masked: \[0",
    "sharded": r"and \(2, 512, 2, 16\) on each device\n(.* by (0e\+00|\de-0[6-9]) of .*\n){4}",
    "t5_bias": r"differ by (0e\+00|\de-0[6-9])\n25 of 32 buckets have a gradient",
    "train_a_layer": r"right answers: 0\.\d\d in .*, (1\.00|0\.9\d) in the last\n.* is 2\n",
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


def shown_outputs() -> dict[str, str]:
    """What README shows as the output of each of its programs, by the program's name."""
    text = PAGES[0].read_text("utf-8")
    shown = re.finditer(r"^```python\n.*?^```\n.*?^```text\n(.*?)^```$", text, re.DOTALL | re.M)
    return {f"README.md:{text[: one.start()].count('\n') + 2}": one[1] for one in shown}


def test_code_in_documents_runs_alone_under_strict_promotion_and_prints_its_facts():
    found = outcomes(STRICT)
    errors = [one["error"] for one in found.values() if one["error"]]
    assert not errors, "\n".join(errors)
    assert shown_outputs()
    for name, text in shown_outputs().items():
        assert found[name]["printed"] == text
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
def test_each_code_block_prints_or_asserts_something_or_writes_a_file(page):
    text = page.read_text("utf-8")
    for block in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        assert re.search(r"^\s*(assert |print\(|\w+\.save\()", block, re.MULTILINE), block


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_uses_public_names_only_and_asserts_what_it_prints(path):
    program = path.read_text("utf-8")
    [docstring, *_] = ast.parse(program).body
    code = [line for line in program.splitlines()[docstring.end_lineno :] if line.strip()]
    assert 0 < len(code) <= MOST_LINES
    assert re.search(r"^ *print\(", program, re.MULTILINE)
    assert re.search(r"^ *assert ", program, re.MULTILINE)
    assert not re.search(r"attn_jax[\w.]*\._", program)


def test_every_topic_has_its_example():
    assert set(FACTS) == {path.stem for path in EXAMPLES}


def test_the_list_of_examples_has_each_one_with_its_command():
    listed = (ROOT / "examples" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.py\) \| \S.* \|$", listed, re.MULTILINE)
    assert [name for name, _ in rows] == [file for _, file in rows]
    assert sorted(name for name, _ in rows) == [path.stem for path in EXAMPLES]
    assert ".venv/bin/python -m examples." in listed


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
