"""The workflow that runs on GitHub: valid, and made of commands that this repository has."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

if not WORKFLOWS:
    pytest.skip("the wheel has no workflow", allow_module_level=True)


def checked(path: Path) -> subprocess.CompletedProcess:
    """The result of the check against the schema of GitHub workflows."""
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    return subprocess.run(
        [*program, "vendor.github-workflows", str(path)], capture_output=True, text=True
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_what_github_accepts(path):
    result = checked(path)
    assert result.returncode == 0, result.stdout


def test_the_check_finds_a_wrong_workflow(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    result = checked(wrong)
    assert result.returncode == 1
    assert "run-on" in result.stdout


def test_a_workflow_runs_the_two_commands_and_only_targets_of_the_makefile():
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    targets = set(re.findall(r"run: make ([\w-]+)", text))
    targets |= {name for line in re.findall(r"target: \[(.*)\]", text) for name in line.split(", ")}
    assert {"test", "run", "test-oldest", "test-newest", "package", "docs"} <= targets
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_workflow_uses_each_python_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if ":: 3." in one]
    matrix = re.search(r"python: \[(.*)\]", WORKFLOWS[0].read_text()).group(1)
    assert named == re.findall(r"[\d.]+", matrix)
