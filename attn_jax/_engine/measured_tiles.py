"""Tile shapes that `attn_jax.tune` measured: read from and written to a file in the user's cache.

The file is JSON. It is read when a program is compiled, and only if the user has made it. A file
that is damaged, or that another program wrote, is ignored, never overwritten, and reported once.
"""

import contextlib
import contextvars
import dataclasses
import functools
import json
import os
import tempfile
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from attn_jax._base import young_jax
from attn_jax._base.grid import TileShape

FORMAT, VERSION = "attn_jax tiles", 1


@dataclasses.dataclass(frozen=True)
class Situation:
    """What decides how fast a tile is; T, S and the number of heads are rounded up to powers of 2.

    A tile counts for the version of JAX with which it was measured: with another compiler it may be
    slow, or not fit the memory of the chip.
    """

    kernel: str
    device: str
    jax: str
    dtype: str
    head_dim: int
    value_dim: int
    T: int
    S: int
    heads: int
    compares_positions: bool

    @classmethod
    def of(
        cls,
        kernel: str,
        device: str,
        *,
        dtype: str,
        widths: tuple[int, int],
        sizes: tuple[int, int],
        heads: int = 1,
        compares_positions: bool = False,
    ) -> "Situation":
        """The situation of a call; `compares_positions` says that its mask does, as causal does."""
        T, S, heads = (_power_of_two(size) for size in (*sizes, heads))
        return cls(kernel, device, jax.__version__, dtype, *widths, T, S, heads, compares_positions)


@dataclasses.dataclass(frozen=True)
class _Trial:
    """The tile that is being measured, and the situations that have asked for one."""

    tile: TileShape | None
    asked: dict[Situation, None]


_trial: contextvars.ContextVar[_Trial | None] = contextvars.ContextVar("trial", default=None)


@contextlib.contextmanager
def trying(tile: TileShape | None) -> Iterator[dict[Situation, None]]:
    """Inside, every call that asks for a tile gets this one; None: the library's own choice.

    Yields:
      The situations that have asked, as the keys of a dictionary, which fills up meanwhile.
    """
    trial = _Trial(tile, {})
    token = _trial.set(trial)
    try:
        yield trial.asked
    finally:
        _trial.reset(token)


def tile_of(situation: Situation) -> TileShape | None:
    """The tile that was measured as the fastest, or that is being measured; None if none was."""
    trial = _trial.get()
    if trial is None:
        return read().get(situation)
    trial.asked[situation] = None
    return trial.tile


def device_kind(platform: str) -> str | None:
    """The kind of device that a program for a platform runs on; None where it is not known."""
    if (kind := young_jax.abstract_device_kind()) is not None:
        return kind
    return jax.devices()[0].device_kind if platform == jax.default_backend() else None


def file() -> Path | None:
    """Where the measured tiles are kept; None if there is no home folder.

    $ATTN_JAX_CACHE_DIR/tiles.json where that variable is set, else $XDG_CACHE_HOME/attn_jax or
    ~/.cache/attn_jax.
    """
    if own := os.environ.get("ATTN_JAX_CACHE_DIR"):
        return Path(own) / "tiles.json"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the XDG specification says that a relative path is ignored
        return given / "attn_jax" / "tiles.json"
    try:
        return Path.home() / ".cache" / "attn_jax" / "tiles.json"
    except RuntimeError:
        return None


def read() -> Mapping[Situation, TileShape]:
    """All measured tiles; none if there is no file, or if it cannot be used.

    Warns:
      RuntimeWarning: there is a file that cannot be used; once for each state of the file.
    """
    path = file()
    if path is None:
        return {}
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError:
        return _read(path, 0, 0)
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _read(path: Path, *_: int) -> Mapping[Situation, TileShape]:
    """The tiles of a file; a change of its time or size, the other arguments, reads it again."""
    try:
        return types.MappingProxyType(_tiles_in(path.read_bytes()))
    except (OSError, ValueError) as problem:
        message = f"attn_jax ignores the measured tiles in {path}: {problem}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return {}


def store(tiles: Mapping[Situation, TileShape | None]) -> Path:
    """Adds measured tiles to the file; None removes one. Readers see the old file or the new one.

    Raises:
      OSError: the file cannot be written.
      ValueError: there is a file that this function did not write; it stays as it is.
    """
    path = file()
    if path is None:
        raise OSError("there is no home folder; set ATTN_JAX_CACHE_DIR")
    known = _tiles_in(path.read_bytes()) if path.exists() else {}
    kept = {where: tile for where, tile in {**known, **tiles}.items() if tile is not None}
    entries = [dataclasses.asdict(where) | {"tile": list(tile)} for where, tile in kept.items()]
    document = {"format": FORMAT, "version": VERSION, "tiles": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(document, indent=1) + "\n")
    return path


def _replace(path: Path, text: str) -> None:
    """Writes a new file beside the old one, then gives it the old one's name."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _tiles_in(content: bytes) -> dict[Situation, TileShape]:
    """The tiles of a file.

    Raises:
      ValueError: it is not what `store` writes; the message says how it differs.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"it is not JSON ({problem})") from problem
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("attn_jax.tune did not write this file")
    if document.get("version") != VERSION:
        found = document.get("version")
        raise ValueError(f"it has version {found!r}, and this attn_jax reads version {VERSION}")
    if not isinstance(document.get("tiles"), list):
        raise ValueError("it has no list of tiles")
    return dict(_entry(place, entry) for place, entry in enumerate(document["tiles"]))


def _entry(place: int, entry: Any) -> tuple[Situation, TileShape]:
    kinds = {field.name: field.type for field in dataclasses.fields(Situation)}
    if not isinstance(entry, dict) or entry.keys() != {*kinds, "tile"}:
        raise ValueError(f"entry {place} does not have the fields of a measured tile")
    for name, kind in kinds.items():
        if type(entry[name]) is not kind:  # True is an int, too
            raise ValueError(f"entry {place}: {name} is {entry[name]!r}, which is no {kind}")
    tile = entry.pop("tile")
    is_pair = isinstance(tile, list) and len(tile) == 2
    if not is_pair or not all(type(size) is int and size >= 1 for size in tile):
        raise ValueError(f"entry {place}: the tile is {tile!r}, and not two positive numbers")
    return Situation(**entry), TileShape(*tile)


def _power_of_two(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << (max(number, 1) - 1).bit_length()
