"""Text files, plain or compressed, as a whole or by lines; errors name the place and a remedy."""

import gzip
import lzma
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path


def find_file(path: Path, where: str) -> Path:
    """The path of a file, or of its compressed form in the same folder (`.gz`, `.xz`).

    Args:
      path: the name without a compression suffix.
      where: how to get the file, for the error message.

    Returns:
      The first of these paths that exists.

    Raises:
      ValueError: there is none.
    """
    for suffix in ("", ".gz", ".xz"):
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate
    raise ValueError(f"no file {path} (nor .gz, nor .xz); {where}")


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file in NFC, with white space collapsed.

    Args:
      path: of the file; with the suffix `.gz` or `.xz` it is decompressed.

    Yields:
      The lines in order; tabs stay tabs.

    Raises:
      ValueError: the file is truncated or damaged, or a line is empty or not UTF-8.

    Example:
      >>> path = getfixture("tmp_path") / "lines.txt"
      >>> _ = path.write_text("un  café \\ndeux\\n", encoding="utf-8")
      >>> list(read_lines(path))
      ['un café', 'deux']
    """
    # The whole file is read first, so that damage is not reported as a malformed line.
    for number, raw in enumerate(_content(path).removesuffix(b"\n").split(b"\n"), start=1):
        yield _line(raw, f"{path}, line {number}")


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file; only line ends are normalised.

    Args:
      path: of the file; with the suffix `.gz` or `.xz` it is decompressed.

    Returns:
      The text, with `\\n` as the only line end.

    Raises:
      ValueError: the file is truncated or damaged, or not UTF-8.

    Example:
      >>> path = getfixture("tmp_path") / "text.txt"
      >>> _ = path.write_bytes(b"one  word\\r\\n\\ttwo\\n")
      >>> read_text(path)
      'one  word\\n\\ttwo\\n'
    """
    text = _decoded(_content(path), str(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _content(path: Path) -> bytes:
    decompress = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix)
    content = path.read_bytes()
    try:
        return decompress(content) if decompress else content
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}); fetch the file again"
        ) from error


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: byte {error.start} ({raw[error.start]:#04x}) is not UTF-8; "
            "convert the file to UTF-8"
        ) from error


def _line(raw: bytes, place: str) -> str:
    text = _decoded(raw, place)
    fields = unicodedata.normalize("NFC", text.rstrip("\r\n")).split("\t")
    line = "\t".join(" ".join(field.split()) for field in fields)
    if not line:
        raise ValueError(f"{place}: the line is empty; remove it, in every language")
    return line


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The rows of a tab-separated file without quoting.

    Args:
      path: as for `read_lines`; a first line that repeats the column names is skipped.
      columns: names of the columns.

    Yields:
      One tuple a row, as long as `columns`; no field is empty.

    Raises:
      ValueError: as `read_lines`, or a row has an empty field or another number of fields.
    """
    for number, line in enumerate(read_lines(path), start=1):
        fields = tuple(line.split("\t"))
        if len(fields) != len(columns):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields instead of {len(columns)} "
                f"({', '.join(columns)}, separated by tabs)"
            )
        if "" in fields:
            raise ValueError(
                f"{path}, line {number}: {columns[fields.index('')]} is empty; remove the line"
            )
        if number > 1 or fields != tuple(columns):
            yield fields
