"""Predicted times: the counts behind them, how they scale, and what `--predict` prints."""

import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import _roofline, masks, score_mods
from attn_jax._base.grid import TileShape
from attn_jax._roofline import BY_KEY, BY_QUERY, CHIPS, FORWARD, Call, Tiles, tiles_of, work_of
from attn_jax._rule_cost import cost_of_mask, cost_of_score_mod
from attn_jax.benchmark import predict, session

CAUSAL = masks.causal()
SHAPE = TileShape(64, 32)


def call(T=1024, S=1024, **options):
    return Call(T, S, head_dim=16, value_dim=8, itemsize=2, **options)


@pytest.mark.parametrize("name", ["causal", "window", "documents"])
def test_visited_tiles_are_those_of_block_mask(name):
    rule = predict.calls()[name].mask
    counted = tiles_of(rule, 8192, 8192, TileShape(512, 256))
    lists = attn_jax.block_mask(rule, 8192, 8192, tile=(512, 256)).lists
    assert counted.visited == int(lists.full.sum() + lists.partial.sum())
    assert counted.partial == int(lists.partial.sum()) > 0


def test_twice_the_length_is_four_times_the_causal_tiles_and_twice_those_of_a_window():
    window = masks.sliding_window(100, 0)

    def visited(rule, T):
        return tiles_of(rule, T, T, TileShape(64, 64)).visited

    assert visited(CAUSAL, 4096) / visited(CAUSAL, 2048) == pytest.approx(4, rel=0.05)
    assert visited(window, 4096) / visited(window, 2048) == pytest.approx(2, rel=0.05)
    assert tiles_of(None, 130, 70, TileShape(64, 32)) == Tiles(9, 0, TileShape(64, 32))


def test_work_of_a_forward_pass():
    work = work_of(FORWARD, call(S=512), Tiles(10, 4, SHAPE), streams=True)
    pairs = 10 * 64 * 32
    assert work.flops == 2 * pairs * (16 + 8)
    assert work.bytes_moved == 2 * (1024 * (16 + 8) + 10 * 32 * (16 + 8))
    assert work.operations == 8 * pairs
    assert work.exponentials == pairs


def test_the_two_gradient_kernels_have_seven_matmuls():
    tiles = Tiles(10, 4, SHAPE)
    square = call()._replace(value_dim=16)
    flops = [work_of(one, square, tiles, streams=True).flops for one in (BY_QUERY, BY_KEY)]
    one_matmul = 2 * tiles.pairs * 16
    assert flops == [3 * one_matmul, 4 * one_matmul]


def test_a_kernel_by_key_reads_the_queries_of_each_tile():
    work = work_of(BY_KEY, call(S=512), Tiles(10, 4, SHAPE), streams=True)
    assert work.bytes_moved == 2 * (512 * 2 * (16 + 8) + 10 * 64 * (16 + 8))
    cached = work_of(BY_KEY, call(S=512), Tiles(10, 4, SHAPE), streams=False)
    assert cached.bytes_moved == 2 * (512 * 2 * (16 + 8) + 1024 * (16 + 8))


def test_masks_cost_something_in_partial_tiles_only():
    tiles = Tiles(10, 4, SHAPE)
    work = work_of(FORWARD, call(mask=CAUSAL), tiles, streams=True)
    assert work.operations == 8 * 10 * 64 * 32 + 2 * 4 * 64 * 32  # one comparison, one select


def test_the_operations_of_rules_are_counted_in_their_programs():
    table = jnp.arange(40.0)
    assert cost_of_mask(None) == (0, 0)
    assert cost_of_mask(CAUSAL) == (2, 0)
    assert cost_of_mask(lambda i, j: (i * i > 9) & (j > 3)) == (2, 0)  # the rest is of one side
    assert cost_of_score_mod(None, has_gradients=True) == (0, 0)
    alibi = cost_of_score_mod(score_mods.alibi(0.5), has_gradients=False)
    assert alibi == (4, 0)  # a tile of distances, and a subtraction
    assert cost_of_score_mod(lambda x, i, j: jnp.exp(x) + table[i], has_gradients=False) == (2, 1)


