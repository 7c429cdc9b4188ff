"""Links between files that work on GitHub and on the site.

A page may link to any file of the repository by a relative path. A link to a page of the site stays
relative; a link to another file or folder becomes its address on GitHub. A link without a target is
a warning, and so an error. "```{include} ../FILE.md" includes a Markdown page of the repository.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/attn-jax/attn_jax"
INDEXES = ("index.md", "README.md")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
log = logging.getLogger(__name__)


def on_read(app: Sphinx, name: str, source: list[str]) -> None:
    """Rewrites the links of a page before it is parsed."""
    page = Path(app.env.doc2path(name))
    parts = INCLUDE.split(source[0])
    for i, part in enumerate(parts):
        included = (page.parent / part).resolve() if i % 2 else page
        text = included.read_text("utf-8") if i % 2 else part
        parts[i] = rewritten(app, text, included, page)
        if i % 2:
            app.env.note_dependency(str(included))
    source[0] = "".join(parts)


def rewritten(app: Sphinx, text: str, written_in: Path, page: Path) -> str:
    """The text of a file, with links for the page that shows it."""

    def target(found: re.Match) -> str:
        path = (written_in.parent / found[1]).resolve()
        if not path.exists():
            log.warning("no file %s: a dead link in %s", found[1], written_in, location=str(page))
            return found[1]
        return address(app, path, page)

    parts = CODE.split(text)
    return "".join(part if i % 2 else LINK.sub(target, part) for i, part in enumerate(parts))


def address(app: Sphinx, path: Path, page: Path) -> str:
    """The address of a file or folder as the page links it."""
    for index in INDEXES if path.is_dir() else ():
        if app.env.path2doc(path / index) in app.env.found_docs and (path / index).exists():
            path = path / index
            break
    if path.name == "README.md" and app.env.path2doc(path.with_name("index.md")):
        path = path.with_name("index.md") if path.with_name("index.md").exists() else path
    is_page = app.env.path2doc(path) in app.env.found_docs and path.is_file()
    if is_page or path.is_relative_to(DOCS) and path.suffix in {".png", ".svg"}:
        return os.path.relpath(path, page.parent)
    kind = "tree" if path.is_dir() else "blob"
    return f"{GITHUB}/{kind}/main/{path.relative_to(ROOT)}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs before pages are parsed."""
    app.connect("source-read", on_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
