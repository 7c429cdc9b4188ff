"""Equal functions and types compile once; the log gives the reason for each compilation."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax._base import hoist
from attn_jax._engine.one_head import output_jitted
from tests.helpers import oracle
from tests.helpers.tolerance import assert_close, assert_differs

T, S, H = 3, 4, 2
QUERY, KEY = (np.random.default_rng(seed).normal(size=(rows, H)) for seed, rows in ((0, T), (1, S)))
AT = jnp.arange(1, 1 + T)
PLACE = {"query_position": AT, "key_position": jnp.arange(S)}


def attention(score_mod, query=QUERY):
    query, key = jnp.asarray(query, jnp.float32), jnp.asarray(KEY, jnp.float32)
    return attn_jax.attend(query, key, key, score_mod=score_mod, **PLACE)


def by_jvp(slope: float, bend: float = 0.0):
    """x ↦ x with a custom first and second derivative; each call makes a new function."""

    @jax.custom_jvp
    def derivative(x):
        return jnp.full_like(x, slope)

    @derivative.defjvp
    def _(primals, tangents):
        return derivative(*primals), bend * tangents[0]

    @jax.custom_jvp
    def same(x):
        return 1 * x

    @same.defjvp
    def _(primals, tangents):
        return same(*primals), derivative(*primals) * tangents[0]

    return lambda logit, i, j: same(logit)


def by_vjp(slope: float):
    """x ↦ x with a custom gradient."""

    @jax.custom_vjp
    def same(x):
        return 1 * x

    same.defvjp(lambda x: (same(x), None), lambda _, cotangent: (slope * cotangent,))
    return lambda logit, i, j: same(logit)


def by_relu(logit, i, j):
    return jax.nn.relu(logit)


def with_a_derivative_rule_that_raises():
    @jax.custom_vjp
    def same(x):
        return 1 * x

    def refuse(*_):
        raise NotImplementedError

    same.defvjp(refuse, refuse)
    return lambda logit, i, j: same(logit)


def compilations(make, calls: int = 3) -> int:
    """The number of programs compiled by `calls` eager calls, each with a new result of `make`."""
    before = output_jitted._cache_size()
    for _ in range(calls):
        attention(make())
    return output_jitted._cache_size() - before


ONCE = {
    "a named function with relu": lambda: by_relu,
    "a lambda with relu": lambda: lambda logit, i, j: 2 * jax.nn.relu(logit),
    "a lambda with softplus": lambda: lambda logit, i, j: jax.nn.softplus(logit),
    "a rule for jvp": lambda: by_jvp(2.0),
    "a rule for vjp": lambda: by_vjp(2.0),
    "a checkpoint": lambda: jax.checkpoint(lambda logit, i, j: jnp.sin(logit)),
    "a small constant in jit": lambda: jax.jit(lambda logit, i, j: logit * jnp.arange(3.0)[1]),
}


@pytest.mark.parametrize("name", ONCE)
def test_equal_functions_compile_once(name):
    assert compilations(ONCE[name]) <= 1


def test_relu_in_a_score_mod_is_that_of_the_oracle():
    expected = oracle.attention(QUERY, KEY, KEY, score_mod=lambda logit, i, j: max(logit, 0.0))[0]
    assert_close(attention(by_relu), expected, dtype=jnp.float32)


def gradient(score_mod, order: int = 1):
    function = lambda query: attention(score_mod, query).sum()  # noqa: E731
    for _ in range(order):
        function = lambda query, f=function: jax.grad(f)(query).sum()  # noqa: E731
    return function(jnp.asarray(QUERY, jnp.float32))


@pytest.mark.parametrize("make", [by_jvp, by_vjp])
def test_functions_that_differ_only_in_their_derivative_rule_are_told_apart(make):
    one, other = (gradient(make(slope)) for slope in (1.0, 3.0))
    assert_differs(one, other)
    assert_close(np.asarray(other) / 3, np.asarray(one), dtype=jnp.float32)


def test_functions_that_differ_only_in_the_derivative_of_their_rule_are_told_apart():
    one, other = (gradient(by_jvp(1.0, bend), order=2) for bend in (0.0, 2.0))
    assert_differs(one, other)


def test_a_derivative_rule_that_raises_does_not_break_the_forward_pass():
    assert_close(
        attention(with_a_derivative_rule_that_raises()), attention(lambda logit, i, j: 1 * logit)
    )


def test_the_cache_of_programs_is_bounded_and_returns_the_first_of_equal_programs():
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    one, again, other = (hoist.hoist(lambda x, n=n: x + n, shape) for n in (17, 17, 18))
    assert one.program is again.program
    assert one.program != other.program
    assert hoist._first_equal.cache_info().maxsize == 1024


def test_the_log_names_the_argument_whose_change_made_a_call_compile(caplog):
    caplog.set_level(logging.DEBUG, "attn_jax.compile")
    x, lines = jnp.ones((7, 5)), []
    for rows, change in ((7, jnp.sin), (7, jnp.sin), (6, jnp.sin), (6, jnp.cos)):
        caplog.clear()
        options = {"score_mod": lambda logit, i, j, f=change: f(logit)}
        place = {"query_position": jnp.arange(rows), "key_position": jnp.arange(7)}
        attn_jax.attend(x[:rows], x, x, **place, **options)
        lines.append("\n".join(caplog.messages))
    first, again, fewer, other = lines
    assert "attention of one head compiles" in first
    assert again == ""
    assert "query is float32[6, 5], and was float32[7, 5]" in fewer
    assert "score_mod" in other
    assert "query is" not in other
    assert "compiles: operations is" in other
