"""A directory that can prove it is whole: the sha256 of every file, in a file beside them.

Orbax 0.12.8 restores a flipped bit without a word; so does any format without checksums. SHA256SUMS
has the format of `sha256sum -c`, so anybody can check it without this program.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

SUMS = "SHA256SUMS"


def seal(directory: Path) -> None:
    """Hashes every file, and returns when the disk holds all of them."""
    lines = [
        f"{_digest(path)}  {path.relative_to(directory).as_posix()}\n" for path in _files(directory)
    ]
    (directory / SUMS).write_text("".join(lines))
    for path in [*directory.rglob("*"), directory]:
        flush(path)


def damage(path: Path, needed: Collection[str] = ()) -> str | None:
    """What is wrong with a sealed directory (a file changed, missing, or new), or None.

    Args:
      path: the directory.
      needed: files and folders at its top that the seal must list: an empty seal fits an empty
        directory.
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
    """Every file but the sums themselves and what a desktop strews about (.DS_Store, .nfs…)."""
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != SUMS and not file.name.startswith("."):
            yield file


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Returns when the disk holds the file, or the directory's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
