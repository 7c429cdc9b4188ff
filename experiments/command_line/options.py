"""Options of a program: a preset, settings that change it, and the command to paste."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro


def shell_command(experiment: str, arguments: Sequence[str] = ()) -> str:
    """The command that does the same when it is pasted into a shell in this folder."""
    return shlex.join([interpreter(), "-m", f"experiments.{experiment}", *arguments])


def interpreter() -> str:
    """How a shell in this folder calls the Python that runs this.

    A path below the folder is written from there on (.venv/bin/python), so that a report says the
    same on every machine; one that the shell finds by its name is that name.
    """
    here = Path(sys.executable)
    for name in ("python", "python3"):
        if shutil.which(name) == sys.executable:
            return name
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def option(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The last value that is given to an option, or None, and the other arguments.

    Example:
      >>> option("preset", ["--preset", "quick", "--name", "a", "--preset=smoke"])
      ('smoke', ['--name', 'a'])
    """
    value, others, left = None, [], list(arguments)
    while left:
        word = left.pop(0)
        if word == f"--{name}":
            value = left.pop(0) if left else ""
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
        else:
            others.append(word)
    return value, others


def choose_settings[Settings](
    experiment: str, description: str, presets: Mapping[str, Settings], arguments: Sequence[str]
) -> tuple[str, Settings]:
    """The name of a preset and its settings, with what the command line changed."""
    asked, rest = option("preset", arguments)
    preset = next(iter(presets)) if asked is None else asked
    if preset not in presets:
        sys.exit(f"--preset {preset!r} is unknown; choose from {', '.join(presets)}")
    settings = tyro.cli(
        type(presets[preset]),
        default=presets[preset],
        args=rest,
        prog=shell_command(experiment),
        description=f"{description} --preset {' | '.join(presets)} chooses the defaults below.",
    )
    return preset, settings
