"""What one run shares with the operating system: its directory, its lock, the disk and signals.

A run directory belongs to one process at a time. It holds

    config.json     what was asked for, for whoever reads the run later
    metrics.jsonl   one line every few steps
    checkpoints/    the newest two
    lock            held (`flock`) by the process that trains; kill -9 releases it too
"""

import fcntl
import json
import os
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


class RunInUse(OSError):  # noqa: N818 (the name says what is wrong)
    """Another process is training in this directory."""


def directory_of(name: str) -> Path:
    """Where the run of that name keeps everything: its own folder in runs/, and nowhere else.

    Raises:
      ValueError: the name is empty or leads elsewhere.
    """
    if not name.strip(" .") or Path(name).name != name:
        raise ValueError(
            f"name={name!r} must be the name of one folder in {RUNS}/: not empty, and without '/'"
        )
    return RUNS / name


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Creates the run directory and keeps every other process out of it until the block ends.

    Raises:
      RunInUse: another process holds the lock; the message names it.
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
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}): make it writable, or run the "
            "same command in a folder that is"
        ) from error


def clear(directory: Path) -> None:
    """Forgets what a run has stored; files the run did not write stay."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    for name in (METRICS, CONFIG):
        (directory / name).unlink(missing_ok=True)


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Stores what was asked for, so that a later reader can build the same model."""
    write_whole(directory / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())


def read_config(directory: Path) -> dict[str, Any]:
    """What the run in `directory` was asked for.

    Raises:
      FileNotFoundError: nothing has been trained there.
    """
    path = directory / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: nothing was trained in {directory} yet")
    return json.loads(path.read_text())


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is, at every instant, either the old one or the new one."""
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
    """Refuses to begin what the disk cannot hold.

    Raises:
      OSError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"{purpose} need about {megabytes(needed)} in {directory}, where {megabytes(free)} are "
            "free; free some space or choose a directory on another disk"
        )


def megabytes(size: int) -> str:
    """A number of bytes as people say it."""
    return f"{size / 1e6:,.1f} MB"


@dataclass
class StopRequest:
    """Whether somebody asked the run to stop, and by which signal."""

    signal: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C (or SIGTERM, as a cluster sends it) into a request to stop soon.

    The second one acts as it always does, so an impatient user is never locked in. Signals reach
    only the main thread; elsewhere nothing is changed.
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
