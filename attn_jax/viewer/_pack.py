"""Arrays as text and back: base64 of little-endian bytes, and masks as runs of readable keys."""

import base64
from typing import Any

import numpy as np

TYPES = {"f16": "<f2", "f32": "<f4", "u8": "<u1", "u32": "<u4"}


def pack(array: np.ndarray, kind: str) -> dict[str, Any]:
    """An array as JSON; rounded to `kind`, which is one of TYPES."""
    data = np.ascontiguousarray(array).astype(TYPES[kind]).tobytes()
    return {
        "type": kind,
        "shape": list(array.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """What `pack` packed."""
    data = base64.b64decode(packed["data"])
    return np.frombuffer(data, TYPES[packed["type"]]).reshape(packed["shape"])


def pack_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask [T S] by its rows: where each run of readable keys begins, and where it has ended.

    A causal mask, a window, documents and padding have few runs, however long they are.
    """
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, edges = np.nonzero(np.diff(padded, axis=1))
    runs = np.bincount(rows, minlength=mask.shape[0]) // 2
    offsets = np.concatenate([[0], np.cumsum(runs)])
    return {"offsets": pack(offsets, "u32"), "edges": pack(edges, "u32"), "keys": mask.shape[1]}


def unpack_mask(packed: dict[str, Any]) -> np.ndarray:
    """What `pack_mask` packed."""
    offsets, edges = unpack(packed["offsets"]), unpack(packed["edges"]).reshape(-1, 2)
    mask = np.zeros((len(offsets) - 1, packed["keys"]), bool)
    for row in range(len(mask)):
        for begin, end in edges[offsets[row] : offsets[row + 1]]:
            mask[row, begin:end] = True
    return mask


def pack_masks(mask: np.ndarray | None, L: int, N: int, T: int, S: int) -> dict[str, Any] | None:
    """Masks [1|L 1|N 1|T 1|S]: those that differ, and which of them each head has."""
    if mask is None or mask.all():
        return None
    listed: list[dict[str, Any]] = []
    seen: dict[bytes, int] = {}
    full = np.broadcast_to(mask, (mask.shape[0], mask.shape[1], T, S))
    which = np.zeros(mask.shape[:2], int)
    for place in np.ndindex(*which.shape):
        one = np.ascontiguousarray(full[place])
        name = np.packbits(one).tobytes()
        if name not in seen:
            seen[name] = len(listed)
            listed.append(pack_mask(one))
        which[place] = seen[name]
    return {"list": listed, "of": np.broadcast_to(which, (L, N)).ravel().tolist()}


def pool(weights: np.ndarray, side: int) -> np.ndarray:
    """The greatest entry of each block of rows and columns, at most `side` blocks on each axis.

    A block with a NaN is NaN, so that it is seen too.
    """
    for axis in (0, 1):
        size = weights.shape[axis]
        if size > side:
            starts = -(-np.arange(side) * size // side)  # where ⌊x side / size⌋ steps up
            weights = np.maximum.reduceat(weights, starts, axis=axis)
    return weights
