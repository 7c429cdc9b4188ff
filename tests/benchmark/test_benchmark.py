"""The benchmark: timing in turns, FLOPs, agreement of the contenders, complete reports."""

import functools
import itertools
import json
import math
import sys
import time

import jax
import numpy as np
import pytest

from attn_jax.benchmark import __main__ as command
from attn_jax.benchmark import machine, measure, session, torch_contenders
from attn_jax.benchmark.contender import Prepared
from attn_jax.benchmark.inputs import Inputs
from attn_jax.benchmark.jax_contenders import JaxContender
from attn_jax.benchmark.measure import Entry, Row
from attn_jax.benchmark.shapes import SHAPES, Case, Shape
from attn_jax.benchmark.timing import Budget, Spread, alternate
from tests.helpers.tolerance import assert_close, assert_within

GROUPED = Shape("grouped", B=2, T=7, N=6, K=3, H=4, is_causal=True)
WINDOW = Shape("window", T=9, N=4, K=2, H=5, is_causal=True, window=2)
BIASED = Shape("biased", B=3, T=5, S=8, N=2, H=4, pair_bias=True)
SLOPED = Shape("sloped", T=6, N=4, H=3, is_causal=True, alibi=True)
PADDED = Shape("padded", B=3, T=5, S=8, N=2, H=4, pair_bias=True, padding="mask")
LENGTHS = Shape("lengths", B=3, T=4, S=6, N=4, K=2, H=3, padding="lengths")
SHARED = Shape("shared", B=3, T=7, N=2, H=3, is_causal=True, padding="shared")
ALL = [GROUPED, WINDOW, BIASED, SLOPED, PADDED, LENGTHS, SHARED]
at_once = functools.partial(Budget, warm_seconds=0.0)
QUICKLY = at_once(rounds=3, sample_seconds=0.0)
EVERYONE = measure.contenders()


