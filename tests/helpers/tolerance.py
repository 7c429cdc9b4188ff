"""Comparisons of arrays with one tolerance for each dtype; empty arrays are refused.

float64             1e-12 · max|expected|
float32             2e-6 · max|expected|, gradients twice that; matrix products at highest precision
bfloat16, float16   2 × the error of rounding the float64 answer once; 3 × for a backend that also
                    rounds the weights, as kernels with narrow matrix products do
"""

import jax.numpy as jnp
import numpy as np

_RELATIVE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-6}
_HALF = (np.dtype(jnp.bfloat16), np.dtype(np.float16))


def assert_close(
    actual, expected, *, dtype=None, gradient: bool = False, roundings: int = 1
) -> None:
    """Compares with the tolerance of the dtype. `actual` must have `dtype` (by default the dtype
    of `expected`); empty arrays and unequal shapes are refused."""
    actual, expected = _comparable(actual, expected)
    wanted = expected.dtype if dtype is None else np.dtype(dtype)
    assert actual.dtype == wanted, f"dtype {actual.dtype}, expected {wanted}"
    expected = expected.astype(np.float64)
    infinite = ~np.isfinite(expected)
    np.testing.assert_array_equal(actual.astype(np.float64)[infinite], expected[infinite])
    expected = np.where(infinite, 0, expected)
    error = np.abs(np.where(infinite, 0, actual.astype(np.float64)) - expected)
    tolerance = _tolerance(expected, wanted, gradient, roundings)
    assert error.max() <= tolerance, f"error {error.max():.3e} > tolerance {tolerance:.3e}"


def assert_equal(actual, expected) -> None:
    """Requires the same shape, dtype and bits; empty arrays are refused."""
    actual, expected = _comparable(actual, expected)
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    np.testing.assert_array_equal(actual, expected)


def assert_same_but_for_rounding(actual, expected, units: int = 4) -> None:
    """Requires equality to a few units in the last place of the greatest number.

    It is for one computation compiled for different shapes: on some CPUs (Intel's with AVX-512 or
    AMX) XLA's matmuls add up in another order for another shape.
    """
    actual, expected = _comparable(actual, expected)
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    unit = np.spacing(np.abs(expected).max())
    error = np.abs(actual - expected).max() / unit
    assert error <= units, f"{error:.1f} units in the last place of the greatest number"


def assert_within(actual, expected, atol: float) -> None:
    """Compares with numbers of a known accuracy, such as printed ones."""
    actual, expected = _comparable(actual, expected)
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def assert_differs(actual, other) -> None:
    """Requires finite arrays of one shape that clearly differ."""
    actual, other = (array.astype(np.float64) for array in _comparable(actual, other))
    assert np.isfinite(actual).all()
    assert np.isfinite(other).all()
    difference = np.abs(actual - other).max()
    assert difference > 1e-3 * np.abs(other).max(), f"differs by {difference:.1e} only"


def _comparable(actual, expected) -> tuple[np.ndarray, np.ndarray]:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.size > 0, "nothing to compare"
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    return actual, expected


def _tolerance(expected: np.ndarray, dtype: np.dtype, gradient: bool, roundings: int) -> float:
    if dtype in _HALF:
        rounded = expected.astype(dtype).astype(np.float64)
        return (1 + roundings) * np.abs(rounded - expected).max()
    return _RELATIVE[dtype] * (2 if gradient else 1) * np.abs(expected).max()
