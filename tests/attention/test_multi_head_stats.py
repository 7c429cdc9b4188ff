"""`dot_product_attention_weights` and `_stats` equal the functions of one head, head by head."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers import oracle
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_equal

B, T, S, N, K, H, V = 2, 5, 7, 6, 3, 4, 8
SLOPES = jnp.linspace(0.1, 0.6, N)[None]
PLACE = {"query_position": jnp.arange(S - T, S), "key_position": jnp.arange(S)}

OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal window": {"is_causal": True, "local_window_size": 2, **PLACE},
    "lengths": {"key_value_seq_lengths": jnp.array([3, 7]), "query_seq_lengths": [5, 2]},
    "a bias a head": {"bias": draw(7, (1, N, 1, S), dtype=jnp.float32)[0]},
    "a mask an example": {"mask": draw(8, (B, 1, T, S), dtype=jnp.float32)[0] > 0},
    "a slope a head": {"score_mod": score_mods.alibi(SLOPES), **PLACE},
    "a rule": {"mask": masks.prefix(2) | masks.causal(), **PLACE},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def rows():
    return draw(0, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)


@every_option
def test_weights_are_those_with_which_values_are_averaged(options, run):
    query, key, value = rows()
    weights = run(partial(attn_jax.dot_product_attention_weights, **options))(query, key)
    assert weights.shape == (B, N, T, S)
    out = attn_jax.dot_product_attention(query, key, value, **options)
    each = np.repeat(np.asarray(value, np.float64), N // K, axis=2)
    mean = np.einsum("BNTS,BSNV->BTNV", np.asarray(weights, np.float64), each)
    assert_close(out, mean, dtype=jnp.float32)
    total = weights.sum(axis=-1)
    assert_close(total, jnp.where(total > 0.5, 1.0, 0.0))


def test_weights_are_the_oracles():
    query, key, value = (np.asarray(x, np.float64) for x in rows())
    ours = attn_jax.dot_product_attention_weights(*rows()[:2])
    for b, n in np.ndindex(B, N):
        one = query[b, :, n], key[b, :, n // (N // K)], value[b, :, n // (N // K)]
        assert_close(ours[b, n], oracle.attention(*one)[1], dtype=jnp.float32)


@every_option
def test_statistics_of_many_heads_are_those_of_their_weights(options, run):
    query, key, _ = rows()
    stats = run(partial(attn_jax.dot_product_attention_stats, top=2, **options))(query, key)
    weights = attn_jax.dot_product_attention_weights(query, key, **options)
    weights = np.asarray(weights, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.where(weights > 0, -weights * np.log(weights), 0)
    assert_close(stats.entropy, information.sum(axis=-1), dtype=jnp.float32)
    assert_close(stats.received, weights.sum(axis=-2), dtype=jnp.float32)
    assert_close(stats.top_weight, -np.sort(-weights, axis=-1)[..., :2], dtype=jnp.float32)
    _, logsumexp = attn_jax.dot_product_attention_with_logsumexp(query, key, key, **options)
    assert_close(stats.logsumexp, jnp.moveaxis(logsumexp, -1, -2))


def test_a_sink_has_its_share_in_the_statistics_of_its_head():
    query, key, _ = rows()
    sink = jnp.linspace(-1.0, 2.0, N)
    stats = attn_jax.dot_product_attention_stats(query, key, sink=sink)
    weights = attn_jax.dot_product_attention_weights(query, key)
    plain = attn_jax.dot_product_attention_stats(query, key).logsumexp
    share = jax.nn.sigmoid(plain - sink[None, :, None])
    assert_close(stats.received, (weights * share[..., None]).sum(axis=-2))


def test_one_head_without_a_batch_is_the_function_of_one_head():
    query, key = draw(3, (T, 1, H), (S, 1, H), dtype=jnp.float32)
    weights = attn_jax.dot_product_attention_weights(query, key)
    assert_equal(weights[0], attn_jax.attention_weights(query[:, 0], key[:, 0]))
    stats = attn_jax.dot_product_attention_stats(query, key)
    one = attn_jax.attention_stats(query[:, 0], key[:, 0])
    for ours, wanted in zip(stats, one, strict=True):
        assert_equal(ours[0], wanted)


def test_padding_of_the_last_tile_receives_no_mass(tiles):
    tiles(4, 3)
    query, key, _ = rows()
    stats = attn_jax.dot_product_attention_stats(query, key)
    assert_close(stats.received.sum(axis=-1), jnp.full((B, N), float(T)))


@pytest.mark.usefixtures("no_type_hook")
def test_bad_input_is_named():
    query, key, _ = rows()
    with pytest.raises(ValueError, match="top must be an int between 1 and S = 7; got 8"):
        attn_jax.dot_product_attention_stats(query, key, top=8)
    with pytest.raises(ValueError, match=r"mask axis 1 \(N\) must be 1 or 6; got 2"):
        attn_jax.dot_product_attention_weights(query, key, mask=jnp.ones((B, 2, T, S), bool))
