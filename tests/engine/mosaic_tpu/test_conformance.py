"""The fused kernel, interpreted, has the output and every gradient of the float64 oracle.

`make test` runs a part of the cases, and `make test-fused-tpu` all of them.
"""

import os

import pytest

from tests.helpers.fused_case_list import EVERY, SUBSET
from tests.helpers.fused_cases import assert_near, results

CASES = EVERY if os.environ.get("EVERY_CASE") else SUBSET

pytestmark = pytest.mark.usefixtures("interpreted")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_are_as_near_to_float64_as_the_dtype_allows(case):
    assert_near(case, results(case, "mosaic_tpu"))


def test_there_are_as_many_cases_as_promised():
    assert len(set(map(str, SUBSET))) == len(SUBSET) >= 120
    assert len(set(map(str, EVERY))) == len(EVERY) >= 600
