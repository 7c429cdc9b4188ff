"""Arrays and masks as JSON and back: arrays as base64 text, masks as runs of unmasked keys."""

import base64
from typing import Any

import numpy as np

TYPES = {"f16": "<f2", "f32": "<f4", "u8": "<u1", "u32": "<u4"}


def array_to_json(array: np.ndarray, kind: str) -> dict[str, Any]:
    """An array, rounded to the dtype `kind` (a key of TYPES): little-endian bytes in base64."""
    data = np.ascontiguousarray(array).astype(TYPES[kind]).tobytes()
    return {
        "type": kind,
        "shape": list(array.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }


def array_from_json(encoded: dict[str, Any]) -> np.ndarray:
    """The array that `array_to_json` encoded."""
    data = base64.b64decode(encoded["data"])
    return np.frombuffer(data, TYPES[encoded["type"]]).reshape(encoded["shape"])


def mask_to_json(mask: np.ndarray) -> dict[str, Any]:
    """A mask [T S] as the start and end of each run of unmasked keys, row by row.

    Causal masks, windows, documents and padding have few runs, however long the text is.
    """
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, edges = np.nonzero(np.diff(padded, axis=1))
    runs = np.bincount(rows, minlength=mask.shape[0]) // 2
    offsets = np.concatenate([[0], np.cumsum(runs)])
    return {
        "offsets": array_to_json(offsets, "u32"),
        "edges": array_to_json(edges, "u32"),
        "keys": mask.shape[1],
    }


def mask_from_json(encoded: dict[str, Any]) -> np.ndarray:
    """The mask that `mask_to_json` encoded."""
    offsets = array_from_json(encoded["offsets"])
    edges = array_from_json(encoded["edges"]).reshape(-1, 2)
    mask = np.zeros((len(offsets) - 1, encoded["keys"]), bool)
    for row in range(len(mask)):
        for begin, end in edges[offsets[row] : offsets[row + 1]]:
            mask[row, begin:end] = True
    return mask


def masks_to_json(mask: np.ndarray | None, L: int, N: int, T: int, S: int) -> dict[str, Any] | None:
    """Masks [1|L 1|N 1|T 1|S] as a list of the different ones, and each head's index in it."""
    if mask is None or mask.all():
        return None
    different: list[dict[str, Any]] = []
    index_of: dict[bytes, int] = {}
    full = np.broadcast_to(mask, (mask.shape[0], mask.shape[1], T, S))
    indices = np.zeros(mask.shape[:2], int)
    for layer_and_head in np.ndindex(*indices.shape):
        one = np.ascontiguousarray(full[layer_and_head])
        bits = np.packbits(one).tobytes()
        if bits not in index_of:
            index_of[bits] = len(different)
            different.append(mask_to_json(one))
        indices[layer_and_head] = index_of[bits]
    return {"list": different, "of": np.broadcast_to(indices, (L, N)).ravel().tolist()}
