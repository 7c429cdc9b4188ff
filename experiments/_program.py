"""A small experiment as a program: presets, errors in one line, and claims that may fail."""

import errno
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import tyro
from rich.console import Console

import attn_jax
from experiments import _checkpoints
from experiments._checkpoints import CheckpointCorrupt, CheckpointMismatch, CheckpointNotSaved
from experiments._claims import Claim, print_claims
from experiments._runs import RunInUse

OURS = [Path(package.__file__).resolve().parent for package in (attn_jax, _checkpoints)]
REMEDIES = {
    errno.ENOSPC: "free some space and run the same command to continue",
    errno.EDQUOT: "your quota is used up: free some space and run the same command to continue",
    errno.EROFS: "run the same command in a folder on a disk that can be written",
    errno.EACCES: "make it readable and writable for yourself, or work in another folder",
    errno.EPERM: "make it readable and writable for yourself, or work in another folder",
}
EXPECTED = (
    ValueError,
    OSError,
    FloatingPointError,
    RunInUse,
    CheckpointMismatch,
    CheckpointCorrupt,
    CheckpointNotSaved,
)


def run_program[Settings](
    experiment: str,
    description: str,
    presets: Mapping[str, Settings],
    run: Callable[[Settings, str, Console], Sequence[Claim]],
    arguments: Sequence[str],
) -> int:
    """Runs an experiment as the command line asks, prints its claims, and returns the exit status.

    Args:
      experiment: the module's name in `experiments`.
      description: what it asks, for `--help`.
      presets: settings by name. The first is the default, and the one whose claims must hold.
      run: settings, the command that was given, and a console, to what was found.
      arguments: of the command line.

    Returns:
      1 if a claim of the default preset fails, else 0.

    Raises:
      SystemExit: an option is unknown, or the run met an error that a user can mend.
    """
    preset, settings = choose_settings(experiment, description, presets, arguments)
    console = Console(highlight=False)
    with mendable_errors():
        claims = run(settings, command_line(experiment, arguments), console)
    print_claims(console, claims)
    must_hold = preset == next(iter(presets))
    return int(must_hold and not all(claim.holds for claim in claims))


def command_line(experiment: str, arguments: Sequence[str] = ()) -> str:
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


@contextmanager
def mendable_errors() -> Iterator[None]:
    """Gives up with one line where our own code says what is wrong and what to do.

    An error from anywhere deeper is a bug, and keeps its traceback; so does every error under
    `python -X dev`.

    Raises:
      SystemExit: in place of an error that a user can mend.
    """
    try:
        yield
    except EXPECTED as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        place = Path(innermost.f_code.co_filename)
        is_ours = any(place.is_relative_to(folder) for folder in OURS)
        if sys.flags.dev_mode or not (is_ours or isinstance(error, OSError)):
            raise
        sys.exit(f"error: {explained(error)}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")


def explained(error: Exception) -> str:
    """An error in a sentence; what the system says with a number alone, with what to do."""
    if not isinstance(error, OSError) or error.errno not in REMEDIES:
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}"


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
        prog=command_line(experiment),
        description=f"{description} --preset {' | '.join(presets)} chooses the defaults below.",
    )
    return preset, settings
