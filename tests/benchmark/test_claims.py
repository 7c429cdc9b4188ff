"""Claims of speed and memory: a line passes by its numbers, and not if its peer is missing."""

import json

import jax
import jax.numpy as jnp
import pytest

from attn_jax.benchmark import __main__ as command
from attn_jax.benchmark import claims, jax_contenders, machine, measure, session, torch_contenders
from attn_jax.benchmark.claims import Memory, Speed, Verdict
from attn_jax.benchmark.measure import Entry, Row
from attn_jax.benchmark.shapes import QUICK, SHAPES, Case, Shape
from attn_jax.benchmark.timing import Spread

CAUSAL = Shape("causal", B=2, T=7, N=6, K=3, H=4, is_causal=True)


def spread(seconds: float) -> Spread:
    return Spread(median=seconds, lower=seconds, upper=seconds, samples=1)


def test_claims_name_contenders_and_cases_that_exist():
    entries = [entry for claim in claims.SPEED for entry in (claim.ours, claim.peer)]
    assert {entry.contender for entry in entries} <= {*measure.contenders(), claims.OURS}
    assert {entry.case.shape for entry in entries} <= set(SHAPES.values())
    faster = [claim.ours.case.shape for claim in claims.SPEED if claim.ratio >= 1]
    assert {(shape.B, shape.N, shape.H) for shape in faster} == {(1, 8, 64)}
    assert set(QUICK) <= set(SHAPES)


def test_every_claim_is_measured_in_one_bout():
    together = claims.groups(claims.SPEED)
    assert len({entries[0] for entries in together}) == len(together)
    for claim in claims.SPEED:
        (entries,) = [entries for entries in together if entries[0] == claim.ours]
        assert claim.peer in entries


def test_claims_can_be_chosen_by_shape():
    speed, memory = claims.select(["alibi-8k"])
    assert [(claim.ours.case.shape.name, claim.peer.contender) for claim in speed] == [
        ("alibi-8k", "torch FlexAttention")
    ]
    assert memory == []
    assert claims.select([]) == (claims.SPEED, claims.MEMORY)
    assert claims.select(["reference-8k-causal"])[1] == claims.MEMORY


OURS = Entry(Case(CAUSAL, "float32", False), claims.OURS)
PEER = Entry(Case(CAUSAL, "float32", False), "jax.nn")
TWICE = Speed(OURS, PEER, 2.0)


@pytest.mark.parametrize(("peer_seconds", "outcome"), [(0.199, "failed"), (0.201, "passed")])
def test_a_speed_claim_compares_medians(peer_seconds, outcome):
    verdict = TWICE.check({OURS: Row(OURS, spread(0.1)), PEER: Row(PEER, spread(peer_seconds))})
    assert verdict.outcome == outcome
    assert verdict.got == pytest.approx(10 * peer_seconds)


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {OURS: Row(OURS, spread(0.1))},
        {PEER: Row(PEER, spread(0.1))},
        {OURS: Row(OURS, spread(0.1)), PEER: Row(PEER, reason="is missing")},
        {OURS: Row(OURS, reason="failed"), PEER: Row(PEER, spread(0.1))},
    ],
)
def test_a_claim_without_both_sides_was_not_run(rows):
    verdict = TWICE.check(rows)
    assert (verdict.outcome, verdict.got) == ("not run", None)
    assert verdict.reason


def test_a_claim_takes_the_numbers_of_its_own_bout():
    other = Entry(Case(CAUSAL, "float32", True), claims.OURS)
    speed = [TWICE, Speed(other, OURS, 2.0)]
    rows = [
        *(Row(entry, spread(seconds)) for entry, seconds in ((OURS, 1.0), (PEER, 3.0))),
        *(Row(entry, spread(seconds)) for entry, seconds in ((other, 2.0), (OURS, 10.0))),
    ]
    verdicts = session._verdicts(speed, [], rows)
    assert [(verdict.claim, verdict.got) for verdict in verdicts] == [
        (speed[0], 3.0),
        (speed[1], 5.0),
    ]


def test_claims_hold_only_where_every_line_passed():
    passed, failed = Verdict(TWICE, 3.0, "passed"), Verdict(TWICE, 1.0, "failed")
    assert claims.all_passed([passed, passed])
    assert not claims.all_passed([passed, failed])
    assert not claims.all_passed([passed, Verdict(TWICE, None, "not run", "why")])
    assert not claims.all_passed([])


@pytest.mark.parametrize(
    ("grows", "megabytes", "got", "outcome"),
    [
        (False, {8192: 63}, 63, "passed"),
        (False, {8192: 65}, 65, "failed"),
        (True, {8192: 10, 32768: 40}, 1.0, "passed"),
        (True, {8192: 10, 32768: 45}, 1.125, "failed"),
        (True, {8192: None}, None, "not run"),
        (True, {8192: 10, 32768: None}, None, "not run"),
    ],
)
def test_memory_claims_compare_megabytes_and_growth_over_linear(grows, megabytes, got, outcome):
    def temp_bytes(T, backward):
        assert backward
        return megabytes[T] and megabytes[T] * 10**6

    verdict = Memory(backward=True, grows=grows).check(temp_bytes)
    assert (verdict.got, verdict.outcome) == (got, outcome)


def test_temporary_memory_is_that_of_the_compiled_call():
    def attention(query, key, value, bias):
        logits = jnp.einsum("BTNH,BSNH->BNTS", query, key)
        return jnp.einsum("BNTS,BSNH->BTNH", jax.nn.softmax(logits), value)

    shape = Shape("square", T=256, N=3, H=8)
    found = jax_contenders.temp_bytes(attention, shape, "float32", backward=False)
    assert 3 * 256 * 256 * 4 <= found <= 6 * 3 * 256 * 256 * 4


def test_claims_that_were_not_run_are_shown_and_fail_the_command(tmp_path, monkeypatch, capsys):
    peer = Entry(Case(CAUSAL, "float32", False), "torch SDPA")
    product, bandwidth = machine.matmul, machine.bandwidth
    monkeypatch.setattr(machine, "matmul", lambda dtype, size: product(dtype, 16))
    monkeypatch.setattr(machine, "bandwidth", lambda: bandwidth(1))
    monkeypatch.setattr(torch_contenders, "is_installed", lambda: False)
    monkeypatch.setattr(claims, "SPEED", [Speed(OURS, PEER, 1e-9), Speed(OURS, peer, 1e-9)])
    monkeypatch.setattr(claims, "MEMORY", [])
    assert command.main(["--claims", "--rounds", "3", "--out", str(tmp_path)]) == 1
    written = json.loads((tmp_path / "claims.json").read_text())
    assert [line["outcome"] for line in written["claims"]] == ["passed", "not run"]
    assert written["claims"][1]["reason"] == "torch SDPA torch is not installed"
    assert "not run" in capsys.readouterr().out
