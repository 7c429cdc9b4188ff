"""Runs the Python blocks of all pages and the examples, each in a new namespace.

    python tests/programs/run_documents.py '{"jax_enable_x64": true}' [PART OF A NAME]

Prints a line of JSON for each: its name, what it printed, which files it wrote, and its traceback.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(page: Path) -> dict[str, str]:
    """The fenced blocks of a page, those in lists without their indent, by page and line."""
    text = page.read_text(encoding="utf-8")
    found = {}
    for fence in re.finditer(r"^( *)```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        line = text[: fence.start()].count("\n") + 2
        block = re.sub(rf"^{fence[1]}", "", fence[2], flags=re.MULTILINE)
        found[f"{page.relative_to(ROOT)}:{line}"] = block
    return found


def programs() -> dict[str, str]:
    """All code blocks and examples, by name."""
    shown = {name: block for page in PAGES for name, block in blocks(page).items()}
    return shown | {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in EXAMPLES}


def promotion(program: str) -> contextlib.AbstractContextManager:
    """The promotion of dtypes of a program: optax's Adam raises a float to an int32 power."""
    is_strict = jax.config.jax_numpy_dtype_promotion == "strict" and "import optax" not in program
    return jax.numpy_dtype_promotion("strict" if is_strict else "standard")


def outcome(name: str, program: str) -> dict[str, object]:
    """The output, files and traceback of one program, run in an empty folder."""
    printed, error = io.StringIO(), None
    folder = tempfile.TemporaryDirectory()
    with folder as path, contextlib.chdir(path), promotion(program):
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(program, name, "exec"), {"__name__": "__main__"})
        except Exception:  # an exception of the program is a result, which the test checks
            error = traceback.format_exc()
        files = sorted(os.listdir(path))
    return {"name": name, "printed": printed.getvalue(), "files": files, "error": error}


if __name__ == "__main__":
    for option, value in json.loads(sys.argv[1]).items():
        jax.config.update(option, value)
    part = "".join(sys.argv[2:])
    for name, program in programs().items():
        if part not in name:
            continue
        print(json.dumps(outcome(name, program)), flush=True)
