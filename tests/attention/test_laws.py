"""Laws of attention that need no oracle: permutations, equivalent options, bounds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from tests.helpers.cases import AT_THE_END, IMPLEMENTATIONS, B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.parametrize("implementation", IMPLEMENTATIONS),
]


@pytest.fixture
def attention(implementation):
    return partial(attn_jax.dot_product_attention, implementation=implementation)


def operands(seed, keys=S, heads=K):
    return draw(seed, (B, T, N, H), (B, keys, heads, H), (B, keys, heads, V))


def booleans(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).random(shape) < 0.6)


def test_permuting_keys_with_values_bias_and_mask_changes_nothing(attention):
    query, key, value = operands(1)
    (bias,), mask = draw(2, (1, N, T, S)), booleans(3, B, 1, T, S)
    order = jnp.array([4, 0, 6, 2, 5, 1, 3])
    out = attention(query, key, value, bias, mask)
    moved = key[:, order], value[:, order], bias[..., order], mask[..., order]
    assert_close(attention(query, *moved), out)
    assert_differs(attention(query, *moved[:3], mask), out)


def test_permuting_examples_permutes_the_output(attention):
    arrays, mask = operands(4), booleans(5, B, N, T, S)
    out = attention(*arrays, mask=mask)
    assert_equal(attention(*(array[::-1] for array in arrays), mask=mask[::-1]), out[::-1])


def test_permuting_heads_in_a_group_permutes_the_output(attention):
    query, key, value = operands(6)
    (bias,), order = draw(7, (1, N, T, S)), jnp.array([1, 0, 3, 2])
    out = attention(query, key, value, bias)
    assert_equal(attention(query[:, :, order], key, value, bias[:, order]), out[:, :, order])
    assert_differs(attention(query[:, :, order], key, value, bias), out[:, :, order])


def test_a_masked_key_is_a_removed_key(attention):
    query, key, value = operands(8)
    kept = jnp.array([0, 2, 3, 6])
    mask = jnp.zeros((1, 1, 1, S), bool).at[..., kept].set(True)
    removed = attention(query, key[:, kept], value[:, kept])
    assert_close(attention(query, key, value, mask=mask), removed)
    assert_differs(attention(query, key, value), removed)


def test_shared_key_heads_are_repeated_key_heads(attention):
    query, key, value = operands(9)
    repeated = (jnp.repeat(array, N // K, axis=2) for array in (key, value))
    assert_close(attention(query, *repeated), attention(query, key, value))


def test_a_bias_that_is_the_same_for_all_keys_changes_nothing(attention):
    query, key, value = operands(10)
    (bias,) = draw(11, (B, N, T, 1))
    out = attention(query, key, value)
    assert_close(attention(query, key, value, jnp.broadcast_to(bias, (B, N, T, S))), out)


def test_a_bias_of_minus_infinity_is_a_mask(attention):
    arrays, mask = operands(12), booleans(13, B, N, T, S)
    masked = attention(*arrays, mask=mask)
    assert_close(attention(*arrays, jnp.where(mask, 0, -jnp.inf)), masked)
    huge = jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min)
    attends = jnp.any(mask, axis=-1).swapaxes(1, 2)
    assert_close(attention(*arrays, huge)[attends], masked[attends])


def test_values_of_one_give_one_to_every_query_with_unmasked_keys(attention):
    query, key, _ = operands(14)
    mask = booleans(15, B, N, T, S).at[0, 1, 2].set(False)
    out = attention(query, key, jnp.ones((B, S, K, V)), mask=mask)
    attends = jnp.any(mask, axis=-1).swapaxes(1, 2)[..., None]
    assert_close(out, jnp.broadcast_to(attends, out.shape).astype(out.dtype))


def test_the_output_is_linear_in_the_values(attention):
    query, key, value = operands(16)
    (other,) = draw(17, value.shape)
    attend = partial(attention, query, key)
    assert_close(attend(2 * value - 3 * other), 2 * attend(value) - 3 * attend(other))


def test_the_output_lies_between_the_least_and_the_greatest_value(attention):
    query, key, value = operands(18)
    out = attention(query, key, value)
    group = jnp.repeat(value, N // K, axis=2)
    assert (out >= jnp.min(group, axis=1, keepdims=True)).all()
    assert (out <= jnp.max(group, axis=1, keepdims=True)).all()


def test_the_last_causal_query_attends_to_all_keys(attention):
    arrays = operands(19, keys=T)
    causal, full = attention(*arrays, is_causal=True), attention(*arrays)
    assert_close(causal[:, -1], full[:, -1])
    assert_differs(causal[:, -2], full[:, -2])


def test_the_gradient_of_a_later_token_is_exactly_zero(attention):
    query, key, value = operands(20)
    causal = partial(
        attention,
        is_causal=True,
        query_position=jnp.asarray(AT_THE_END),
        key_position=jnp.arange(S),
    )

    def second_output(key, value):
        return jnp.sum(causal(query, key, value)[:, 1])

    for gradient in jax.grad(second_output, argnums=(0, 1))(key, value):
        later = gradient[:, S - T + 2 :]
        assert_equal(later, jnp.zeros_like(later))
        assert jnp.any(gradient[:, S - T + 1] != 0)


def test_noise_in_later_tokens_changes_no_bit(attention):
    query, key, value = operands(21)
    run = jax.jit(
        partial(
            attention,
            is_causal=True,
            query_position=jnp.asarray(AT_THE_END),
            key_position=jnp.arange(S),
        )
    )
    out = run(query, key, value)
    for t in range(T - 1):
        later = slice(S - T + t + 1, S)
        for noise in (1e3, -1e30):
            noisy = run(query, key.at[:, later].set(noise), value.at[:, later].set(noise))
            assert_equal(noisy[:, : t + 1], out[:, : t + 1])


def test_neighbours_in_the_batch_and_padding_change_nothing(attention):
    query, key, value = operands(22)
    lengths = jnp.array([S, S - 3])
    out = attention(query, key, value, key_value_seq_lengths=lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = attention(query[b], key[b, :length], value[b, :length])
        assert_close(out[b], alone)


def test_a_window_as_long_as_the_sequence_is_causal(attention):
    arrays = operands(23, keys=T)
    causal = attention(*arrays, is_causal=True)
    assert_close(attention(*arrays, local_window_size=(T - 1, 0)), causal)
    assert_differs(attention(*arrays, local_window_size=(T - 2, 0)), causal)


def test_a_window_of_no_others_gives_a_tokens_own_value(attention):
    query, key, value = operands(24, keys=T)
    own = jnp.repeat(value, N // K, axis=2)
    assert_equal(attention(query, key, value, local_window_size=0), own)
    assert_equal(attention(query, key, value, local_window_size=(0, 0)), own)


def test_packed_documents_are_separate_documents(attention):
    arrays = operands(25, keys=T)
    document = jnp.array([0, 0, 0, 1, 1])
    mask = (document[:, None] == document[None])[None, None]
    parts = [attention(*(a[:, part] for a in arrays)) for part in (slice(0, 3), slice(3, T))]
    assert_close(attention(*arrays, mask=mask), jnp.concatenate(parts, axis=1))


def test_all_axes_of_one_size_are_not_mistaken_for_each_other(attention):
    n = 3
    query, key, value, bias = draw(26, *[(n, n, n, n)] * 4)
    mask = booleans(27, n, n, n, n)
    out = attention(query, key, value, bias, mask)
    for b in range(n):
        for h in range(n):
            one = attn_jax.attend(
                query[b, :, h],
                key[b, :, h],
                value[b, :, h],
                mask=mask[b, h],
                score_mod=lambda logit, i, j, b=b, h=h: logit + bias[b, h, i, j],
            )
            assert_close(out[b, :, h], one)
