"""The directory of a run, its lock, atomic writes, disk space and stop signals.

Only one process at a time trains in a run directory. It contains

    program         the name of the program that made it
    config.json     the settings
    metrics.jsonl   one line every few steps
    checkpoints/    the newest two
    lock            locked (`flock`) by the process that trains; kill -9 releases it, too
"""

import fcntl
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

RUNS = Path("runs")
CONFIG, METRICS, CHECKPOINTS, LOCK = "config.json", "metrics.jsonl", "checkpoints", "lock"
PROGRAM = "program"
OUTCOME = "outcome.json"  # written by measures/outcomes.py
DRAFT = re.compile(r"\..+\.\d+")  # a name that `write_whole` gives to a file until it is complete
LONGEST_NAME = 255  # bytes of a folder's name on common file systems


class RunInUse(OSError):  # noqa: N818 (the name is the condition)
    """Another process is training in this directory."""


class OtherProgram(ValueError):  # noqa: N818 (the name is the condition)
    """The directory is a run of another program."""


def directory_of(name: str) -> Path:
    """The directory of the run with that name, a folder of runs/.

    Raises:
      ValueError: the name is empty, too long, or no name of one folder.
    """
    if not name.strip(" .") or Path(name).name != name or not name.isprintable():
        raise ValueError(
            f"name={name!r} must be the name of one folder in {RUNS}/: not empty, and without '/'"
        )
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"name has {len(name)} letters; a folder's name has {LONGEST_NAME} bytes")
    return RUNS / name


def program_of(directory: Path) -> str | None:
    """The program that made a run; None if there is no run, or an older version made it."""
    path = directory / PROGRAM
    return path.read_text().strip() if path.is_file() else None


def has_files(directory: Path) -> bool:
    """Whether a directory holds more than a lock and the drafts of a process that was killed."""
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir()}
    return any(name != LOCK and not DRAFT.fullmatch(name) for name in names)


@contextmanager
def opened(directory: Path, program: str) -> Iterator[None]:
    """Locks the directory of a program's run until the block ends, and creates it if needed.

    If the block raises an error before any training step, a directory that had no files before is
    removed: a failed start leaves no half run.

    Raises:
      OtherProgram: the directory is a run of another program, or of an unknown one.
      RunInUse: another process holds the lock; the message has its id.
      OSError: the directory cannot be written.
    """
    owner, is_new = program_of(directory), not has_files(directory)
    if owner is None and not is_new:
        raise OtherProgram(
            f"{directory} has files, but no file `{PROGRAM}` that names the program that made "
            f"them; choose another --name, or, if they are a run of `{program}`, write the word "
            f"`{program}` into {directory / PROGRAM}"
        )
    if owner not in (None, program):
        raise OtherProgram(
            f"{directory} is a run of `{owner}`, not of `{program}`; choose another --name"
        )
    with locked(directory):
        write_whole(directory / PROGRAM, f"{program}\n".encode())
        try:
            yield
        except Exception:  # whatever ended the start; it is raised again
            if is_new and not any(directory.rglob(METRICS)):
                shutil.rmtree(directory, ignore_errors=True)
            raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Creates the run directory and locks it until the block ends.

    Raises:
      RunInUse: another process holds the lock; the message has its id.
      OSError: the directory cannot be written.
    """
    path = directory / LOCK
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip() or "unknown"
            raise RunInUse(
                f"{directory} is in use by process {owner}; wait for it, stop it "
                f"(kill -INT {owner} saves first), or choose another --name"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _opened(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        blocking = next((p for p in path.parents if p.exists() and not p.is_dir()), None)
        if blocking is not None:
            raise OSError(
                f"{blocking} is a file, and the runs are stored in a folder of that name: rename "
                "the file, and run the same command again"
            ) from error
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}): make it writable, or copy this "
            "folder to a place that is, and run the same command there"
        ) from error


def clear(directory: Path) -> None:
    """Removes checkpoints, metrics, settings and outcome of a run; other files stay."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    for name in (METRICS, CONFIG, OUTCOME):
        (directory / name).unlink(missing_ok=True)


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Stores the settings of a run."""
    write_whole(directory / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())


def read_config(directory: Path) -> dict[str, Any]:
    """The settings of the run in `directory`.

    Raises:
      FileNotFoundError: there is none.
    """
    path = directory / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: nothing was trained in {directory} yet")
    return json.loads(path.read_text())


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file atomically: at any time the path has the old content or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Checks that `needed` bytes are free.

    Raises:
      OSError: they are not.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"{purpose} need about {megabytes(needed)} in {directory}, where {megabytes(free)} are "
            "free; free some space or choose a directory on another disk"
        )


def megabytes(size: int) -> str:
    """A number of bytes in megabytes."""
    return f"{size / 1e6:,.1f} MB"


@dataclass
class StopRequest:
    """The signal that requests the run to stop, or None."""

    signal: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step.

    A second signal has its usual effect. Signals reach only the main thread; in other threads
    nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = number
        restore()

    for number in usual:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
