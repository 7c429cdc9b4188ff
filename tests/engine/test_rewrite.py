"""A rewritten function computes what `jnp` does, and what Mosaic TPU lacks is refused by name."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives

from attn_jax._engine.rules import Refused, rewritten
from attn_jax._engine.rules.rewrite import FORMULAS, TAKEN
from tests.helpers.tolerance import assert_equal

UNITS = 2


def spread(least: float, greatest: float, count: int = 4000) -> np.ndarray:
    """Numbers from -greatest to greatest, as many in each power of two down to `least`."""
    sizes = np.geomspace(least, greatest, count)
    return np.concatenate([-sizes[::-1], [0.0], sizes]).astype(np.float32)


EVERYWHERE = spread(1e-37, 3e38)
# Each function with its exact value in float64, and the numbers it is tested on.
FUNCTIONS = {
    "expm1": (lax.expm1, np.expm1, spread(1e-30, 88.0)),
    "sinh": (lax.sinh, np.sinh, spread(1e-30, 89.0)),
    "cosh": (lax.cosh, np.cosh, spread(1e-30, 89.0)),
    "asinh": (lax.asinh, np.arcsinh, EVERYWHERE),
    "acosh": (lax.acosh, np.arccosh, 1 + np.abs(spread(1e-7, 3e38))),
    "atanh": (lax.atanh, np.arctanh, spread(1e-30, 0.9999999)),
    "asin": (lax.asin, np.arcsin, spread(1e-30, 1.0)),
    "acos": (lax.acos, np.arccos, spread(1e-30, 1.0)),
    "atan": (lax.atan, np.arctan, EVERYWHERE),
    "cbrt": (lax.cbrt, np.cbrt, EVERYWHERE),
    "erfc": (lax.erfc, np.vectorize(math.erfc), spread(1e-30, 9.0)),
}


def units_from(values, exact) -> np.ndarray:
    """The distance from exact values, in units in the last place of each."""
    values, exact = np.asarray(values, np.float64), np.asarray(exact, np.float64)
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(values - exact) / unit


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_formula_is_exact_to_two_units_or_as_exact_as_jnp(name):
    function, exact, x = FUNCTIONS[name]
    tile = jnp.asarray(x)[None, :]
    ours, theirs = rewritten(function)(tile), function(tile)
    wanted = exact(x.astype(np.float64))[None, :]
    limit = max(UNITS, units_from(theirs, wanted).max())
    assert units_from(ours, wanted).max() <= limit


EDGES = jnp.array([[-jnp.inf, -3e38, -1.0, -0.0, 0.0, 1.0, 3e38, jnp.inf, jnp.nan]], jnp.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_infinities_nan_and_zeros_are_as_in_jnp(name):
    function = getattr(lax, name)
    actual, expected = rewritten(function)(EDGES), function(EDGES)
    special = ~jnp.isfinite(expected) | (expected == 0)
    assert_equal(jnp.where(special, actual, 1), jnp.where(special, expected, 1))
    signs = (jnp.signbit(x) & ~jnp.isnan(x) for x in (actual, expected))
    assert_equal(*signs)


A, B, C = (jnp.array([row], jnp.float32) for row in ([1.5, -2, 0.25], [2, 2, -1], [3, 0, 7]))
WHICH = jnp.array([[0, 2, 1]], jnp.int32)
OTHERS = {
    "is_finite": (lax.is_finite, (EDGES,), jnp.abs(EDGES) <= 3.4e38),
    "add_any": (lambda x, y: primitives.add_jaxvals_p.bind(x, y), (A, B), A + B),
    "copy": (lambda x: primitives.copy_p.bind(x), (A,), A),
    "polynomial": (lambda x: lax.polynomial(x, (3.0, 2.0, 1.0)), (A,), 3 + 2 * A + A * A),
    "one_minus_square": (
        lambda x: primitives.one_minus_square_p.bind(x),
        (A,),
        (1 + A) * (1 - A),
    ),
    "select_n of three": (lax.select_n, (WHICH, A, B, C), jnp.array([[1.5, 0.0, -1.0]])),
    "max of booleans": (lambda x, y: lax.max(x > 0, y > 0), (A, B), jnp.array([[1, 1, 1]]) > 0),
    "min of booleans": (lambda x, y: lax.min(x > 0, y > 0), (A, B), jnp.array([[1, 0, 0]]) > 0),
    "exp at its highest accuracy": (
        lambda x: lax.exp(x, accuracy=lax.AccuracyMode.HIGHEST),
        (A,),
        jnp.exp(A),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_rewritten_operations_have_equal_results(name):
    function, tiles, expected = OTHERS[name]
    assert_equal(rewritten(function)(*tiles), expected)


def derivative(x):
    """Of functions with rules of their own, and of nested calls."""

    def function(x):
        return jax.nn.softplus(jax.nn.relu(x)) + jax.jit(jnp.expm1)(x) + jnp.logaddexp(x, 2.0)

    return jax.vjp(function, x)[1](x)


@pytest.mark.parametrize("function", [derivative, *(f for f, *_ in FUNCTIONS.values())])
def test_a_rewritten_function_has_operations_of_the_kernel_alone(function):
    program = jax.make_jaxpr(rewritten(function))(A)
    names = {eqn.primitive.name for eqn in program.jaxpr.eqns}
    assert names
    assert names <= TAKEN


def test_a_rewritten_derivative_is_the_derivative():
    (expected,), (actual,) = derivative(A), rewritten(derivative)(A)
    assert units_from(actual, expected).max() <= UNITS


def test_every_formula_is_tested():
    assert set(FORMULAS) == {*FUNCTIONS, *OTHERS} & set(FORMULAS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lax.lgamma, "uses lgamma, which the TPU kernel has not"),
        (lambda x: lax.sort(x), "uses sort"),
        (lambda x: lax.fori_loop(0, 3, lambda _, y: y * y, x), "uses scan"),
        (lambda x: lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y + 1, x), "uses while"),
        (lambda x: jax.random.uniform(jax.random.key(0), x.shape) * x, "uses random_"),
        (lambda x: x.astype(jnp.float16), "of dtype float16"),
        (lambda x: x[None], r"of shape \[1, 1, 3\]"),
        (lambda x: lax.cond(x.sum() > 0, lambda: x, lambda: -x), "uses cond"),
        (lambda x: lax.exp(x, accuracy=lax.Tolerance(rtol=1e-3)), "exp of a chosen tolerance"),
    ],
)
def test_what_the_kernel_lacks_is_refused_by_name(function, message):
    with pytest.raises(Refused, match=message):
        rewritten(function)(A)