def test_the_derivative_of_a_score_mod_counts_too():
    forward = cost_of_score_mod(score_mods.soft_cap(3.0), has_gradients=False)
    both = cost_of_score_mod(score_mods.soft_cap(3.0), has_gradients=True)
    assert 1 <= forward.transcendental <= both.transcendental
    assert forward.operations < both.operations


def test_the_slowest_work_bounds_and_copies_overlap():
    time = _roofline.Prediction(matrix=3.0, memory=5.0, vector=1.0, exponential=2.0)
    assert (time.seconds, time.bound, time.seconds_in_turns) == (5.0, "memory", 6.0)
    fast = time._replace(memory=7.0)
    assert fast.seconds_in_turns == 7.0


# What other estimates said: microseconds of one head, T=8192, H=128, bfloat16, causal; and if
# nothing overlaps. They count six operations more for ALiBi in each gradient kernel, here four.
ESTIMATES = {
    ("v5e", "causal", False): ("matrix", 93, 162),
    ("v5e", "causal", True): ("matrix", 324, 487),
    ("v6e", "causal", False): ("vector", 42, 84),
    ("v6e", "causal, ALiBi", False): ("vector", 63, 105),
    ("v6e", "causal", True): ("vector", 105, 221),
    ("v6e", "causal, ALiBi", True): ("vector", 169, 284),
    ("H100", "causal", False): ("matrix", 18, 36),
    ("H100", "causal", True): ("matrix", 62, 103),
}


@pytest.mark.parametrize(("chip", "name", "backward"), ESTIMATES)
def test_predictions_agree_with_other_estimates_to_ten_percent(chip, name, backward):
    bound, microseconds, in_turns = ESTIMATES[chip, name, backward]
    _, work = predict.work(chip, predict.ours(chip, predict.calls()[name], backward))
    time = _roofline.predict(chip, work)
    assert time.bound == bound
    assert 1e6 * time.seconds == pytest.approx(microseconds, rel=0.1)
    assert 1e6 * time.seconds_in_turns == pytest.approx(in_turns, rel=0.1)


@pytest.mark.parametrize("backward", [False, True])
def test_predicted_seconds_is_the_time_in_the_table(backward):
    given = predict.calls()["causal"]
    _, work = predict.work("v6e", predict.ours("v6e", given, backward))
    expected = _roofline.predict("v6e", work).seconds
    assert _roofline.predicted_seconds("v6e", given, backward=backward) == expected


def test_an_unknown_chip_is_refused():
    with pytest.raises(ValueError, match="v5e, v6e, tpu7x, H100; got 'v1'"):
        _roofline.predicted_seconds("v1", call())


def test_other_libraries_refuse_what_they_cannot_compute():
    given = predict.calls()["causal, ALiBi"]
    tile = TileShape(128, 128)
    assert predict.splash("v6e", "causal, ALiBi", given, False, tile) == "cannot"
    assert predict.splash("H100", "causal", given, False, tile) == "TPU only"
    assert predict.tokamax("v6e", "causal, ALiBi", given, False) == "cannot"


def test_tokamax_reads_a_bias_for_alibi_on_hopper():
    given = predict.calls()
    _, plain = predict.work("H100", predict.tokamax("H100", "causal", given["causal"], False))
    name = "causal, ALiBi"
    visited, alibi = predict.work("H100", predict.tokamax("H100", name, given[name], False))
    assert alibi.bytes_moved - plain.bytes_moved == 2 * visited * 128 * 128


def test_splash_visits_all_causal_tiles_of_documents():
    given = predict.calls()["documents"]
    tile = TileShape(128, 128)
    visited, _ = predict.work("v6e", predict.splash("v6e", "documents", given, False, tile))
    assert visited == 64 * 65 // 2


def test_the_command_prints_a_predicted_time_for_every_chip_and_measures_nothing(
    capsys, monkeypatch
):
    monkeypatch.setattr(session.measure, "measure_group", None)
    assert session.run(session.Options(predict=True)) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("Predicted; nothing was measured.")
    for chip in CHIPS:
        (place,) = [n for n, line in enumerate(lines) if line.startswith(f"{chip}, predicted")]
        assert len(lines[place + 2 : place + 12]) == 10
    forward = next(line for line in lines if line.startswith("causal, forward"))
    assert forward.split()[2:8] == ["512²", "136", "92.7", "48.7", "47.8", "23.2"]
