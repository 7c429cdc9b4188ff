"""`tune`: which tile it chooses, what it stores, and that later calls use it."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import _tune
from attn_jax._base.grid import TileShape
from attn_jax._engine import measured_tiles
from tests.helpers.tolerance import assert_close

T, S, N, K, H, V = 300, 260, 4, 2, 8, 3
SMALL = [(64, 128), (160, 32)]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", str(tmp_path))
    return tmp_path / "tiles.json"


@pytest.fixture
def times(monkeypatch):
    """Replaces the clock: `times(a, b, …)` are the seconds of the candidates in their order."""

    def use(*seconds):
        def measured(programs):
            runs = [tile for tile, run in programs.items() if run is not None]
            return {tile: 1e3 * time for tile, time in zip(runs, seconds, strict=True)}

        monkeypatch.setattr(_tune, "_milliseconds", measured)

    return use


def heads():
    rngs = jax.random.split(jax.random.key(0), 3)
    sizes = (1, T, N, H), (1, S, K, H), (1, S, K, V)
    return [jax.random.normal(rng, size) for rng, size in zip(rngs, sizes, strict=True)]


def head():
    return [array[0, :, 0] for array in heads()]


def test_the_fastest_candidate_is_chosen_and_stored(path, times):
    times(0.010, 0.004, 0.006)
    tuning = attn_jax.tune(*heads(), candidates=SMALL)
    assert tuning.milliseconds == {None: 10.0, (64, 128): 4.0, (160, 32): 6.0}
    assert tuning.chosen == (64, 128)
    assert tuning.path == path
    stored = measured_tiles.read()
    assert {*stored.values()} == {(64, 128)}
    widths = {(where.head_dim, where.value_dim, where.T, where.S) for where in stored}
    assert widths == {(H, V, 512, 512)}


def test_later_calls_use_the_stored_tile_for_output_and_gradients(path, times):
    times(0.010, 0.004, 0.006)
    query, key, value = heads()
    loss = jax.grad(lambda *x: jnp.sum(attn_jax.dot_product_attention(*x) ** 2), (0, 1, 2))
    before = loss(query, key, value)
    before_text = _program(query, key, value)
    attn_jax.tune(query, key, value, candidates=SMALL)
    jax.clear_caches()
    after = _program(query, key, value)
    assert "x64x96xf32" in after  # 300 queries in 5 parts of 64, 260 keys in 3 of 96
    assert "x64x96xf32" not in before_text
    assert attn_jax.explain(query, key, value).tiles == N * 5 * 3
    for one, other in zip(before, loss(query, key, value), strict=True):
        assert_close(one, other, gradient=True, roundings=4)
    jax.clear_caches()


def _program(query, key, value) -> str:
    def both(*arrays):
        out, pull = jax.vjp(attn_jax.dot_product_attention, *arrays)
        return out, *pull(out)

    return jax.jit(both).lower(query, key, value).as_text()


def test_a_gain_below_three_percent_is_no_gain_and_removes_an_earlier_result(path, times):
    times(0.010, 0.004, 0.006)
    attn_jax.tune(*head(), candidates=SMALL)
    assert measured_tiles.read()
    times(0.010, 0.0098, 0.012)
    tuning = attn_jax.tune(*head(), candidates=SMALL)
    assert tuning.chosen is None
    assert not measured_tiles.read()


def test_causal_calls_count_apart_from_others(path, times):
    times(0.010, 0.004, 0.006)
    places = {"query_position": jnp.arange(T), "key_position": jnp.arange(S)}
    attn_jax.tune(*head(), mask=attn_jax.masks.causal(), **places, candidates=SMALL)
    assert {where.compares_positions for where in measured_tiles.read()} == {True}


def test_options_and_bias_are_part_of_what_is_measured(path, monkeypatch):
    programs = []

    def noted(given):
        programs.extend(given.values())
        return dict.fromkeys(given, 1.0)

    monkeypatch.setattr(_tune, "_milliseconds", noted)
    query, key, value = heads()
    bias = jax.random.normal(jax.random.key(1), (1, N, T, S))
    attn_jax.tune(query, key, value, bias, scale=0.7, candidates=SMALL)
    call = functools.partial(attn_jax.dot_product_attention, scale=0.7)
    out, pull = jax.vjp(lambda *x: call(*x, bias), query, key, value)
    for got, wanted in zip(programs[1](), (out, *pull(jnp.ones_like(out))), strict=True):
        assert_close(got, wanted, gradient=True, roundings=4)


def test_the_median_of_turns_decides(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_tune.time, "perf_counter", lambda: now[0])

    def program(seconds):
        durations = iter([seconds] * 4 + [9.0] + [seconds] * 9)  # one slow moment

        def run():
            now[0] += next(durations)

        return run

    measured = _tune._milliseconds({None: program(0.5), (64, 128): program(0.25), (8, 8): None})
    assert measured == {None: 500.0, (64, 128): 250.0}


def test_a_tile_that_the_compiler_refuses_is_shown_and_not_chosen(path, times, monkeypatch):
    compiled = _tune._compiled

    def refusing(attention, arrays, tile):
        program, asked = compiled(attention, arrays, tile)
        return (None if tile == (64, 128) else program), asked

    monkeypatch.setattr(_tune, "_compiled", refusing)
    times(0.010, 0.006)
    tuning = attn_jax.tune(*head(), candidates=SMALL)
    assert tuning.milliseconds[64, 128] is None
    assert tuning.chosen == (160, 32)
    assert "64×128            refused" in repr(tuning)


def test_a_refusal_of_the_compiler_is_caught_but_not_that_of_the_librarys_own_choice():
    class Program:
        def lower(self, *_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: vmem")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tune.jax, "jit", lambda _: Program())
        assert _tune._compiled(lambda: 0, (), TileShape(64, 128)) == (None, {})
        with pytest.raises(jax.errors.JaxRuntimeError, match="vmem"):
            _tune._compiled(lambda: 0, (), None)


def test_the_table_says_what_was_chosen_and_where_it_is(path):
    tuning = attn_jax.Tuning({None: 4.0, (64, 128): 3.0}, (64, 128), "cpu", path)
    lines = repr(tuning).splitlines()
    assert lines[0].split() == ["library's", "choice", "4.000", "ms"]
    assert lines[1].split() == ["64×128", "3.000", "ms", "chosen"]
    assert str(path) in lines[2]
    assert "<table" in tuning._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        tuning.device = "gpu"


def test_each_candidate_is_logged_and_nothing_is_printed(path, caplog, capsys):
    caplog.set_level(logging.INFO, logger="attn_jax.tune")
    attn_jax.tune(*head(), candidates=[(64, 128)])
    lines = [record.message for record in caplog.records if record.name == "attn_jax.tune"]
    assert [line.split(" takes ")[0] for line in lines] == ["library's choice", "64×128"]
    assert capsys.readouterr().out == ""


def test_a_place_that_cannot_be_written_is_a_warning_and_the_result_is_returned(times, monkeypatch):
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", "/dev/null/none")
    times(0.010, 0.004, 0.006)
    with pytest.warns(RuntimeWarning, match="/dev/null/none/tiles.json"):
        tuning = attn_jax.tune(*head(), candidates=SMALL)
    assert tuning.chosen == (64, 128)
    assert tuning.path is None
    assert "not stored" in repr(tuning)


def test_a_file_of_another_program_is_not_overwritten(path, times):
    path.write_text("[]")
    times(0.010, 0.004, 0.006)
    with pytest.warns(RuntimeWarning, match="did not write"):
        assert attn_jax.tune(*head(), candidates=SMALL).path is None
    assert path.read_text() == "[]"


def test_default_candidates_fit_the_call_and_leave_out_huge_tiles():
    query, key, _ = (jnp.zeros((2, 500, 3, 1)), jnp.zeros((2, 5000, 3, 1)), None)
    found = _tune._default_candidates(query, key)
    assert (128, 128) in found
    assert (256, 512) in found
    assert max(tile.queries for tile in found) == 500
    many = _tune._default_candidates(jnp.zeros((64, 4096, 1, 1)), jnp.zeros((64, 4096, 1, 1)))
    assert max(4 * 64 * np.prod(tile) for tile in many) <= 512 * 2**20


BLOCKS = attn_jax.block_mask(attn_jax.masks.key_padding(9), T, S, tile=(64, 128))


@pytest.mark.parametrize(
    "options", [{"mask": BLOCKS}, {"implementation": "reference"}], ids=["blocks", "reference"]
)
def test_a_call_without_a_choice_of_tiles_is_refused(path, options):
    with pytest.raises(ValueError, match="no tile shape to choose"):
        attn_jax.tune(*head(), **options, candidates=SMALL)
    assert not path.exists()


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("candidate", [(64,), (64, 0), (64, 1.5)])
def test_candidates_are_pairs_of_positive_integers(candidate):
    with pytest.raises(ValueError, match="candidates"):
        attn_jax.tune(*head(), candidates=[candidate])


def test_tuning_inside_jit_is_refused():
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda x: attn_jax.tune(x, x, x).chosen)(jnp.zeros((300, 4)))
