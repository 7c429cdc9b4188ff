"""`python -m tests.repository.structure`: writes the package structure into docs/architecture.md.

The layers come from test_architecture.py, what each holds from the docstring of its module.
"""

import ast
from pathlib import Path

from tests.repository.test_architecture import LAYERS, ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN = (
    "<!-- made by `.venv/bin/python -m tests.repository.structure` "
    "from the docstrings of the modules -->\n"
)
END = "<!-- end of the package structure -->\n"


def drawn() -> str:
    """One line a package or file, the highest layer first: its name and its docstring's summary."""
    experiments = sorted((ROOT / "experiments").rglob("__init__.py"))
    indents = ["" if file.parent.name == "experiments" else "  " for file in experiments]
    lines = [line(file.parent, indent) for file, indent in zip(experiments, indents, strict=True)]
    folder = ""
    for layer in reversed(LAYERS):
        parent, _, name = layer.rpartition(".")
        if parent and parent != folder:
            lines.append(line(ROOT / "attn_jax" / parent))
        folder = parent
        lines.append(line(ROOT / "attn_jax" / parent / name, "  " if parent else ""))
    return "\n".join(["```", *lines, "```", ""])


def line(module: Path, indent: str = "") -> str:
    """A package or a module (given without its ending) with its summary."""
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    name = f"{indent}{module.name}/" if module.is_dir() else f"{indent}{file.name}"
    return f"{name:<26}{summary(file)}"


def summary(file: Path) -> str:
    """The first paragraph of a module's docstring, as one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def updated(page: str) -> str:
    """The page with the part between the two markers drawn anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + drawn() + END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
    print(f"wrote the package structure into {PAGE}")
