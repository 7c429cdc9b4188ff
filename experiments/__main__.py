"""The list of programs: `python -m experiments` prints it."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command_line.options import shell_command

HERE = Path(__file__).parent
# In the order in which a newcomer may run them.
PROGRAMS = ("translate", "grammar", "length", "sort", "lm", "generate", "gallery")


def summary(program: str) -> str:
    """The first line of a program's docstring, read without importing the program."""
    path = HERE / f"{program}.py"
    source = path if path.exists() else HERE / program / "__main__.py"
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def listing() -> str:
    """Every program with its command and what it does."""
    commands = [f"{shell_command(name)}\n    {summary(name)}" for name in PROGRAMS]
    return "\n".join(
        [
            "The programs:",
            "",
            *commands,
            "",
            "Each has --help. --preset smoke is a test run of about a minute (not for generate).",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Prints the list.

    Raises:
      SystemExit: the command line has anything but `--help`; the message names the command.
    """
    if set(arguments) <= {"-h", "--help"}:
        print(listing())
    elif arguments[0] in PROGRAMS:
        sys.exit(f"error: run it as {shell_command(arguments[0], arguments[1:])}")
    else:
        sys.exit(f"error: {arguments[0]!r} is no program; choose from {', '.join(PROGRAMS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
