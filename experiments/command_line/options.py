"""The options of a program: a preset, changes to its settings, and the command to repeat a run."""

import dataclasses
import itertools
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import tyro


@runtime_checkable
class ProgramSettings(Protocol):
    """The settings of a program, a dataclass; each of its fields is an option.

    `preset` is the name of the preset that the settings started from.
    """

    @property
    def preset(self) -> str: ...


# The annotation of a string option whose default is white space; the help shows a newline as \n.
ESCAPED = tyro.conf.arg(
    help_behavior_hint=lambda default: f"(default: {default.encode('unicode_escape').decode()})"
)


def run_name(default: str) -> Any:
    """The annotation of a run's name, whose default depends on other options."""
    return tyro.conf.arg(metavar="NAME", help_behavior_hint=f"(default: {default})")


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


def option_value(name: str, arguments: Sequence[str]) -> str | None:
    """The last value of an option on a command line, or None.

    Example:
      >>> option_value("preset", ["--preset", "quick", "--name", "a", "--preset=smoke"])
      'smoke'
    """
    value = None
    for word, after in itertools.pairwise([*arguments, ""]):
        if word == f"--{name}":
            value = after
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
    return value


def choose_settings[Settings: ProgramSettings](
    experiment: str,
    description: str,
    presets: Mapping[str, Settings],
    arguments: Sequence[str],
    commands: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a preset with the changes of the command line.

    Args:
      experiment: the module's name in `experiments`.
      description: what the program does, for `--help`.
      presets: settings by name; the first is the default.
      arguments: those of the command line.
      commands: further commands of the program, each with what it does, for `--help`.

    Raises:
      SystemExit: an option or its value is unknown; the message lists the known ones.
    """
    chosen = option_value("preset", arguments)
    default = presets[chosen if chosen in presets else next(iter(presets))]
    listed = [f"  {name}  {does}" for name, does in (commands or {}).items()]
    _refuse_unknown_command(experiment, arguments, commands or {})
    return parse(
        type(default),
        arguments,
        default=default,
        prog=shell_command(experiment),
        description="\n".join([description, *(["", "commands:", *listed] if listed else [])]),
    )


def parse[Options](kind: type[Options], arguments: Sequence[str], **options: Any) -> Options:
    """The options on a command line as a dataclass; `--flag=true` and `--flag=false` work, too.

    Example:
      >>> @dataclasses.dataclass
      ... class Options:
      ...     fresh: bool = False
      >>> parse(Options, ["--fresh=true"]), parse(Options, ["--fresh=no"])
      (Options(fresh=True), Options(fresh=False))
    """
    flags = {
        f.name.replace("_", "-") for f in dataclasses.fields(cast(Any, kind)) if f.type is bool
    }
    return tyro.cli(kind, args=[_as_flag(word, flags) for word in arguments], **options)


def _as_flag(word: str, flags: set[str]) -> str:
    """`--fresh` for `--fresh=true`, `--no-fresh` for `--fresh=false`; other words unchanged."""
    found = re.fullmatch(r"--([\w-]+)=(true|yes|1|(false|no|0))", word, re.IGNORECASE)
    if found is None or found[1].replace("_", "-") not in flags:
        return word
    return f"--no-{found[1]}" if found[3] else f"--{found[1]}"


def _refuse_unknown_command(
    experiment: str, arguments: Sequence[str], commands: Mapping[str, str]
) -> None:
    if arguments and not arguments[0].startswith("-"):
        known = f"the only command is {', '.join(commands)}" if commands else "it has no commands"
        sys.exit(
            f"error: {arguments[0]!r} is no option of {experiment}, and {known}; "
            f"{shell_command(experiment)} --help lists the options"
        )
