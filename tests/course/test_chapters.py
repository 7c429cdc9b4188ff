"""The chapters of the course have one form; `make docs` executes them, with their answers."""

import ast
import re
from pathlib import Path

import jupytext
import pytest
from nbformat import NotebookNode

from tests.repository.test_prose import findings, prose

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "docs" / "course"

CHAPTERS = sorted(COURSE.glob("[0-9][0-9]_*.py"))
SECTIONS = ["Picture", "Code", "What was added", "Break it", "Exercises", "Answers"]
MOST_LINES = 300  # in a chapter
NAMED_TUPLES = {"_replace", "_asdict"}  # public, although they start with an underscore

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path: Path) -> list[NotebookNode]:
    return jupytext.read(path).cells


def code(of: list[NotebookNode]) -> list[NotebookNode]:
    return [cell for cell in of if cell.cell_type == "code"]


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def section(path: Path, title: str) -> list[NotebookNode]:
    """The cells from the heading `title` to the next heading of its level."""
    found, inside = [], False
    for cell in cells(path):
        heading = re.match(r"## (.+)", cell.source) if cell.cell_type == "markdown" else None
        inside = heading[1] == title if heading else inside
        if inside:
            found.append(cell)
    return found


def links(text: str) -> list[str]:
    """The addresses of the links to files of the repository, without anchors."""
    addresses = re.findall(r"\]\(([^)\s]+)\)", text)
    return [address.partition("#")[0] for address in addresses if ":" not in address]


def asserts(cell: NotebookNode) -> int:
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))


def private_names(tree: ast.AST) -> set[str]:
    """All names, modules and attributes that start with an underscore and are used."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            used |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            used |= {part for alias in node.names for part in alias.name.split(".")}
    return {name for name in used - NAMED_TUPLES if name.startswith("_")}


def test_chapters_are_numbered_without_a_gap():
    assert [int(path.stem[:2]) for path in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


def test_the_index_links_every_chapter_in_order_and_nothing_that_is_missing():
    found = links((COURSE / "index.md").read_text("utf-8"))
    assert [address for address in found if address.endswith(".py")] == [p.name for p in CHAPTERS]
    assert [address for address in found if not (COURSE / address).exists()] == []


@each_chapter
def test_a_chapter_is_a_short_notebook_that_names_its_kernel(path):
    metadata = jupytext.read(path).metadata
    assert metadata["kernelspec"]["name"] == "python3"
    assert metadata["jupytext"]["text_representation"]["format_name"] == "percent"
    assert {cell.cell_type for cell in cells(path)} == {"markdown", "code"}
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@each_chapter
def test_a_chapter_asks_its_question_first_and_has_all_sections_in_order(path):
    number = int(path.stem[:2])
    first = cells(path)[0].source
    assert first.startswith(f"# {number}. ")
    assert "**The question.**" in first
    assert "?" in first
    assert re.findall(r"^## (.+)$", markdown(path), re.MULTILINE) == SECTIONS


@each_chapter
def test_all_imports_are_in_the_first_code_cell(path):
    cells_with_imports = [
        number
        for number, cell in enumerate(code(cells(path)))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert set(cells_with_imports) == {0}


@each_chapter
def test_a_chapter_uses_public_names_only(path):
    assert private_names(ast.parse(path.read_text("utf-8"))) == set()


@each_chapter
@pytest.mark.parametrize("title", ["Picture", "Code"])
def test_picture_and_code_are_made_by_cells(path, title):
    assert code(section(path, title))


@each_chapter
def test_code_and_the_broken_form_are_asserted(path):
    for title in ("Code", "Break it"):
        assert sum(asserts(cell) for cell in code(section(path, title))), title


@each_chapter
def test_three_exercises_have_three_hidden_answers_with_asserts(path):
    [exercises] = section(path, "Exercises")
    assert re.findall(r"^(\d)\. ", exercises.source, re.MULTILINE) == ["1", "2", "3"]
    answers = code(section(path, "Answers"))
    assert [cell.source[:4] for cell in answers] == ["# 1.", "# 2.", "# 3."]
    for cell in answers:
        assert cell.metadata["tags"] == ["hide-cell"]
        assert asserts(cell)


@each_chapter
def test_the_last_cell_leads_to_the_next_chapter(path):
    last = cells(path)[-1].source
    assert last.startswith("Next: ")
    following = CHAPTERS[CHAPTERS.index(path) + 1 :][:1]
    assert [address for address in links(last) if (COURSE / address) in CHAPTERS] == [
        chapter.name for chapter in following
    ]


@each_chapter
def test_links_lead_to_files(path):
    missing = [address for address in links(markdown(path)) if not (COURSE / address).exists()]
    assert missing == []


@each_chapter
def test_the_prose_of_a_chapter_uses_the_terms_of_the_glossary(path):
    found = findings(prose(markdown(path)))
    assert not found, "\n".join(found)


def test_the_prose_of_the_index_uses_the_terms_of_the_glossary():
    found = findings(prose((COURSE / "index.md").read_text("utf-8")))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "program",
    ["import attn_jax._engine", "from attn_jax import _attend", "model.encoder._cells"],
)
def test_private_names_are_found(program):
    assert len(private_names(ast.parse(program))) == 1
