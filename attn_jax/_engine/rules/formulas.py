"""Functions that Mosaic TPU lacks, in those that it has; float32, on tiles.

Each is within 2 units in the last place of its exact value, or as close to it as `jnp` is.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Bool, Float

type Tile = Float[Array, "s t"]

_LARGE = 1e8  # from here on x² + 1 and x² have the same square root
# Cephes, ndtrf.c (Moshier 1989, https://www.netlib.org/cephes): erfc(x) exp(x²) x in powers of
# 1 / x², highest first, for |x| from 1 to 2 and from 2 on.
_ERFC_NEAR = (
    2.326819970068386e-2,
    -1.387039388740657e-1,
    3.687424674597105e-1,
    -5.824733027278666e-1,
    6.210004621745983e-1,
    -4.944515323274145e-1,
    3.404879937665872e-1,
    -2.741127028184656e-1,
    5.638259427386472e-1,
)
_ERFC_FAR = (
    -1.047766399936249e1,
    1.297719955372516e1,
    -7.495518717768503e0,
    2.921019019210786e0,
    -1.015265279202700e0,
    4.218463358204948e-1,
    -2.820767439740514e-1,
    5.641895067754075e-1,
)


def polynomial(x: Tile, coefficients: Sequence[Tile | float]) -> Tile:
    """Σ coefficients[n] xⁿ by Horner's rule, for two coefficients or more."""
    result: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def is_finite(x: Tile) -> Bool[Array, "s t"]:
    """Whether a number is neither infinite nor NaN."""
    return lax.lt(lax.abs(x), lax.full_like(x, math.inf))


def expm1(x: Tile) -> Tile:
    """exp(x) - 1; its Taylor series for |x| < 1, where exp(x) is near 1."""
    near = _where(lax.abs(x) < 1, x, 0.0)
    series = near * (1 + near * polynomial(near, _inverse_factorials(range(2, 14))))
    return _where(lax.abs(x) < 1, series, lax.exp(x) - 1)


def sinh(x: Tile) -> Tile:
    """(exp(x) - exp(-x)) / 2; its Taylor series for |x| < 1."""
    near = _where(lax.abs(x) < 1, x, 0.0)
    square = near * near
    series = near + near * square * polynomial(square, _inverse_factorials(range(3, 14, 2)))
    rising, falling = _half_exponentials(lax.abs(x))
    return _where(lax.abs(x) < 1, series, lax.sign(x) * (rising - falling))


def cosh(x: Tile) -> Tile:
    """(exp(x) + exp(-x)) / 2."""
    rising, falling = _half_exponentials(lax.abs(x))
    return rising + falling


def asinh(x: Tile) -> Tile:
    """sign(x) log(|x| + √(x² + 1)), written with log1p so that small x keep their digits."""
    size = lax.abs(x)
    near = _where(size < _LARGE, size, 0.0)
    square = near * near
    result = lax.log1p(near + square / (1 + lax.sqrt(square + 1)))
    return lax.sign(x) * _where(size < _LARGE, result, lax.log(size) + math.log(2))


def acosh(x: Tile) -> Tile:
    """log(x + √(x² - 1)), written with log1p so that x near 1 keep their digits."""
    near = _where(x < _LARGE, x, 1.0) - 1
    result = lax.log1p(near + lax.sqrt(near) * lax.sqrt(near + 2))
    return _where(x < _LARGE, result, lax.log(x) + math.log(2))


def atanh(x: Tile) -> Tile:
    """log((1 + x) / (1 - x)) / 2."""
    return 0.5 * (lax.log1p(x) - lax.log1p(-x))


def atan(x: Tile) -> Tile:
    return lax.atan2(x, lax.full_like(x, 1))


def asin(x: Tile) -> Tile:
    return lax.atan2(x, lax.sqrt((1 - x) * (1 + x)))


def acos(x: Tile) -> Tile:
    return lax.atan2(lax.sqrt((1 - x) * (1 + x)), x)


def cbrt(x: Tile) -> Tile:
    """The cube root by logarithm, and two steps of Newton's method."""
    size = lax.abs(x)
    is_regular = (size > 0) & is_finite(x)
    regular = _where(is_regular, size, 1.0)
    root = lax.exp(lax.log(regular) / 3)
    for _ in range(2):
        root = root - (root - regular / (root * root)) / 3
    return _where(is_regular, lax.sign(x) * root, x)


def erfc(x: Tile) -> Tile:
    """1 - erf(x), by polynomials for |x| >= 1, where the difference loses digits."""
    size = lax.abs(x)
    far = lax.max(size, lax.full_like(x, 1))
    inverse = 1 / far
    square = inverse * inverse
    near, beyond = (polynomial(square, of[::-1]) for of in (_ERFC_NEAR, _ERFC_FAR))
    series = _where(far < 2, near, beyond)
    tail = _exp_of_minus_square(far) * inverse * series
    tail = _where(x < 0, 2 - tail, tail)
    return _where(size < 1, 1 - lax.erf(x), tail)


def _exp_of_minus_square(x: Tile) -> Tile:
    """exp(-x²) for x >= 0; the rounding of x² alone would cost up to x² units in the last place."""
    bounded = lax.min(x, lax.full_like(x, 11.0))  # from there on the result is 0
    head = lax.reduce_precision(bounded, 8, 11)  # its square is exact
    return lax.exp(-head * head) * lax.exp((head - bounded) * (head + bounded))


def _half_exponentials(size: Tile) -> tuple[Tile, Tile]:
    """exp(x) / 2 and exp(-x) / 2 for x >= 0; the first overflows only where the half does."""
    root = lax.exp(0.5 * size)
    return 0.5 * root * root, 0.5 / root / root


def _inverse_factorials(orders: range) -> list[float]:
    return [1 / math.factorial(n) for n in orders]


def _where(condition: Array, x: Array, y: Array | float) -> Array:
    """`jnp.where` without a nested call."""
    return lax.select(condition, x, y if isinstance(y, jax.Array) else lax.full_like(x, y))
