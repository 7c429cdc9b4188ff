"""The options of a program: a preset, changes to its settings, and the command to repeat a run."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro


def shell_command(experiment: str, arguments: Sequence[str] = ()) -> str:
    """The shell command, for this folder, that runs a program with these arguments."""
    return shlex.join([interpreter(), "-m", f"experiments.{experiment}", *arguments])


def interpreter() -> str:
    """The name of the running Python in shell commands.

    It is `python` or `python3` where the shell finds this Python by that name, else its path. A
    path below the current folder is relative (.venv/bin/python), so reports do not depend on the
    machine.
    """
    here = Path(sys.executable)
    for name in ("python", "python3"):
        if shutil.which(name) == sys.executable:
            return name
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def take_option(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The last value that is given to an take_option, or None, and the other arguments.

    Example:
      >>> take_option("preset", ["--preset", "quick", "--name", "a", "--preset=smoke"])
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
    """The name of the preset, and its settings with the changes of the command line."""
    chosen, rest = take_option("preset", arguments)
    preset = next(iter(presets)) if chosen is None else chosen
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
