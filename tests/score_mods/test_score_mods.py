"""Score mods against their formulas in float64 numpy, with gradients of all parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax import score_mods
from attn_jax._base import tables
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal, assert_within

T, S = 5, 7
I, J = np.arange(3, 3 + T), np.random.default_rng(1).permutation(13)[:S]
DISTANCE = J[None, :] - I[:, None]


def apply(mod, logits, i=I, j=J):
    """A score mod on every pair."""
    i, j = jnp.asarray(i, jnp.int32), jnp.asarray(j, jnp.int32)
    ordered = tables.order(mod, tables.Rows(i.size, j.size, i, j))
    return tables.on_pairs(ordered, logits, i[:, None], j[None, :])


def bucket(distance: int, buckets: int, bidirectional: bool, max_distance: int) -> int:
    """The bucket function of T5's code, for one number."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        n = abs(distance)
    else:
        n = max(-distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    wide = math.log(n / exact) / math.log(max_distance / exact) * (buckets - exact)
    return first + min(exact + math.floor(wide + 1e-9), buckets - 1)


BUCKETS = np.vectorize(lambda d: bucket(d, 8, True, 16))(DISTANCE)
BUCKETS_BACKWARDS = np.vectorize(lambda d: bucket(d, 8, False, 16))(DISTANCE)


def triple(logit, i, j):
    return 3 * logit


def relative(table, bidirectional):
    return score_mods.relative_bias(table, bidirectional=bidirectional, max_distance=16)


# A score mod made from its parameter (a slope, a table, a bias), and its formula in numpy.
CASES = {
    "soft_cap": (
        lambda slope, table, bias: score_mods.soft_cap(slope),
        lambda x, slope, table, bias: slope * np.tanh(x / slope),
    ),
    "alibi": (
        lambda slope, table, bias: score_mods.alibi(slope),
        lambda x, slope, table, bias: x - slope * np.abs(DISTANCE),
    ),
    "relative": (
        lambda slope, table, bias: relative(table, True),
        lambda x, slope, table, bias: x + table[BUCKETS],
    ),
    "relative, backwards": (
        lambda slope, table, bias: relative(table, False),
        lambda x, slope, table, bias: x + table[BUCKETS_BACKWARDS],
    ),
    "dense": (
        lambda slope, table, bias: score_mods.dense_bias(bias),
        lambda x, slope, table, bias: x + bias[I][:, J],
    ),
    "dense, one row": (
        lambda slope, table, bias: score_mods.dense_bias(bias[:1]),
        lambda x, slope, table, bias: x + bias[0, J],
    ),
    "chain": (
        lambda slope, table, bias: score_mods.alibi(slope) >> score_mods.soft_cap(2.0) >> triple,
        lambda x, slope, table, bias: 3 * 2 * np.tanh((x - slope * np.abs(DISTANCE)) / 2),
    ),
    "callable first": (
        lambda slope, table, bias: triple >> score_mods.soft_cap(slope),
        lambda x, slope, table, bias: slope * np.tanh(3 * x / slope),
    ),
}


def parameters(dtype=jnp.float64):
    logits, table, bias = draw(0, (T, S), (8,), (9, 13), dtype=dtype)
    return logits, jnp.asarray(1.7, dtype), table, bias


@pytest.mark.parametrize("name", CASES)
def test_score_mods_follow_their_formulas_at_any_positions(name, x64):
    logits, *learned = parameters()
    make, formula = CASES[name]
    expected = formula(*map(np.asarray, (logits, *learned)))
    mod = make(*learned)
    assert_close(apply(mod, logits), expected)
    hoisted = score_mods.as_pytree(mod, jnp.float64)
    assert_close(jax.jit(apply)(hoisted, logits), expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_score_mods_keep_the_dtype_of_the_logit(name, dtype):
    logits, *learned = parameters(jnp.float32)
    make, _ = CASES[name]
    hoisted = score_mods.as_pytree(make(*learned), dtype)
    out = apply(hoisted, logits.astype(dtype))
    assert out.dtype == dtype
    assert np.isfinite(np.asarray(out, np.float32)).all()


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_all_parameters_are_those_of_finite_differences(name, x64):
    logits, *learned = parameters()
    (weights,) = draw(1, (T, S))
    make, _ = CASES[name]

    def loss(logits, *learned):
        logits, *learned = map(jnp.asarray, (logits, *learned))
        mod = score_mods.as_pytree(make(*learned), jnp.float64)
        return jnp.sum(weights * apply(mod, logits))

    jax.test_util.check_grads(loss, (logits, *learned), order=1, modes=("rev",))


def test_each_entry_of_the_table_gets_the_gradient_of_its_bucket(x64):
    table, weights = draw(2, (8,), (T, S))

    def loss(table):
        mod = score_mods.relative_bias(table, bidirectional=True, max_distance=16)
        return jnp.sum(weights * apply(mod, jnp.zeros((T, S))))

    expected = np.zeros(8)
    for t in range(T):
        for s in range(S):
            expected[bucket(int(DISTANCE[t, s]), 8, True, 16)] += weights[t, s]
    assert_close(jax.grad(loss)(table), expected, gradient=True)


def test_slopes_of_eight_heads_are_those_of_the_paper():
    printed = [1 / 2**n for n in range(1, 9)]
    assert_equal(score_mods.alibi_slopes(8), np.array(printed, np.float32))


def test_slopes_of_twelve_heads_interleave_those_of_sixteen():
    eight, sixteen = score_mods.alibi_slopes(8), score_mods.alibi_slopes(16)
    assert_equal(sixteen, np.float32(2.0) ** (-np.arange(1, 17, dtype=np.float32) / 2))
    twelve = np.concatenate([eight, sixteen[:8:2]])
    assert_equal(score_mods.alibi_slopes(12), twelve)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (20, 50), (4, 3)])
