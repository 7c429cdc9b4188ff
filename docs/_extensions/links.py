"""Links between files that work on GitHub and on the site.

A page may link to any file of the repository by a relative path. A link to a page of the site stays
relative; if its text is a file name, the page's title replaces the text. A link to another file or
folder becomes its address on GitHub. A link without a target is a warning, and so an error.
"```{include} ../FILE.md" includes a Markdown page of the repository.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/attn-jax/attn_jax"
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
CODE_OF_A_CHAPTER = re.compile(r"(^[^#\n].*$|`[^`\n]+`)", re.MULTILINE)  # its text is in comments
LINK = re.compile(r"\[([^\]\n]*)\]\((?!https?:|mailto:|#)([^)\s#]+)")
INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
log = logging.getLogger(__name__)


def on_read(app: Sphinx, name: str, source: list[str]) -> None:
    """Rewrites the links of a page before it is parsed."""
    page = Path(app.env.doc2path(name))
    parts = INCLUDE.split(source[0])
    for i, part in enumerate(parts):
        written_in = (page.parent / part).resolve() if i % 2 else page
        text = written_in.read_text("utf-8") if i % 2 else part
        parts[i] = rewritten(app, text, written_in, name)
    source[0] = "".join(parts)


def rewritten(app: Sphinx, text: str, written_in: Path, page: str) -> str:
    """The text of a file, with links for the page that shows it."""

    def link(found: re.Match) -> str:
        label, target = found[1], found[2]
        path = (written_in.parent / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", written_in, target, location=page)
            return found[0]
        new = address(app, path, Path(app.env.doc2path(page)))
        is_file_name = label.endswith(".md") and not new.startswith("https:")
        return f"[{'' if is_file_name else label}]({new}"

    parts = (CODE_OF_A_CHAPTER if written_in.suffix == ".py" else CODE).split(text)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def address(app: Sphinx, path: Path, page: Path) -> str:
    """The address of a file or folder as the page links it."""
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() or path.name == "README.md") and is_page(app, folder / "index.md"):
        path = folder / "index.md"
    if is_page(app, path) or (path.is_relative_to(DOCS) and path.suffix in {".png", ".svg"}):
        return os.path.relpath(path, page.parent)
    kind = "tree" if path.is_dir() else "blob"
    return f"{GITHUB}/{kind}/main/{path.relative_to(ROOT)}"


def is_page(app: Sphinx, path: Path) -> bool:
    """Whether a file is a page of the site."""
    return path.is_file() and app.env.path2doc(path) in app.env.found_docs


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs before pages are parsed."""
    app.connect("source-read", on_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
