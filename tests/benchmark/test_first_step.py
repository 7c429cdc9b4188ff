"""How much one trace of attention calls, and what `benchmark.first_step` measures."""

import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax.benchmark import first_step
from attn_jax.benchmark.first_step import CONTENDERS, Calls, calls, causal, gradient_of, lowered

# What it was when last counted, and a little more: a change that calls more should know it.
MOST = {"forward": Calls(242, 1520), "gradient": Calls(303, 3750)}


def test_what_is_called_is_counted():
    array = jnp.zeros((3, 4))
    assert calls(lambda: None) == Calls(0, 0)
    once = calls(lambda: attn_jax.scores.dot(array, array))
    twice = calls(lambda: [attn_jax.scores.dot(array, array) for _ in range(2)])
    assert once.distinct == twice.distinct > 0
    assert twice.all == 2 * once.all


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("what", MOST)
def test_a_first_trace_calls_no_more_functions_than_it_did(what):
    ours = CONTENDERS["attn_jax"]
    function = {"forward": causal(ours), "gradient": gradient_of(ours)}[what]
    counted = calls(lambda: lowered(function))
    assert 0 < counted.distinct <= MOST[what].distinct
    assert counted.distinct < counted.all <= MOST[what].all


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_stage_takes_time(name):
    seconds = first_step.first_step(name)
    assert len(seconds) == len(first_step.STAGES)
    assert min(seconds) > 0
