"""Guarantees of every implementation: fully masked queries, masked NaN, positions, dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, scores
from tests.helpers.cases import IMPLEMENTATIONS, B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]


def operands(seed=0, dtype=jnp.float32):
    return draw(seed, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=dtype)


def one_head(seed=0, dtype=jnp.float32):
    return draw(seed, (T, H), (S, H), (S, V), dtype=dtype)


def output_and_gradients(function):
    """One executable for the output and all gradients, so that bits can be compared."""

    @jax.jit
    def both(*arrays):
        out, transpose = jax.vjp(function, *arrays)
        return out, transpose(jax.tree.map(jnp.ones_like, out))

    return both


FAR_AWAY = 100 + np.arange(S)
NOTHING_TO_READ = {
    "mask": {"mask": np.zeros((1, 1, 1, S), bool)},
    "no keys": {"key_value_seq_lengths": np.zeros(B, int)},
    "no queries": {"query_seq_lengths": np.zeros(B, int)},
    "all keys later": {"is_causal": True, "query_position": np.arange(T), "key_position": FAR_AWAY},
    "all keys far": {
        "local_window_size": 3,
        "query_position": np.arange(T),
        "key_position": FAR_AWAY,
    },
    "infinite bias": {"bias": np.full((1, N, T, S), -np.inf, np.float32)},
}


@pytest.mark.parametrize("options", NOTHING_TO_READ.values(), ids=NOTHING_TO_READ)
def test_fully_masked_queries_give_zeros_and_no_gradient(options, implementation):
    options = {n: jnp.asarray(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
    bias = options.pop("bias", jnp.ones((1, N, T, S)))
    attention = partial(attn_jax.dot_product_attention, implementation=implementation, **options)
    out, gradients = output_and_gradients(attention)(*operands(), bias)
    assert_equal(out, jnp.zeros((B, T, N, V)))
    for gradient in gradients:
        assert_equal(gradient, jnp.zeros_like(gradient))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_fully_masked_query_does_not_change_the_others(dtype, implementation):
    query, key, value = one_head(1, dtype)
    mask = jnp.ones((T, S), bool).at[2].set(False)

    def attention(query, key, value, slope):
        return attn_jax.attend_with_logsumexp(
            query,
            key,
            value,
            mask=mask,
            score_mod=lambda logit, i, j: logit - slope * (i - j).astype(logit.dtype),
            query_position=jnp.arange(T),
            key_position=jnp.arange(S),
            implementation=implementation,
        )

    (out, logsumexp), gradients = output_and_gradients(attention)(
        query, key, value, jnp.float32(0.5)
    )
    assert not jnp.any(out[2])
    assert logsumexp[2] == -jnp.inf
    assert not jnp.any(gradients[0][2])
    others = jnp.array([0, 1, 3, 4])
    for array in (out[others], logsumexp[others], *gradients):
        assert jnp.isfinite(array).all()
        assert jnp.any(array != 0)


def test_queries_without_keys_are_fully_masked(implementation):
    query, key, value = one_head()
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation)
    out, logsumexp = attention(query, key[:0], value[:0])
    assert_equal(out, jnp.zeros((T, V)))
    assert_equal(logsumexp, jnp.full(T, -jnp.inf))


def test_no_queries_at_all_give_no_output(implementation):
    query, key, value = operands()
    attention = partial(attn_jax.dot_product_attention, implementation=implementation)
    assert attention(query[:, :0], key, value).shape == (B, 0, N, V)
    assert attention(query[:0], key[:0], value[:0]).shape == (0, T, N, V)


UNREAD_KEYS, UNREAD_QUERIES = slice(S - 2, S), slice(T - 1, T)
HIDING = {
    "mask": {"mask": (np.arange(T)[:, None] < T - 1) & (np.arange(S)[None] < S - 2)},
    "lengths": {
        "query_seq_lengths": np.full(B, T - 1),
        "key_value_seq_lengths": np.full(B, S - 2),
    },
    "causal": {
        "is_causal": True,
        "query_position": np.arange(T),
        "key_position": np.arange(S),
        "query_seq_lengths": np.full(B, T - 1),
    },
}


@pytest.mark.parametrize("options", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
def test_poison_at_masked_keys_never_reaches_the_output(options, poison, implementation):
    options = {n: jnp.asarray(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
    if "mask" in options:
        options["mask"] = options["mask"][None, None]
    attention = partial(attn_jax.dot_product_attention, implementation=implementation, **options)
    both = output_and_gradients(attention)
    query, key, value = operands(2)
    (bias,) = draw(3, (B, N, T, S), dtype=jnp.float32)
    clean = both(query, key, value, bias)
    poisoned = both(
        query.at[:, UNREAD_QUERIES].set(poison),
        key.at[:, UNREAD_KEYS].set(poison),
        value.at[:, UNREAD_KEYS].set(poison),
        bias.at[..., UNREAD_KEYS].set(poison).at[:, :, UNREAD_QUERIES].set(poison),
    )
    for ours, wanted in zip(jax.tree.leaves(poisoned), jax.tree.leaves(clean), strict=True):
        assert jnp.isfinite(wanted).all()
        assert_equal(ours, wanted)
    _, (d_query, d_key, d_value, d_bias) = clean
    of_masked_keys = (
        d_query[:, UNREAD_QUERIES],
        d_key[:, UNREAD_KEYS],
        d_value[:, UNREAD_KEYS],
        d_bias[..., UNREAD_KEYS],
    )
    for gradient in of_masked_keys:
        assert_equal(gradient, jnp.zeros_like(gradient))


ADDITIVE = partial(scores.additive, out_kernel=jnp.linspace(-1.0, 1.0, H))


@pytest.mark.parametrize("score", [None, scores.dot, ADDITIVE], ids=["scaled", "dot", "additive"])
def test_poison_in_padding_never_reaches_the_output_through_any_score(score, implementation):
    attention = partial(
        attn_jax.attend_with_logsumexp,
        score=score,
        mask=masks.key_padding(S - 2),
        implementation=implementation,
    )
    both = output_and_gradients(attention)
    query, key, value = one_head(4)
    poisoned = (array.at[UNREAD_KEYS].set(jnp.nan) for array in (key, value))
    for ours, wanted in zip(
        jax.tree.leaves(both(query, *poisoned)),
        jax.tree.leaves(both(query, key, value)),
        strict=True,
    ):
        assert_equal(ours, wanted)


BY_POSITION = {
    "rule": {"mask": masks.causal()},
    "callable": {"mask": lambda i, j: j <= i},
    "combination": {"mask": masks.key_padding(3) | ~masks.causal()},
    "score_mod": {"score_mod": lambda logit, i, j: logit - jnp.abs(i - j).astype(logit.dtype)},
}


@pytest.mark.parametrize("options", BY_POSITION.values(), ids=BY_POSITION)
def test_masks_of_positions_require_positions_if_lengths_differ(options, implementation):
    query, key, value = one_head()
    attention = partial(attn_jax.attend, implementation=implementation, **options)
    with pytest.raises(ValueError, match="query_position"):
        attention(query, key, value)
    at_the_start = attention(
        query, key, value, query_position=jnp.arange(T), key_position=jnp.arange(S)
    )
    assert_equal(
        attention(query, key[:T], value[:T]),
        attention(
            query,
            key[:T],
            value[:T],
            query_position=jnp.arange(T),
            key_position=jnp.arange(T),
        ),
    )
    at_the_end = attention(
        query, key, value, query_position=jnp.arange(S - T, S), key_position=jnp.arange(S)
    )
    assert_differs(at_the_start, at_the_end)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"local_window_size": (1, 0)}])
def test_calls_of_many_heads_require_positions_if_lengths_differ(options, implementation):
    query, key, value = operands()
    attention = partial(attn_jax.dot_product_attention, implementation=implementation, **options)
    with pytest.raises(ValueError, match="query_position"):
        attention(query, key, value)
    at_the_start = attention(
        query, key, value, query_position=jnp.arange(T), key_position=jnp.arange(S)
    )
    at_the_end = attention(
        query, key, value, query_position=jnp.arange(S - T, S), key_position=jnp.arange(S)
    )
    assert_differs(at_the_start, at_the_end)


def test_padding_requires_no_positions(implementation):
    query, key, value = one_head()
    padded = attn_jax.attend(
        query, key, value, mask=masks.key_padding(4), implementation=implementation
    )
    assert_close(padded, attn_jax.attend(query, key[:4], value[:4]))


def test_keys_may_come_in_any_order_with_their_positions(implementation):
    query, key, value = operands(5)
    order = jnp.array([3, 6, 0, 5, 1, 2, 4])
    attention = partial(
        attn_jax.dot_product_attention,
        is_causal=True,
        query_position=jnp.arange(S - T, S),
        implementation=implementation,
    )
    shuffled = attention(query, key[:, order], value[:, order], key_position=order)
    assert_close(shuffled, attention(query, key, value, key_position=jnp.arange(S)))


INTEGERS = [jnp.int8, jnp.int16, jnp.int32]


@pytest.mark.parametrize("integer", INTEGERS)
def test_positions_and_lengths_are_integers_of_any_width(integer, implementation):
    options = {
        "is_causal": True,
        "query_position": jnp.arange(S - T, S),
        "key_position": jnp.arange(S),
        "query_seq_lengths": jnp.array([5, 4]),
        "key_value_seq_lengths": jnp.array([6, 7]),
    }
    attention = partial(attn_jax.dot_product_attention, *operands(6), implementation=implementation)
    narrow = {n: o if o is True else o.astype(integer) for n, o in options.items()}
    assert_equal(attention(**narrow), attention(**options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_output_has_the_querys_dtype_and_statistics_have_float32(dtype, implementation):
    query, key, value = one_head(7, dtype)
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation)
    out, logsumexp = attention(query, key, value)
    assert out.dtype == dtype
    exact = attention(*(array.astype(jnp.float32) for array in (query, key, value)))
    assert_close(logsumexp, exact[1])
    weights = attn_jax.attention_weights(query, key)
    assert_close(jnp.sum(weights, axis=1), jnp.ones(T, jnp.float32))


@pytest.mark.usefixtures("x64")
def test_in_float64_statistics_have_float64(implementation):
    query, key, value = one_head(8, jnp.float64)
    attention = partial(attn_jax.attend_with_logsumexp, implementation=implementation)
    assert [array.dtype for array in attention(query, key, value)] == [jnp.float64, jnp.float64]
    assert attn_jax.attention_weights(query, key).dtype == jnp.float64


def test_the_same_call_gives_the_same_bits(implementation):
    attention = partial(attn_jax.dot_product_attention, implementation=implementation)
    both, arrays = output_and_gradients(attention), operands(9)
    first = jax.tree.leaves(both(*arrays))
    for _ in range(3):
        again = jax.tree.leaves(both(*(jnp.array(array) for array in arrays)))
        for ours, wanted in zip(again, first, strict=True):
            assert_equal(ours, wanted)


def test_an_unknown_implementation_is_refused_by_name(implementation):
    for attention, arrays in (
        (attn_jax.attend, one_head()),
        (attn_jax.attend_with_logsumexp, one_head()),
        (attn_jax.dot_product_attention, operands()),
    ):
        with pytest.raises((ValueError, TypeError), match="implementation"):
            attention(*arrays, implementation=implementation + " but faster")
