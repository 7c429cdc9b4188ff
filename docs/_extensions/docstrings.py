"""Docstrings as docs/conventions.md describes them become reStructuredText that Napoleon reads.

Code is between single backticks, a formula is an indented paragraph, and characters such as * and |
are characters. Examples use names that the test suite hands in (attn_jax/conftest.py); here they
are imported, so that an example runs as it is copied.
"""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Numerics", "Cost", "Example", "Yields")
HEADING = re.compile(rf"({'|'.join(SECTIONS)}):$")
# Imports of the names that attn_jax/conftest.py hands to every example, in the usual order.
IMPORTS = {
    "jax": "import jax",
    "jnp": "import jax.numpy as jnp",
    "np": "import numpy as np",
    "nnx": "from flax import nnx",
    "attn_jax": "import attn_jax",
}


def process(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]):
    """Rewrites the lines of a docstring in place, before Napoleon does."""
    lines[:] = [line for part in paragraphs(lines) for line in part]


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The docstring's paragraphs as reStructuredText, each with an empty line after it."""
    base, section = 0, ""
    for paragraph in split(lines):
        heading = HEADING.match(paragraph[0])
        if heading:
            section, base = heading[1], 2
        elif not paragraph[0].startswith(" "):
            section, base = "", 0
        first = paragraph[1] if heading and len(paragraph) > 1 else paragraph[0]
        indent = len(first) - len(first.lstrip())
        if first.startswith("See also: "):
            yield [*escaped([line.strip() for line in paragraph]), ""]
        elif section == "Example" or ">>> " in first:
            yield [*with_imports(paragraph), ""]
        elif indent > base and not heading and not is_list_item(first):
            yield [" " * base + "::", "", *paragraph, ""]
        else:
            yield [*escaped(paragraph), ""]


def split(lines: list[str]) -> list[list[str]]:
    """Groups of lines between empty lines; a section's heading stays with its first paragraph."""
    groups: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group]


def is_list_item(line: str) -> bool:
    """Whether a line begins an item of a list."""
    return line.lstrip().startswith(("- ", "1. ", "2. ", "3. "))


def escaped(paragraph: list[str]) -> list[str]:
    """A paragraph with code between double backticks, and all other characters literal."""
    text = "\n".join(paragraph)
    parts = re.split(r"`([^`]*)`", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{' '.join(part.split())}``"
        else:  # a letter that follows code directly needs the separator "\\ "
            parts[i] = ("\\ " if i and part[:1].isalnum() else "") + literal(part)
    return "".join(parts).split("\n")


def literal(text: str) -> str:
    """Text in which only *emphasis* is markup."""
    text = text.replace("\\", r"\\")
    text = re.sub(r"\*(?!\w[\w ]*\*)(?<!\w\*)", r"\*", text)
    text = text.replace("|", r"\|")
    return re.sub(r"(?<=\w)_(?=\W|$)", r"\_", text)


def with_imports(paragraph: list[str]) -> list[str]:
    """An example with an import for each name that the test suite hands in."""
    begins = [i for i, line in enumerate(paragraph) if line.lstrip().startswith(">>> ")]
    if not begins:
        return paragraph
    code = "\n".join(
        line for line in paragraph if re.match(r" *(>>>|\.\.\.) (?!from|import)", line)
    )
    indent = paragraph[begins[0]][: -len(paragraph[begins[0]].lstrip())]
    needed = [
        f"{indent}>>> {line}"
        for name, line in IMPORTS.items()
        if re.search(rf"(?<![\w.\"']){name}\.", code) and f">>> {line}" not in "\n".join(paragraph)
    ]
    return [*paragraph[: begins[0]], *needed, *paragraph[begins[0] :]]


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs before Napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
