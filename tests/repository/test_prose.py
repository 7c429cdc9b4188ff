"""Pages and docstrings use the terms of docs/conventions.md, not the words that these replace."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Pattern of what is not written, and what is written instead.
REPLACED = {
    r"may (not )?(be )?read\b": "attends to, is masked",
    r"\b(a|an|one|each|every|the|this) read\b|\bof reads\b": "attention call",
    r"\b(un)?readable\b": "unmasked, masked",
    r"\bwho (may|reads?|says?|asks?)\b": "the noun",
    r"\b(goes|go|going|went) on\b": "continues, resumes, generates",
    r"\bfull stop\b": "stop token",
    r"\b(the house|rooms|floors)\b": "package structure, package, layer",
    r"\bchanges? (of|to) (a |the )?logits?\b": "score mod",
    r"\blists? of tiles\b": "tile list",
    r"\blog(arithm)? of the sum of exp": "log-sum-exp",
    r"\blevels? of `?vmap": "vmapped axis",
    r"\bpieces? of (a )?words?\b": "subword, token",
    r"\bwork(s|ed)? out\b": "computes",
    r"\b(hears?|learns of|knows nothing|says nothing|say nothing)\b": "what the code computes",
    r"\b(a|the|no) guess\b|\bguesses\b": "draft token, default",
}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "attn_jax/_engine/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "adr").glob("*.md")),
    *sorted((ROOT / "experiments").glob("*/README.md")),
]
# Folders whose docstrings are checked.
SOURCES = [
    path
    for folder in ("attn_jax", "experiments", "examples", "tests/repository")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def prose(page: str) -> str:
    """A text without code, links' addresses and the examples of what is not written."""
    left_out = r"```.*?```|^ *- before:.*?$|^ *(>>>|\.\.\.) .*?$"
    page = re.sub(left_out, "", page, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)", "`", page)


def docstrings(path: Path) -> str:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))


def findings(text: str) -> list[str]:
    """What the text has of the replaced words, each with what is written instead."""
    one_line = " ".join(text.split())
    return [
        f"…{one_line[max(found.start() - 30, 0) : found.end() + 20]}…: write {better}"
        for pattern, better in REPLACED.items()
        for found in re.finditer(pattern, one_line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_uses_the_terms_of_the_glossary(page):
    found = findings(prose(page.read_text("utf-8")))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_use_the_terms_of_the_glossary(path):
    found = findings(prose(docstrings(path)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["a query that may read nothing", "It goes on.", "Each read costs"]
)
def test_replaced_words_are_found(text):
    assert len(findings(prose(text))) == 1


def test_code_and_examples_of_what_is_not_written_are_not_prose():
    assert not findings(
        prose("`may read`\n```\nmay read\n```\n   - before: It goes on.\n>>> go(on)\n")
    )
