"""A TPU's compiler takes every operation that a rule may use in a kernel, and its derivative."""

import pytest

from attn_jax._engine.rules.rewrite import FORMULAS, TAKEN
from tests.helpers.tpu_compiler import needs_the_compiler, output_of

pytestmark = needs_the_compiler


@pytest.fixture(scope="module")
def compiled():
    return output_of("compile_rules_for_tpu.py")


def test_every_operation_and_its_derivative_compiles(compiled):
    cases = [case for of_one in compiled["operations"].values() for case in of_one.items()]
    assert len(cases) > 150
    assert {case: error for case, error in cases if error is not None} == {}


def test_no_operation_is_left_out(compiled):
    assert set(compiled["operations"]) == TAKEN | set(FORMULAS)


def test_whole_rules_and_their_derivatives_compile(compiled):
    assert len(compiled["rules"]) >= 10
    assert {name: error for name, error in compiled["rules"].items() if error is not None} == {}
