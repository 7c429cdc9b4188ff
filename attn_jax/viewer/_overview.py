"""The overview of a head: a small picture in which each cell is the greatest weight of a block."""

from typing import Any

import numpy as np

from attn_jax.viewer._json_arrays import array_to_json

LONG_SIDE = 512  # most cells on a side of the overview of more than 512 tokens
SHORT_SIDE = 64  # the same for up to 512 tokens, where the page can draw every weight itself
STEPS = 254  # values of an overview's eight bits; the next one, 255, stands for NaN


def max_pool(weights: np.ndarray, side: int) -> np.ndarray:
    """The greatest entry of each block of rows and columns, at most `side` blocks on each axis.

    A block that contains a NaN becomes NaN.
    """
    for axis in (0, 1):
        size = weights.shape[axis]
        if size > side:
            starts = -(-np.arange(side) * size // side)  # the least x whose ⌊x side / size⌋ is new
            weights = np.maximum.reduceat(weights, starts, axis=axis)
    return weights


def overview_side(T: int, S: int) -> int:
    """The most cells on a side of the overview of a head [T S]."""
    return LONG_SIDE if max(T, S) > LONG_SIDE else SHORT_SIDE


def overview_of(weights: np.ndarray) -> np.ndarray:
    """One head's weights [T S], max-pooled to the size of an overview."""
    return max_pool(weights, overview_side(*weights.shape))


def overviews_to_json(overviews: np.ndarray) -> dict[str, Any]:
    """Overviews [L N P Q] in eight bits, ⌈254 √weight⌉: a weight above 0 never becomes 0."""
    finite = np.nan_to_num(np.clip(overviews, 0, 1))
    steps = np.ceil(STEPS * np.sqrt(finite) - 1e-9)
    return array_to_json(np.where(np.isfinite(overviews), steps, STEPS + 1), "u8")


def overview_notes(T: int, S: int) -> tuple[str, ...]:
    """A tuple with the page's note about max-pooling; empty where every weight is drawn."""
    if max(T, S) <= LONG_SIDE:
        return ()
    block = f"{-(-T // LONG_SIDE)} × {-(-S // LONG_SIDE)}"
    return (
        f"Each point of the picture is the greatest of up to {block} weights, so no large weight "
        "is hidden. The row under the pointer has all its weights.",
    )
