"""The error bound of a result, in units of the rounding of its dtype.

unit = epsilon * the greatest condition of the result (dense_oracle.py); times 1 + the greatest
logit in the dtypes in which `exp` is computed, for exp(x + x epsilon) = exp(x) (1 + x epsilon).

float32             3 × the greater of a naive implementation's error and one unit; ≤ 4 units
float64             4 units, and at most 1e-13 of the condition
bfloat16, float16   1 unit, without the factor
"""

import numpy as np

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
RATIO, UNITS = 3.0, 4.0
F64 = 1e-13
TINY = 1e-30


def check(name: str, result, exact, condition, *, naive, greatest_logit: float, dtype: str) -> None:
    """Fails if a result is not finite where the exact one is, or too far from it.

    `naive` is the result of plain numpy in float32.
    """
    assert result.shape == exact.shape == naive.shape, f"{name}: {result.shape}, {exact.shape}"
    finite = np.isfinite(exact)
    result = np.asarray(result).astype(np.float64)
    assert np.array_equal(result[~finite], exact[~finite]), f"{name} should be −inf and is not"
    assert np.isfinite(result[finite]).all(), f"{name} is not finite"
    assert not result[finite & (condition == 0)].any(), f"{name} should be exactly 0 and is not"
    unit = EPSILON[dtype] * max(_greatest(condition), TINY)
    error, naive_error = (
        _greatest(result[finite] - exact[finite]),
        _greatest(naive[finite] - exact[finite]),
    )
    allowed = _allowed(dtype, unit, naive_error, 1 + greatest_logit)
    assert error <= allowed, f"{name}: error {error:.2e} > {allowed:.2e}"


def _allowed(dtype: str, unit: float, naive_error: float, steepness: float) -> float:
    if dtype == "float64":
        return min(F64 / EPSILON[dtype], UNITS * steepness) * unit
    if dtype == "float32":
        unit *= steepness
        return min(RATIO * max(naive_error, unit), UNITS * unit)
    return unit


def _greatest(array) -> float:
    return float(np.max(np.abs(array), initial=0))
