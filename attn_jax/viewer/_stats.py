"""What a head's weights come to: entropy, and how far away it reads."""

import numpy as np


def row_entropy(weights: np.ndarray) -> np.ndarray:
    """Bits, row by row; rows of zeros have entropy 0.

    -Σ_s weights[t, s] log₂ weights[t, s]
    """
    logs = np.log2(weights, where=weights > 0, out=np.zeros_like(weights))
    return -(weights * logs).sum(axis=-1)


def row_distance(weights: np.ndarray, first: int = 0) -> np.ndarray:
    """Tokens between query and key, in the mean of a row's weights; `first` is its first query.

    Σ_s weights[t, s] |t - s|
    """
    T, S = weights.shape[-2:]
    apart = np.abs(np.arange(first, first + T)[:, None] - np.arange(S)[None, :])
    return (weights * apart).sum(axis=-1)


def mean(rows: np.ndarray) -> float | None:
    """The mean of the rows that are numbers, or None."""
    rows = rows[np.isfinite(rows)]
    return float(rows.mean()) if rows.size else None
