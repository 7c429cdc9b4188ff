"""The comparisons in `tolerance.py` fail when they should."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tolerance import (
    assert_close,
    assert_differs,
    assert_equal,
    assert_same_but_for_rounding,
    assert_within,
)

ONE = np.ones(3)
SINGLE = np.ones(3, np.float32)


@pytest.mark.parametrize("compare", [assert_close, assert_equal, assert_differs])
def test_empty_arrays_and_unequal_shapes_are_refused(compare):
    with pytest.raises(AssertionError, match="nothing to compare"):
        compare(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(AssertionError, match="shape"):
        compare(np.ones((1, 3)), 2 * np.ones(3))


@pytest.mark.parametrize("compare", [assert_close, assert_equal, lambda *a: assert_within(*a, 1)])
def test_another_dtype_is_refused(compare):
    with pytest.raises(AssertionError, match="dtype float32, expected float64"):
        compare(SINGLE, ONE)


REFUSED = {
    "float64": (ONE + 2e-12, ONE, {}),
    "float32": (SINGLE + np.float32(3e-6), SINGLE, {}),
    "float32 against float64": (SINGLE + np.float32(3e-6), ONE, {"dtype": np.float32}),
    "a gradient": (SINGLE + np.float32(5e-6), SINGLE, {"gradient": True}),
    "NaN": (np.array([1, np.nan, 1]), ONE, {}),
    "infinity": (np.array([1, np.inf, 1]), ONE, {}),
    "no infinity": (ONE, np.array([1, np.inf, 1]), {}),
    "the other infinity": (np.array([1, np.inf, 1]), np.array([1, -np.inf, 1]), {}),
}


@pytest.mark.parametrize(("actual", "expected", "options"), REFUSED.values(), ids=REFUSED)
def test_a_number_that_is_too_far_away_is_refused(actual, expected, options):
    with pytest.raises(AssertionError):
        assert_close(actual, expected, **options)


ACCEPTED = {
    "float64": (ONE + 5e-13, ONE, {}),
    "float32": (SINGLE + np.float32(1e-6), SINGLE, {}),
    "a gradient": (SINGLE + np.float32(3e-6), SINGLE, {"gradient": True}),
    "the same infinity": (np.array([1, -np.inf]), np.array([1, -np.inf]), {}),
}


@pytest.mark.parametrize(("actual", "expected", "options"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_number_that_is_near_is_accepted(actual, expected, options):
    assert_close(actual, expected, **options)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_small_dtype_may_round_twice_and_no_more(dtype):
    exact = np.linspace(1, 2, 101)
    once = exact.astype(dtype)
    step = np.asarray(once[0] * jnp.finfo(dtype).eps).astype(np.float64)
    assert_close(once, exact, dtype=dtype)
    with pytest.raises(AssertionError, match="tolerance"):
        assert_close((exact + 2 * step).astype(dtype), exact, dtype=dtype)


def test_a_few_units_in_the_last_place_are_the_same_and_many_are_not():
    unit = np.spacing(np.float32(1))
    assert_same_but_for_rounding(np.float32([1, 0.1 + 4 * unit]), np.float32([1, 0.1]))
    with pytest.raises(AssertionError, match="units in the last place"):
        assert_same_but_for_rounding(np.float32([1, 0.1 + 6 * unit]), np.float32([1, 0.1]))


def test_almost_equal_arrays_do_not_differ():
    with pytest.raises(AssertionError, match="differs by"):
        assert_differs(ONE + 1e-4, ONE)
    assert_differs(ONE + 1e-2, ONE)
