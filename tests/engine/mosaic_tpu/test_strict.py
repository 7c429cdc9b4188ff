"""The strict interpreter reports nothing: no uninitialised memory, no read out of bounds, no race.

It fills memory with NaN and the greatest integers, and runs heads on two cores, as the grid allows.
`make test` runs a part of the cases, and `make test-fused-tpu` all of them.
"""

import os

import jax
import pytest
from jax.experimental.pallas import tpu as pltpu

from attn_jax._base.young_jax import Target
from attn_jax._engine.attention import _KernelOperation
from attn_jax._engine.kernels.mosaic_tpu import launch
from attn_jax._engine.kernels.mosaic_tpu.visits import FIRST, Visit
from tests.engine.mosaic_tpu.conftest import clear_caches, interpreted_by
from tests.helpers.fused_cases import Case, assert_near, results

STRICT = pltpu.InterpretParams(
    uninitialized_memory="nan",
    out_of_bounds_reads="raise",
    detect_races=True,
    on_race="raise",
    num_cores_or_threads=2,
)

CASES = [
    Case("square", ("causal", "slopes", "cap", "sink")),
    Case("wide", ("documents", "dropout"), "each its own"),
    Case("tall", ("array", "bias of heads")),
    Case("square", ("strictly before", "by distance")),
    Case("whole tiles", ("window", "bias for all"), dtype="bfloat16"),
    Case("wide"),
    Case("tall", ("scale",)),
    Case("one query", ("causal", "by key"), "at the end"),
    Case("one key"),
    Case("width 80", ("array of heads",)),
    Case("width 256", ("bias for all",)),
    Case("square", ("nothing", "slopes")),
    Case("square", ("later queries", "by two blocks")),
    Case("square", ("later keys", "gain")),
    Case("square", ("block mask", "by query")),
    Case("square", ("prefix", "causal table")),
    Case("square", ("strictly before", "root")),
    Case("square", ("causal", "by pair", "scale")),
    Case("wide", ("window", "slope", "sink"), "keys moved"),
    Case("wide", ("array of keys", "bias of keys")),
    Case("tall", ("from_array", "bias of examples")),
    Case("tall", ("bias that hides", "dropout")),
]
IN_MAKE_TEST = 5
HERE = Target("cpu", is_divided=False)


@pytest.fixture
def strict():
    clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        interpreted_by(patch, STRICT)
        # Its callbacks are in order, which a program that is traced in a lowering cannot say.
        patch.setattr(_KernelOperation, "expand", lambda self, *args: self.on(HERE, *args))
        patch.setattr(
            _KernelOperation,
            "computed",
            lambda self, kernel, target, function, *args: function(self.layout, *args),
        )
        yield patch
    pltpu.reset_tpu_interpret_mode_state()
    clear_caches()


@pytest.mark.parametrize(
    "case", CASES if os.environ.get("EVERY_CASE") else CASES[:IN_MAKE_TEST], ids=str
)
def test_the_strict_interpreter_reports_nothing(case, strict):
    assert_near(case, results(case, "mosaic_tpu"))


SMALL = Case("square", ("causal",))


def test_a_sum_that_is_never_set_to_zero_is_seen(strict):
    strict.setattr(Visit, "has", lambda visit, flag: (visit.flags & flag & ~FIRST) != 0)
    with pytest.raises(AssertionError, match="is not finite"):
        assert_near(SMALL, results(SMALL, "mosaic_tpu"))


def test_a_block_past_the_end_is_seen(strict):
    def past_the_end(kind, tile, shape, block=launch._block):
        size, at = block(kind, tile, shape)
        return size, (lambda visit: (visit.column + 2, 0)) if kind == "key rows" else at

    strict.setattr(launch, "_block", past_the_end)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"(?i)out-of-bounds"):
        results(SMALL, "mosaic_tpu")


def test_two_cores_that_write_one_block_are_seen(strict):
    def first_head(place, heads, number):
        return [number * 0] * len(place.grouped)

    strict.setattr(launch._Place, "_levels", first_head)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"(?i)race"):
        results(SMALL, "mosaic_tpu")


def test_there_are_as_many_cases_as_promised():
    assert len(set(map(str, CASES))) == len(CASES) >= 20
