"""A reader finds each package in docs/architecture.md and each public name on a page."""

import pkgutil
import re

import pytest

from tests.repository import structure
from tests.repository.test_public_api import MEMBERS, NAMESPACES

PAGES = [structure.ROOT / "README.md", *sorted((structure.ROOT / "docs").glob("*.md"))]


def test_the_architecture_page_shows_the_package_structure_as_it_is():
    page = structure.PAGE.read_text("utf-8")
    assert page == structure.updated(page), "run .venv/bin/python -m tests.repository.structure"


def test_the_drawing_shows_each_layer_with_a_summary():
    lines = structure.drawn().splitlines()[1:-1]
    assert len(lines) > len(structure.LAYERS)
    assert all(re.fullmatch(r" *\w+(/|\.py) +\S.*", line) for line in lines)


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda namespace: namespace.__name__)
def test_no_module_has_the_name_of_a_public_function(namespace):
    modules = {module.name for module in pkgutil.iter_modules(getattr(namespace, "__path__", []))}
    assert not {name for name in modules if f"{namespace.__name__}.{name}" in MEMBERS}


def names_in_code(page: str) -> set[str]:
    """The words of a Markdown page that stand in blocks of code or between backticks."""
    code = re.findall(r"```.*?```|`[^`\n]+`", page, re.DOTALL)
    return {word for part in code for word in re.findall(r"\w+", part)}


def test_every_public_name_is_on_a_page():
    named = set().union(*(names_in_code(page.read_text("utf-8")) for page in PAGES))
    missing = [name for name in MEMBERS if name.rpartition(".")[2] not in named]
    assert not missing, f"no page names {missing}: add them, for example to docs/how_to_choose.md"
