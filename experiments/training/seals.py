"""Checksums of a directory: SHA256SUMS contains the sha256 of every file in it.

Orbax 0.12.8 restores arrays with a flipped bit without an error. SHA256SUMS has the format of
`sha256sum -c`, so it can be checked without this program.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

SUMS = "SHA256SUMS"


def seal(directory: Path) -> None:
    """Writes SHA256SUMS, and returns when all files are flushed to disk."""
    lines = [
        f"{_digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in _files(directory)
    ]
    (directory / SUMS).write_text("".join(lines))
    for path in [*directory.rglob("*"), directory]:
        flush(path)


def damage(path: Path, needed: Collection[str] = ()) -> str | None:
    """The damage of a sealed directory (a file changed, missing or new) in words, or None.

    Args:
      path: the directory.
      needed: files and folders that SHA256SUMS must list; without them an empty SHA256SUMS would
        match an empty directory.
    """
    try:
        lines = (path / SUMS).read_text().splitlines()
        listed = {line.partition("  ")[2].partition("/")[0] for line in lines}
        for name in sorted(set(needed) - listed):
            return f"{SUMS} does not list {name}"
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        present = {file.relative_to(path).as_posix(): file for file in _files(path)}
        for name in sorted(sums.keys() ^ present.keys()):
            return f"{name} is {'missing' if name in sums else f'not listed in {SUMS}'}"
        for name, file in present.items():
            if _digest(file) != sums[name]:
                return f"sha256 of {name} differs"
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read ({error})"
    return None


def _files(path: Path) -> Iterator[Path]:
    """Every file but SHA256SUMS and hidden files (.DS_Store, .nfs…)."""
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != SUMS and not file.name.startswith("."):
            yield file


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Flushes a file, or the list of files of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
