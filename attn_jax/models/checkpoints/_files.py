"""safetensors files of a checkpoint: opened, never unpickled, and read one tensor at a time."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


def safetensors() -> ModuleType:
    """The package, which only checkpoints need.

    Raises:
      ImportError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module("safetensors")
    except ModuleNotFoundError as error:
        raise ImportError(
            "checkpoints need safetensors: pip install 'attn-jax[checkpoints]'"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name the folder that a model was saved to")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object; got {type(content).__name__}")
    return content


def weight_files(folder: Path) -> dict[str, Path]:
    """For each tensor of a checkpoint the file that it is in.

    Raises:
      FileNotFoundError: there are no safetensors.
      ValueError: the index names a file elsewhere, or a tensor that its file lacks.
    """
    if (folder / SINGLE).is_file():
        return dict.fromkeys(_names(folder / SINGLE), folder / SINGLE)
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        never = f"; {', '.join(pickles)} is a pickle and is never opened" if pickles else ""
        raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}{never}")
    named: dict[str, Path] = {}
    weight_map = read_json(folder / INDEX).get("weight_map", {})
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise ValueError(f"{folder / INDEX} names {file!r}, which is outside of {folder}")
        here = set(_names(folder / file))
        wanted = {name for name, other in weight_map.items() if other == file}
        if missing := sorted(wanted - here):
            raise ValueError(f"{folder / file} lacks {missing[0]}, which {INDEX} says it has")
        named |= dict.fromkeys(here, folder / file)
    return named


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of tensors, mapped into memory.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or no safetensors at all.
    """
    package = safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        file = package.safe_open(path, framework="flax")
    except package.SafetensorError as error:
        start = path.open("rb").read(2)
        is_pickle = start[:1] == b"\x80" or start == b"PK"
        kind = " (it begins like a pickle, which is never opened)" if is_pickle else ""
        raise ValueError(
            f"{path} is no whole safetensors file{kind}: {error}; fetch it anew"
        ) from error
    with file:
        yield file


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a file of tensors whole: nobody sees half of it."""
    safetensors()
    flax = importlib.import_module("safetensors.flax")
    draft = path.with_suffix(".draft")
    flax.save_file(tensors, draft, metadata={"format": "pt"})
    draft.replace(path)


def _names(path: Path) -> list[str]:
    with opened(path) as file:
        return list(file.keys())
