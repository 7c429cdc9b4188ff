"""safetensors files of a checkpoint: memory-mapped, never unpickled, one tensor at a time."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "F64": np.float64}


class Stored(NamedTuple):
    """A tensor in a file: file, name, dtype as the format spells it, shape, first byte's offset."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def safetensors() -> ModuleType:
    """Imports the optional package safetensors.

    Raises:
      ImportError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module("safetensors")
    except ModuleNotFoundError as error:
        message = "checkpoints need safetensors: pip install 'attn-jax[checkpoints]'"
        raise ImportError(message) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file has no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; pass the folder that a model was saved to")
    content = parse_json(path, path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object; got {type(content).__name__}")
    return content


def parse_json(path: Path, text: bytes) -> Any:
    """Parses the JSON text of the file `path`, in which no object has a name twice.

    Raises:
      ValueError: the text is not JSON, or an object has a name twice.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply; download it again") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dictionary; a name that occurs twice raises ValueError."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} occurs twice; keep one of them")
    return content


def weight_files(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint by name.

    Raises:
      FileNotFoundError: there are no weights.
      ValueError: the weights are pickles, or a file or the index is damaged or inconsistent.
    """
    if (folder / SINGLE).is_file():
        return _stored(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise _missing_weights(folder)
    found: dict[str, Stored] = {}
    for file, wanted in _index(folder / INDEX).items():
        here = _stored(folder / file)
        if missing := sorted(wanted - set(here)):
            raise ValueError(f"{folder / file} lacks {missing[0]}, which {INDEX} lists for it")
        if twice := sorted(set(here) & set(found)):
            other = found[twice[0]].file.name
            raise ValueError(
                f"{folder}: {twice[0]} is both in {other} and in {file}; keep it in one of them"
            )
        found |= here
    return found


def view(stored: Stored) -> np.ndarray:
    """A tensor, memory-mapped: only the parts that are accessed are read from disk.

    Raises:
      ValueError: its dtype is not floating point.
    """
    if stored.dtype not in _DTYPES:
        raise ValueError(
            f"{stored.file}: {stored.name} is stored as {stored.dtype}, which is quantised or no "
            f"weight; supported are {', '.join(_DTYPES)}"
        )
    dtype = np.dtype(_DTYPES[stored.dtype])
    mapped = np.memmap(stored.file, dtype, "r", offset=stored.offset, shape=stored.shape)
    return mapped.view(np.ndarray)


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a safetensors file atomically: under another name, which is then changed."""
    safetensors()
    flax = importlib.import_module("safetensors.flax")
    draft = path.with_suffix(".draft")
    flax.save_file(tensors, draft, metadata={"format": "pt"})
    draft.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: under another name, which is then changed."""
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)


def _stored(path: Path) -> dict[str, Stored]:
    """The tensors that a file's header lists, after safetensors itself has checked the file."""
    _check(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(path, file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Stored(
            path, name, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }


def _check(path: Path) -> None:
    package = safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with package.safe_open(path, framework="numpy"):
            pass
    except package.SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(2)
        is_pickle = start[:1] == b"\x80" or start == b"PK"
        kind = " (it starts like a pickle, which is never opened)" if is_pickle else ""
        raise ValueError(
            f"{path} is not a complete safetensors file{kind}: {error}; download it again"
        ) from error


def _index(path: Path) -> dict[str, set[str]]:
    """For each file of an index the names of its tensors."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(
            f"{path}: weight_map must be an object that is not empty; download it again"
        )
    files: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise ValueError(f"{path}: weight_map must name a file for {name}; got {file!r}")
        if Path(file).name != file or file == "..":
            raise ValueError(f"{path} names {file!r}, which is outside {path.parent}")
        files.setdefault(file, set()).add(name)
    return dict(sorted(files.items()))


def _missing_weights(folder: Path) -> Exception:
    kinds = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
    pickles = sorted(path.name for kind in kinds for path in folder.glob(kind))
    if not pickles:
        return FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}")
    return ValueError(
        f"{folder} has no safetensors file, only {', '.join(pickles)}: a pickle can run any code "
        "and is never opened; if you trust it, load it with transformers and call save_pretrained, "
        "which writes safetensors"
    )
