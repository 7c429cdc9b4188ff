"""Scores and score mods with bfloat16 or float16 arrays, against float64 without our code.

Each option captures one array in the dtype of the call, and its gradient is a sum over many pairs:
a sum in the narrow dtype would lose most of it.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import score_mods, scores
from tests.helpers.cases import IMPLEMENTATIONS

T, S, H, V = 60, 70, 8, 5
POSITION = np.arange(T) + 3
PLACE = {"query_position": jnp.asarray(POSITION), "key_position": jnp.arange(S)}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of `attend`, and its logits by the same formula on whole matrices in float64."""

    shape: tuple[int, ...]
    given: Callable
    logits: Callable


def scaled(query, key):
    return query @ key.T / np.sqrt(H)


def halved_and_doubled(array):
    """Arithmetic with a number, which takes the dtype of the array."""
    return array * 0.5 * 2


def narrow_score(weight):
    """A score that computes in its weight's own dtype where it can."""

    def score(query, key):
        weighed = query @ halved_and_doubled(weight).astype(query.dtype)
        return jnp.sum(weighed[:, None] * key[None], axis=-1)

    return score


def narrow_slope(slope):
    def score_mod(logit, i, j):
        distance = jnp.abs(i - j).astype(logit.dtype)
        return logit - halved_and_doubled(slope).astype(logit.dtype) * distance / 16

    return score_mod


DISTANCE = np.abs(POSITION[:, None] - np.arange(S)).astype(float)
SINGLE_BUCKETS = np.minimum(np.maximum(POSITION[:, None] - np.arange(S), 0), 7)

OPTIONS = {
    "score of one's own": Option(
        (H, H),
        lambda x: {"score": narrow_score(x)},
        lambda x, query, key: query @ x @ key.T,
    ),
    "concat": Option(
        (2 * H, 4),
        lambda x: {"score": lambda query, key: scores.concat(query, key, x, x[0])},
        lambda x, query, key: jnp.tanh((query @ x[:H])[:, None] + (key @ x[H:])[None]) @ x[0],
    ),
    "score_mod of one's own": Option(
        (),
        lambda x: {"score_mod": narrow_slope(x), **PLACE},
        lambda x, query, key: scaled(query, key) - x * DISTANCE / 16,
    ),
    "relative bias": Option(
        (8,),
        lambda x: {
            "score_mod": score_mods.relative_bias(x, bidirectional=False, max_distance=8),
            **PLACE,
        },
        lambda x, query, key: scaled(query, key) + x[SINGLE_BUCKETS],
    ),
    "soft cap": Option(
        (),
        lambda x: {"score_mod": score_mods.soft_cap(2 + jnp.square(x))},
        lambda x, query, key: (
            (2 + jnp.square(x)) * jnp.tanh(scaled(query, key) / (2 + jnp.square(x)))
        ),
    ),
    "scale": Option(
        (),
        lambda x: {"scale": jnp.square(x)},
        lambda x, query, key: jnp.square(x) * (query @ key.T),
    ),
}

OWN = ("score of one's own", "score_mod of one's own")
CALLS = [(name, jnp.bfloat16) for name in OPTIONS] + [(name, jnp.float16) for name in OWN]


def exact(option, x, query, key, value, cotangent):
    """The output and the gradient of x, by plain matrices."""

    def out(x):
        return jax.nn.softmax(option.logits(x, query, key), axis=-1) @ value

    result, transpose = jax.vjp(out, x)
    return result, *transpose(cotangent)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "dtype"), CALLS)
def test_arrays_of_half_precision_cost_a_few_roundings(x64, tiles, name, dtype, implementation):
    tiles(32, 24)
    option = OPTIONS[name]
    rng = np.random.default_rng(0)
    shapes = option.shape, (T, H), (S, H), (S, V), (T, V)
    narrow = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]

    @jax.jit
    def run(x, query, key, value, cotangent):
        def out(x):
            attention = partial(attn_jax.attend, implementation=implementation)
            return attention(query, key, value, **option.given(x))

        result, transpose = jax.vjp(out, x)
        return result, *transpose(cotangent)

    epsilon = float(jnp.finfo(dtype).eps)
    wanted = exact(option, *(array.astype(jnp.float64) for array in narrow))
    # For the output, weights and result are each rounded once. For the gradient, both operands of
    # its matmul are rounded too.
    for got, want, roundings in zip(run(*narrow), wanted, (2, 4), strict=True):
        assert got.dtype == dtype
        error = np.abs(np.asarray(got, np.float64) - np.asarray(want)).max()
        assert error <= roundings * epsilon * np.abs(np.asarray(want)).max()