class Clock:
    """A clock that only runners advance."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def __call__(self) -> float:
        return self.now

    def runner(self, name, seconds):
        durations = itertools.cycle(seconds)

        def run(i):
            self.order.append((name, i))
            self.now += next(durations)

        return run


def spread(seconds: float) -> Spread:
    return Spread(median=seconds, lower=seconds, upper=seconds, samples=1)


def unmasked(shape: Shape) -> np.ndarray:
    i, j = np.mgrid[: shape.T, : shape.keys]
    reach = shape.T if shape.window is None else shape.window
    if shape.padding is None:
        lengths = [shape.keys] * shape.B
    else:  # half of the keys, three quarters, all of them; or three quarters for everybody
        full, half = shape.keys, shape.keys // 2
        lengths = [half, (half + full) // 2, full]
        lengths = [sum(lengths) // 3] * 3 if shape.padding == "shared" else lengths
    real = np.stack([j < length for length in lengths])
    return real & (j <= i) & (i - j <= reach) if shape.is_causal else real


def expected_output(shape: Shape, operands) -> np.ndarray:
    query, key, value, bias, _ = operands
    groups = shape.N // shape.kv_heads
    key, value = (np.repeat(part.astype(np.float64), groups, axis=2) for part in (key, value))
    logits = np.einsum("BTNH,BSNH->BNTS", query.astype(np.float64), key) / math.sqrt(shape.H)
    if bias is not None:
        logits = logits + bias.astype(np.float64)
    if shape.alibi:
        slopes = np.array([2 ** (-8 * (n + 1) / shape.N) for n in range(shape.N)])
        i, j = np.mgrid[: shape.T, : shape.keys]
        logits = logits - slopes[None, :, None, None] * (i - j)
    weights = np.where(unmasked(shape)[:, None], np.exp(logits), 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("BNTS,BSNH->BTNH", weights, value)


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_pairs_are_those_that_the_mask_leaves(shape):
    assert shape.pairs == unmasked(shape).sum()


def test_work_is_two_products_forward_and_five_more_backward():
    # 2 examples · 6 heads · 28 causal pairs · width 4, and 2 operations for each.
    assert Case(GROUPED, "float32", backward=False).flops == 2 * 2 * (2 * 6 * 28 * 4)
    assert Case(GROUPED, "float32", backward=True).flops == 7 * 2 * (2 * 6 * 28 * 4)


def test_least_bytes_are_operands_and_results_once():
    numbers = 3 * (5 + 5) * 2 * 4 + 3 * (8 + 8) * 2 * 4 + 2 * 5 * 8
    assert Case(BIASED, "float32", backward=False).least_bytes == 4 * numbers
    assert Case(BIASED, "bfloat16", backward=True).least_bytes == 2 * 2 * numbers


def test_contenders_take_turns_in_order_and_then_in_reverse():
    clock = Clock()
    runners = {name: clock.runner(name, [1.0]) for name in "abc"}
    alternate(runners, at_once(rounds=3), clock=clock)
    warm_up = 2 * len(runners)
    assert "".join(name for name, _ in clock.order[warm_up:]) == "abc" + "cba" + "abc"


def test_every_call_of_a_runner_has_another_number():
    clock = Clock()
    alternate({"a": clock.runner("a", [1.0])}, at_once(rounds=4, sample_seconds=3.0), clock=clock)
    assert [i for _, i in clock.order[2:]] == list(range(4 * 3))


def test_medians_and_quartiles_are_those_of_the_samples_without_the_warm_up():
    clock = Clock()
    seconds = [100.0, 100.0, 5.0, 1.0, 2.0, 4.0, 3.0]
    spreads = alternate({"a": clock.runner("a", seconds)}, at_once(rounds=5), clock=clock)
    assert spreads == {"a": Spread(median=3.0, lower=2.0, upper=4.0, samples=5)}


def test_a_sample_is_the_mean_of_as_many_calls_as_fill_it():
    clock = Clock()
    run = clock.runner("a", [9.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    spreads = alternate({"a": run}, at_once(rounds=1, sample_seconds=2.0), clock=clock)
    assert len(clock.order) == 2 + 4
    assert spreads["a"].median == 2.5


def test_calls_before_a_sample_do_not_count():
    clock = Clock()
    run = clock.runner("a", [9.0, 0.5, 7.0, 8.0, 1.0, 7.0, 8.0, 3.0])
    budget = Budget(rounds=2, sample_seconds=0.4, warm_seconds=0.9)
    assert alternate({"a": run}, budget, clock=clock)["a"].median == 2.0
    assert [i for _, i in clock.order[2:]] == list(range(6))


def test_patience_ends_a_bout_after_three_rounds_at_the_earliest():
    clock = Clock()
    budget = at_once(rounds=10, seconds=0.5)
    assert alternate({"a": clock.runner("a", [1.0])}, budget, clock=clock)["a"].samples == 3


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", EVERYONE)
def test_contenders_compute_what_the_definition_says(shape, name):
    inputs = Inputs(Case(shape, "float32", backward=False), seed=3)
    try:
        (actual,) = EVERYONE[name].prepare(inputs).results()
    except measure.Unsupported as reason:
        pytest.skip(f"{name} {reason}")
    expected = expected_output(shape, inputs.numpy[0]).astype(np.float32)
    assert_within(actual, expected, atol=1e-5)


def test_the_bias_has_a_gradient_and_the_results_come_in_the_order_of_the_operands():
    inputs = Inputs(Case(BIASED, "float32", backward=True), seed=4)
    results = EVERYONE["attn_jax reference"].prepare(inputs).results()
    assert [part.shape for part in results[1:]] == [part.shape for part in inputs.numpy[0][:4]]
    assert all(np.abs(part).max() > 0 for part in results)


def test_input_sets_differ_and_a_seed_draws_the_same_again():
    case = Case(GROUPED, "float32", backward=False)
    first, again = Inputs(case, seed=5), Inputs(case, seed=5)
    assert not np.array_equal(first.numpy[0].query, first.numpy[1].query)
    assert_close(first.numpy[1].query, again.numpy[1].query)


def bout(entries, field=EVERYONE):
    return measure.measure_group(entries, field, QUICKLY, matmul_size=16)


def test_a_missing_peer_is_reported_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(torch_contenders, "is_installed", lambda: False)
    case = Case(GROUPED, "float32", backward=False)
    missing, measured = bout([Entry(case, "torch SDPA"), Entry(case, "jax.nn")])
    assert (missing.spread, missing.reason) == (None, "torch is not installed")
    assert measured.spread.samples == 3
    assert measured.reason is None


class Sleeper:
    """A contender that sleeps for so many milliseconds and owns as many bytes."""

    def __init__(self, milliseconds):
        self.milliseconds = milliseconds
        self.name = f"sleeps {milliseconds}"

    def prepare(self, inputs):
        output = np.ones_like(inputs.numpy[0].query)
        return Prepared(
            run=lambda i: time.sleep(self.milliseconds / 1000),
            results=lambda: [output],
            compile_seconds=1.0,
            temp_bytes=self.milliseconds,
        )


def test_every_row_has_the_numbers_of_its_own_contender():
    field = {sleeper.name: sleeper for sleeper in (Sleeper(20), Sleeper(1), Sleeper(8))}
    rows = bout([Entry(Case(GROUPED, "float32", False), name) for name in field], field)
    assert [row.temp_bytes for row in rows] == [20, 1, 8]
    assert [row.spread.median >= row.temp_bytes / 1000 for row in rows] == [True] * 3
    assert rows[1].spread.median < rows[2].spread.median < rows[0].spread.median


def test_an_error_of_a_contender_is_a_row_with_its_first_line():
    def broken(shape):
        raise AssertionError("no such thing\nat all")

    case = Case(GROUPED, "float32", backward=False)
    field = {"broken": JaxContender("broken", broken)}
    (row,) = bout([Entry(case, "broken")], field)
    assert (row.spread, row.reason) == (None, "failed: AssertionError: no such thing")


@pytest.mark.parametrize("backward", [False, True])
def test_a_contender_that_computes_something_else_is_not_timed(backward):
    def unscaled(shape):
        return lambda query, key, value, bias: jax.nn.dot_product_attention(
            query, key, value, scale=1.0, is_causal=True
        )

    field = {**EVERYONE, "unscaled": JaxContender("unscaled", unscaled)}
    case = Case(GROUPED, "float32", backward)
    ours, other = bout([Entry(case, "jax.nn"), Entry(case, "unscaled")], field)
    assert ours.spread is not None
    assert other.spread is None
    assert other.reason.startswith("disagrees with the first contender by ")


def test_a_call_that_does_not_fit_in_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr(machine, "free_bytes", lambda: 10)
    case = Case(GROUPED, "float32", backward=True)
    (row,) = bout([Entry(case, "jax.nn")])
    assert row.spread is None
    assert "of temporary memory" in row.reason


def test_rates_are_work_by_the_median_and_the_share_of_the_product():
    row = Row(Entry(Case(GROUPED, "float32", False), "a"), spread(0.5), matmul_flops=16.0 * 2688)
    assert row.flops == 2 * 2 * (2 * 6 * 28 * 4) / 0.5 == 10752
    assert row.fraction == 0.25


def test_the_matrix_product_counts_two_operations_an_element():
    run, flops = machine.matmul("float32", 16)
    assert flops == 2 * 16 * 16 * 16
    assert run(0).shape == (16, 16)


def test_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch):
    ticks = itertools.count(step=0.5)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    assert machine.bandwidth(megabytes=3) == 2 * 3 * 2**20 / 0.5


@pytest.fixture
def tiny(monkeypatch):
    """The command line on one tiny shape, with a small matmul and array."""
    product, bandwidth = machine.matmul, machine.bandwidth
    monkeypatch.setattr(machine, "matmul", lambda dtype, size: product(dtype, 16))
    monkeypatch.setattr(machine, "bandwidth", lambda: bandwidth(1))
    monkeypatch.setitem(SHAPES, "tiny", GROUPED)


def test_the_command_writes_complete_json_and_a_picture(tiny, tmp_path, capsys):
    arguments = ["--shapes", "tiny", "--rounds", "3", "--seed", "7", "--out", str(tmp_path)]
    assert command.main([*arguments, "--dtypes", "float32"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"date", "processor", "cores", "device", "versions", "seed"} <= set(report)
    assert (report["seed"], report["versions"]["jax"]) == (7, jax.__version__)
    assert len(report["rows"]) == 2 * len(EVERYONE)
    for row in report["rows"]:
        numbers = (row["seconds"], row["flops_per_second"], row["fraction_of_matrix_product"])
        assert all(numbers) != bool(row["reason"])
    measured = [row for row in report["rows"] if row["contender"] == "jax.nn"]
    assert [row["direction"] for row in measured] == ["forward", "forward+backward"]
    assert all(row["seconds"]["samples"] == 3 and row["temp_bytes"] > 0 for row in measured)
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "grouped, float32, forward+backward" in printed
    begun = [line for line in printed.splitlines() if "rounds done; now" in line]
    assert begun == [
        "0 of 6 rounds done; now grouped, float32, forward",
        "3 of 6 rounds done; now grouped, float32, forward+backward",
    ]


def test_quick_starts_nothing_new_when_its_time_is_spent(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "QUICK_SECONDS", -1.0)
    assert command.main(["--quick", "--shapes", "tiny", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert {row["reason"] for row in rows} == {"the time of --quick was spent"}


def test_an_unknown_shape_is_refused_with_the_known_ones(capsys):
    assert command.main(["--shapes", "gpt7"]) == 2
    message = capsys.readouterr().err
    assert "gpt7" in message
    assert "gpt2" in message


@pytest.mark.parametrize("name", ["tyro", "rich", "matplotlib"])
def test_a_missing_tool_is_one_line_that_says_what_to_install(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert command.main([]) == 1
    message = f"python -m attn_jax.benchmark needs {name}: pip install 'attn-jax[benchmark]'\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("name", "needs"), [("mosaic_tpu", "it needs a TPU"), ("cudnn", "it needs an NVIDIA GPU")]
)
def test_a_kernel_of_an_accelerator_is_a_contender_that_says_what_it_needs(name, needs):
    if jax.default_backend() != "cpu":
        pytest.skip("the accelerator's own kernel can be a contender here")
    shape = Shape("others", T=160, S=192, N=2, K=1, H=8)
    inputs = Inputs(Case(shape, "bfloat16", backward=False), seed=0)
    with pytest.raises(measure.Unsupported, match=f"the platform is cpu, and {needs}"):
        EVERYONE[f"attn_jax {name}"].prepare(inputs)
