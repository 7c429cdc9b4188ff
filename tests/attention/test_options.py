"""Sinks, dropout, statistics and merged parts: what they compute, on every implementation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers import oracle
from tests.helpers.cases import IMPLEMENTATIONS, B, K
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

T, S, N, H, V = 5, 7, 4, 8, 3

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def operands(seed=0, dtype=jnp.float64):
    return draw(seed, (T, H), (S, H), (S, V), dtype=dtype)


@every_implementation
@pytest.mark.usefixtures("x64")
def test_a_sink_is_a_key_with_a_value_of_zero(implementation, tiles):
    tiles(2, 3)
    query, key, value = operands(1)
    unmasked = np.random.default_rng(2).random((T, S)) < 0.5
    unmasked[3] = False

    def attend(query, key, value, sink):
        return attn_jax.attend_with_logsumexp(
            query,
            key,
            value,
            mask=jnp.asarray(unmasked),
            sink=sink,
            implementation=implementation,
        )

    def with_one_more_key(query, key, value, sink):
        logits = jnp.where(unmasked, query @ key.T / np.sqrt(H), -jnp.inf)
        logits = jnp.concatenate([logits, jnp.full((T, 1), sink)], axis=1)
        weights = jax.nn.softmax(logits, axis=1)
        return weights[:, :S] @ value, jax.nn.logsumexp(logits, axis=1)

    arguments = (query, key, value, jnp.float64(0.7))
    for got, wanted in zip(attend(*arguments), with_one_more_key(*arguments), strict=True):
        assert_close(got, wanted)
    ours, theirs = (
        jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a)[0])) + jnp.sum(f(*a)[1]), range(4))(
            *arguments
        )
        for f in (attend, with_one_more_key)
    )
    for got, wanted in zip(ours, theirs, strict=True):
        assert_close(got, wanted, gradient=True)


@every_implementation
@pytest.mark.usefixtures("x64")
def test_each_head_has_a_sink_of_its_own(implementation):
    query, key, value = draw(3, (2, T, N, H), (2, S, 2, H), (2, S, 2, V))
    (sink,) = draw(4, (N,))
    attend = partial(attn_jax.dot_product_attention, implementation=implementation)
    out = attend(query, key, value, sink=sink)
    for n in range(N):
        head = query[1, :, n], key[1, :, n // 2], value[1, :, n // 2]
        assert_close(out[1, :, n], attn_jax.attend(*head, sink=sink[n]))
    assert_differs(out, attend(query, key, value))


RATE = 0.3
AT_THE_END = jnp.arange(S - T, S)


@every_implementation
@pytest.mark.usefixtures("x64")
def test_dropout_keeps_the_weights_of_dropout_mask_and_no_others(implementation, tiles):
    tiles(2, 3)
    query, key, value = operands(5)
    rng = jax.random.key(6)
    keep = np.asarray(attn_jax.dropout_mask(rng, RATE, AT_THE_END, jnp.arange(S)))
    assert 0 < keep.mean() < 1

    def attend(query, key, value):
        return attn_jax.attend(
            query,
            key,
            value,
            query_row=AT_THE_END,
            key_row=jnp.arange(S),
            dropout_rate=RATE,
            dropout_rng=rng,
            implementation=implementation,
        )

    def written_out(query, key, value):
        weights = jax.nn.softmax(query @ key.T / np.sqrt(H), axis=1)
        return jnp.where(keep, weights / (1 - RATE), 0) @ value

    assert_close(attend(query, key, value), written_out(query, key, value))
    ours, theirs = (
        jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2))(query, key, value)
        for f in (attend, written_out)
    )
    for got, wanted in zip(ours, theirs, strict=True):
        assert_close(got, wanted, gradient=True)


def test_dropout_drops_the_stated_share_independently_of_everything():
    i, j = jnp.arange(300), jnp.arange(400)
    first, second = (
        np.asarray(attn_jax.dropout_mask(jax.random.key(seed), RATE, i, j)) for seed in (0, 1)
    )
    deviation = 4 * np.sqrt(RATE * (1 - RATE) / first.size)
    assert abs(first.mean() - (1 - RATE)) < deviation
    both = (first & second).mean()
    assert abs(both - (1 - RATE) ** 2) < deviation
    for period in (1, 2, 16, 64, 128, 256):
        for rows in (first, first.T):
            repeated = rows[period:] & rows[:-period]
            share = (1 - RATE) ** 2
            deviation = 4 * np.sqrt(share * (1 - share) / repeated.size)
            assert abs(repeated.mean() - share) < deviation


@every_implementation
def test_heads_and_examples_drop_different_weights_and_chunks_the_same(implementation):
    query, key = jnp.zeros((2, T, N, H)), jnp.zeros((2, S, 2, H))
    value = jnp.broadcast_to(jnp.eye(S)[None, :, None], (2, S, 2, S))
    attend = partial(
        attn_jax.dot_product_attention,
        dropout_rate=0.5,
        dropout_rng=jax.random.key(7),
        implementation=implementation,
    )
    weights = np.asarray(attend(query, key, value))
    drawn = {weights[b, :, n].tobytes() for b in range(2) for n in range(N)}
    assert len(drawn) == 2 * N
    chunk = attend(query[:, 2:4], key, value, query_row=jnp.arange(2, 4))
    assert_equal(chunk, weights[:, 2:4])


@every_implementation
def test_a_dropout_rate_of_zero_is_the_call_without_dropout(implementation):
    query, key, value = operands(8, jnp.float32)
    attend = partial(attn_jax.attend, query, key, value, implementation=implementation)
    assert_equal(attend(dropout_rate=0.0, dropout_rng=jax.random.key(9)), attend())
    assert_differs(attend(dropout_rate=0.5, dropout_rng=jax.random.key(9)), attend())


@pytest.mark.usefixtures("x64")
def test_statistics_are_those_of_the_weights(tiles):
    tiles(2, 3)
    query, key, _ = operands(10)
    unmasked = np.random.default_rng(11).random((T, S)) < 0.6
    unmasked[2] = False
    stats = attn_jax.attention_stats(
        query,
        key,
        mask=jnp.asarray(unmasked),
        score_mod=score_mods.soft_cap(2.0),
        top=3,
    )
    value, cap = np.zeros((S, 1)), lambda logit, i, j: 2 * np.tanh(logit / 2)
    arrays = np.asarray(query), np.asarray(key), value
    _, weights, logsumexp = oracle.attention(*arrays, score_mod=cap, mask=unmasked)
    assert_close(stats.logsumexp, logsumexp)
    assert_close(stats.received, weights.sum(axis=0))
    entropy = [-sum(w * np.log(w) for w in row if w > 0) for row in weights]
    assert_close(stats.entropy, np.array(entropy))
    assert_close(stats.top_weight, -np.sort(-weights, axis=1)[:, :3])
    for t in range(T):
        chosen = weights[t, np.asarray(stats.top_key[t])]
        assert_close(stats.top_weight[t], chosen)
    with np.errstate(divide="ignore"):
        assert_close(
            stats.max_logit, np.log(weights.max(axis=1)) + np.where(unmasked.any(1), logsumexp, 0)
        )


@pytest.mark.usefixtures("x64")
def test_a_sink_has_its_share_in_the_statistics(tiles):
    tiles(2, 3)
    query, key, _ = operands(14)
    unmasked = np.random.default_rng(15).random((T, S)) < 0.6
    unmasked[2] = False
    stats = attn_jax.attention_stats(query, key, mask=jnp.asarray(unmasked), sink=0.4, top=2)
    logits = np.where(unmasked, np.asarray(query) @ np.asarray(key).T / np.sqrt(H), -np.inf)
    weights = np.exp(logits) / (np.exp(logits).sum(axis=1) + np.exp(0.4))[:, None]
    assert_close(stats.logsumexp, np.log(np.exp(logits).sum(axis=1) + np.exp(0.4)))
    assert_close(stats.received, weights.sum(axis=0))
    assert_close(stats.top_weight, -np.sort(-weights, axis=1)[:, :2])
    entropy = [-sum(w * np.log(w) for w in row if w > 0) for row in weights]
    assert_close(stats.entropy, np.array(entropy))


def test_statistics_need_at_least_one_key():
    query, key, _ = operands(12, jnp.float32)
    for top in (0, S + 1, 1.5):
        with pytest.raises((ValueError, TypeError), match="top"):
            attn_jax.attention_stats(query, key, top=top)


def test_weights_of_chosen_rows_are_rows_of_the_weights():
    query, key, _ = operands(13, jnp.float32)
    rows = jnp.array([3, 1])
    weigh = partial(
        attn_jax.attention_weights, key=key, mask=masks.causal(), key_position=jnp.arange(S)
    )
    whole = weigh(query, query_position=AT_THE_END)
    assert_close(weigh(query[rows], query_position=AT_THE_END[rows]), whole[rows])


NOTHING = -np.inf


@pytest.mark.parametrize(
    ("first", "second"), [(0.0, 200.0), (-200.0, 1.0), (NOTHING, 1.0), (NOTHING, NOTHING), (3, 3)]
)
@pytest.mark.usefixtures("x64")
def test_merging_weights_parts_of_any_size(first, second):
    outs = draw(14, (2, V), (2, V))
    logsumexps = [jnp.full(2, size, jnp.float64) for size in (first, second)]

    def merge(outs, logsumexps):
        return attn_jax.merge_partials(*zip(outs, logsumexps, strict=True))

    out, logsumexp = merge(outs, logsumexps)
    greatest = max(first, second)
    if greatest == NOTHING:
        assert_equal(out, jnp.zeros_like(out))
        assert_equal(logsumexp, logsumexps[0])
    else:
        shares = np.exp(np.array([first, second]) - greatest)
        mean = (shares[0] * outs[0] + shares[1] * outs[1]) / shares.sum()
        assert_close(out, mean)
        assert_close(logsumexp, jnp.full(2, greatest + np.log(shares.sum())))
    gradients = jax.grad(lambda *a: jnp.sum(merge(*a)[0]), (0, 1))(outs, logsumexps)
    for gradient in jax.tree.leaves(gradients):
        assert jnp.isfinite(gradient).all()


@pytest.mark.usefixtures("x64")
def test_merging_in_any_order_gives_the_whole():
    query, key, value = operands(15)
    attend = attn_jax.attend_with_logsumexp
    parts = [attend(query, key[p], value[p]) for p in (slice(0, 1), slice(1, 4), slice(4, S))]
    merge = attn_jax.merge_partials
    left = merge(merge(parts[0], parts[1]), parts[2])
    right = merge(parts[2], merge(parts[0], parts[1]))
    for order in (left, right, merge(parts[0], merge(parts[1], parts[2]))):
        for got, wanted in zip(order, attend(query, key, value), strict=True):
            assert_close(got, wanted)


SPLIT = (slice(0, 2), slice(2, S))


@pytest.mark.usefixtures("x64")
def test_gradients_go_through_the_logsumexp_of_merged_parts():
    arrays = operands(16)
    attend = attn_jax.attend_with_logsumexp

    def merged(query, key, value):
        return attn_jax.merge_partials(*(attend(query, key[p], value[p]) for p in SPLIT))

    def loss(attention, *arrays):
        out, logsumexp = attention(*arrays)
        return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(logsumexp))

    ours, wanted = (
        jax.grad(partial(loss, attention), (0, 1, 2))(*arrays) for attention in (merged, attend)
    )
    for got, want in zip(ours, wanted, strict=True):
        assert_close(got, want, gradient=True)


def test_a_bias_with_a_score_mod_of_positions_guesses_no_alignment():
    query, key = jnp.ones((2, T, N, H)), jnp.ones((2, S, 2, H))
    attend = partial(
        attn_jax.dot_product_attention, query, key, key, score_mod=score_mods.alibi(0.5)
    )
    for bias in (None, jnp.zeros((1, N, 1, S))):
        with pytest.raises(ValueError, match="query_position"):
            attend(bias)
    assert attend(
        jnp.zeros((1, N, 1, S)), query_position=AT_THE_END, key_position=jnp.arange(S)
    ).shape == (2, T, N, H)


@pytest.mark.parametrize("shape", [(B, 1), (1, N), (1, 1), (B, N)])
def test_dropout_keys_may_differ_by_head_and_example(shape):
    """If an axis of the keys has size 1, its heads or examples drop the same weights."""
    query, key, value = draw(30, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)
    keys = jax.random.split(jax.random.key(3), shape)
    out = attn_jax.dot_product_attention(query, key, value, dropout_rate=0.4, dropout_rng=keys)
    whole = jnp.broadcast_to(keys, (B, N))
    for b, n in [(0, 0), (1, 0), (1, N - 1)]:
        one = query[b, :, n], key[b, :, n // (N // K)], value[b, :, n // (N // K)]
        alone = attn_jax.attend(*one, dropout_rate=0.4, dropout_rng=whole[b, n])
        assert_close(out[b, :, n], alone)


def test_dropout_keys_for_another_number_of_heads_are_refused():
    arrays = draw(31, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)
    keys = jax.random.split(jax.random.key(3), (B, 3))
    with pytest.raises((ValueError, TypeError), match=r"dropout_rng"):
        attn_jax.dot_product_attention(*arrays, dropout_rate=0.4, dropout_rng=keys)
