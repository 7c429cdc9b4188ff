"""Statistics of a head's weights: entropy, and mean distance between query and key."""

import numpy as np


def row_entropy(weights: np.ndarray) -> np.ndarray:
    """The entropy of each row in bits; a row of zeros has entropy 0.

    -Σ_s weights[t, s] log₂ weights[t, s]
    """
    logs = np.log2(weights, where=weights > 0, out=np.zeros_like(weights))
    return -(weights * logs).sum(axis=-1)


def row_distance(weights: np.ndarray, first: int = 0) -> np.ndarray:
    """The weighted mean distance of each row in tokens; `first` is the index of the first row.

    Σ_s weights[t, s] |t - s|
    """
    T, S = weights.shape[-2:]
    distance = np.abs(np.arange(first, first + T)[:, None] - np.arange(S)[None, :])
    return (weights * distance).sum(axis=-1)


def finite_mean(values: np.ndarray) -> float | None:
    """The mean of the finite values, or None if there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None