def test_buckets_are_those_of_the_code_of_t5(bidirectional, buckets, max_distance):
    distances = np.arange(-2 * max_distance, 2 * max_distance + 1)
    expected = [bucket(int(d), buckets, bidirectional, max_distance) for d in distances]
    options = {"num_buckets": buckets, "max_distance": max_distance}
    given = score_mods.relative_bucket(
        jnp.asarray(distances), bidirectional=bidirectional, **options
    )
    assert_equal(given, np.array(expected, np.int32))
    assert max(expected) == buckets - 1


def test_two_lambdas_that_do_the_same_are_compiled_once():
    traces = []

    @jax.jit
    def at_distance_two(mod):
        traces.append(mod)
        return mod(jnp.float32(5), jnp.int32(3), jnp.int32(1))

    def falls(slope):
        return lambda x, i, j: x - slope * (i - j).astype(x.dtype)

    slopes = [jnp.float32(0.5), jnp.float32(1.0)]
    mods = [score_mods.as_pytree(falls(slope), jnp.float32) for slope in slopes]
    assert [float(at_distance_two(mod)) for mod in mods] == [4.0, 3.0]
    mods = [score_mods.as_pytree(score_mods.alibi(slope), jnp.float32) for slope in (2, 1.5)]
    assert [float(at_distance_two(mod)) for mod in mods] == [1.0, 2.0]
    assert len(traces) == 2


def test_score_mods_take_leading_axes_for_batch_and_heads():
    slopes, table, bias = (
        score_mods.alibi_slopes(4)[None],
        jnp.zeros((2, 4, 8)),
        jnp.zeros((4, 3, 5)),
    )
    assert jax.tree.leaves(score_mods.alibi(slopes))[0].shape == (1, 4)
    mod = score_mods.relative_bias(table, bidirectional=True, max_distance=16)
    assert jax.tree.leaves(mod)[0].shape == (2, 4, 8)
    assert jax.tree.leaves(score_mods.dense_bias(bias))[0].shape == (4, 3, 5)
    out = jax.vmap(lambda slope: apply(score_mods.alibi(slope), jnp.zeros((T, S))))(slopes[0])
    assert_within(out[1], (-np.abs(DISTANCE) / 16).astype(np.float32), 0)


def test_a_dense_bias_gives_nan_past_its_end():
    out = apply(score_mods.dense_bias(jnp.zeros((2, 3))), jnp.ones((2, 2)), [0, 1], [2, 3])
    assert_equal(out, np.array([[1, np.nan], [1, np.nan]], np.float32))


def test_printing_a_chain_shows_the_order():
    def double(logit, i, j):
        return 2 * logit

    chain = double >> score_mods.alibi(0.5) >> score_mods.soft_cap(jnp.float32(3))
    assert repr(chain) == "(double >> alibi(slope=0.5) >> soft_cap(cap=3.0))"


WRONG = {
    "cap is zero": (lambda: score_mods.soft_cap(0.0), "cap must be a finite number > 0; got 0.0"),
    "slope is infinite": (lambda: score_mods.alibi(math.inf), "slope must be a finite number"),
    "no heads": (lambda: score_mods.alibi_slopes(0), "num_heads must be an int >= 1; got 0"),
    "table of integers": (
        lambda: score_mods.relative_bias(jnp.arange(8), bidirectional=True),
        "table",
    ),
    "odd table": (
        lambda: score_mods.relative_bias(jnp.zeros(7), bidirectional=True),
        "num_buckets must be a multiple of 2, at least 4; got 7",
    ),
    "short range": (
        lambda: score_mods.relative_bias(jnp.zeros(32), bidirectional=False, max_distance=16),
        "max_distance must be greater than 16",
    ),
    "bias of booleans": (lambda: score_mods.dense_bias(np.ones((2, 3), bool)), "bias"),
    "bias of one axis": (lambda: score_mods.dense_bias(jnp.zeros(3)), "bias"),
    "chain of a number": (lambda: score_mods.alibi(1.0) >> 2, "chains with|then"),
    "returns integers": (
        lambda: score_mods.as_pytree(lambda x, i, j: i - j, jnp.float32),
        r"score_mod must return one scalar of dtype float32.*got int32\[\]",
    ),
    "returns two": (
        lambda: score_mods.as_pytree(lambda x, i, j: (x, x), jnp.float32),
        "score_mod must return one scalar",
    ),
    "is a number": (lambda: score_mods.as_pytree(2.0, jnp.float32), "score_mod"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name):
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
