"""No option is ignored: each one alone changes the result and its gradients, or raises.

A new option of a function fails the first test until it has a row in the table.
"""

import functools
import inspect
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods, scores
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_differs

S = T  # so that masks of positions need no positions


class Live(NamedTuple):
    """`option` set to `value`, with `needs`; compared with `needs` alone, or with `before`."""

    option: str
    value: Any
    needs: dict[str, Any] = {}  # noqa: RUF012
    before: Any = None


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def key(seed):
    return jax.random.key(seed)


CAUSAL = masks.causal()
QUERIES, KEYS = {"query_position": jnp.arange(T)}, {"key_position": jnp.arange(S)}
SAME = {"mask": masks.segments(jnp.arange(S) // 2)}
DROPS = {"dropout_rate": 0.5, "dropout_rng": key(0)}
SHARED = [
    Live("score_mod", score_mods.soft_cap(0.5)),
    Live("score_mod", lambda logit, i, j: logit - abs(i - j).astype(logit.dtype)),
    Live("scale", 0.9),
    Live("scale", jnp.float32(0.9)),
    Live("dropout_rng", key(0), {"dropout_rate": 0.5}, before=key(1)),
    Live("query_row", jnp.arange(T) + 1, SAME),
    Live("key_row", jnp.arange(S)[::-1], SAME),
    Live("query_row", jnp.arange(T) + 1, DROPS),
    Live("key_row", jnp.arange(S) + 1, DROPS),
]
OF_HEADS = [
    *SHARED,
    Live("bias", numbers(1, B, N, T, S)),
    Live("bias", numbers(2, 1, N, 1, S)),
    Live("mask", jnp.asarray(np.arange(S) != 1)[None, None, None]),
    Live("mask", masks.causal()),
    Live("mask", attn_jax.block_mask(CAUSAL, T, S, tile=(2, 2))),
    Live("is_causal", True),
    Live("query_seq_lengths", jnp.array([T - 2, T - 1])),
    Live("key_value_seq_lengths", jnp.array([S - 2, S - 1])),
    Live("local_window_size", 1),
    Live("local_window_size", (S, 0)),
    Live("local_window_size", (0, S)),
    Live("query_position", jnp.arange(T) - 1, {"is_causal": True, **KEYS}, before=jnp.arange(T)),
    Live("key_position", jnp.arange(S)[::-1], {"is_causal": True, **QUERIES}, before=jnp.arange(S)),
    Live(
        "query_position", jnp.arange(T) + 1, {"local_window_size": 1, **KEYS}, before=jnp.arange(T)
    ),
    Live("sink", jnp.linspace(0.0, 1.0, N)),
]
OF_ONE = [
    *SHARED,
    Live("score", scores.dot),
    Live("score", partial(scores.additive, out_kernel=jnp.ones(H))),
    Live("mask", jnp.asarray(np.arange(S) != 1)[None]),
    Live("mask", CAUSAL),
    Live("mask", lambda i, j: j != 1),
    Live("query_position", jnp.arange(T) - 1, {"mask": CAUSAL, **KEYS}, before=jnp.arange(T)),
    Live("key_position", jnp.arange(S)[::-1], {"mask": CAUSAL, **QUERIES}, before=jnp.arange(S)),
    Live(
        "query_position",
        jnp.arange(T) * 2,
        {"score_mod": score_mods.alibi(0.5), **KEYS},
        before=jnp.arange(T),
    ),
    Live("sink", 0.0),
    Live("sink", jnp.float32(0.0)),
]
RAISES = [
    ("dropout_rate", 0.5, "dropout_rng"),
    ("implementation", "none such", "implementation"),
]
FUNCTIONS = {
    attn_jax.dot_product_attention: (OF_HEADS, [(B, T, N, H), (B, S, K, H), (B, S, K, V)]),
    attn_jax.attend: (OF_ONE, [(T, H), (S, H), (S, V)]),
    attn_jax.attend_with_logsumexp: (OF_ONE, [(T, H), (S, H), (S, V)]),
}
ROWS = [(function, row) for function, (rows, _) in FUNCTIONS.items() for row in rows]


def name(value) -> str:
    return value.option if isinstance(value, Live) else getattr(value, "__name__", None)


@pytest.mark.parametrize("function", FUNCTIONS, ids=name)
def test_every_option_has_a_row(function):
    arrays = {"query", "key", "value"}
    options = set(inspect.signature(function).parameters) - arrays
    live = {row.option for row in FUNCTIONS[function][0]}
    assert live | {option for option, _, _ in RAISES} == options


def everything(function, options, implementation):
    """Output, log-sum-exp if it is returned, and the gradients of query, key and value."""
    arrays = draw(0, *FUNCTIONS[function][1], dtype=jnp.float32)
    attention = partial(function, implementation=implementation, **options)
    if function is attn_jax.attend:  # passes all its options to attend_with_logsumexp
        return [attention(*arrays)]

    @jax.jit
    def results(*arrays):
        out, transpose = jax.vjp(attention, *arrays)
        cotangents = jax.tree.map(lambda leaf: draw(1, leaf.shape, dtype=leaf.dtype)[0], out)
        return [*jax.tree.leaves(out), *transpose(cotangents)]

    return results(*arrays)


@functools.cache
def by_default(function, implementation):
    return everything(function, {}, implementation)


def without(row, function, implementation):
    """The same call without the option."""
    if not row.needs:
        return by_default(function, implementation)
    before = {} if row.before is None else {row.option: row.before}
    return everything(function, row.needs | before, implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("function", "row"), ROWS, ids=name)
def test_an_option_alone_changes_the_result_and_its_gradients(function, row, implementation):
    after = everything(function, row.needs | {row.option: row.value}, implementation)
    before = without(row, function, implementation)
    for place, pair in enumerate(zip(after, before, strict=True)):
        is_logsumexp = function is attn_jax.attend_with_logsumexp and place == 1
        if "dropout_rate" not in row.needs or not is_logsumexp:  # dropout comes after the softmax
            assert_differs(*(jnp.where(jnp.isfinite(array), array, 0) for array in pair))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=name)
@pytest.mark.parametrize(("option", "value", "message"), RAISES)
def test_an_option_that_can_do_nothing_alone_raises(
    function, option, value, message, implementation
):
    arrays = draw(0, *FUNCTIONS[function][1], dtype=jnp.float32)
    options = {"implementation": implementation, option: value}
    with pytest.raises((ValueError, TypeError), match=message):
        function(*arrays, **options)
