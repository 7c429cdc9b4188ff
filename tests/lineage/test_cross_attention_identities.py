"""Identities D1–D11 of attention between two sequences, from the RNN encoder–decoder to
cross-attention, each with a counterexample. Queries are decoder states; keys and values are
annotations of the source."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import scores
from attn_jax.modules import AdditiveAttention, LuongAttention
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, S, N, E, A = 5, 7, 4, 6, 3  # target, source, state, annotation, alignment


def alignment_model(seed):
    """Decoder states, annotations, and Bahdanau's W_a, U_a and v_a."""
    return draw(seed, (T, N), (S, E), (N, A), (E, A), (A,))


def attention(state, annotation, w, u, v):
    """One Bahdanau attention call per decoder state."""
    score = partial(scores.additive, out_kernel=v)
    return attn_jax.attend(state @ w, annotation @ u, annotation, score=score)


def with_parameters(layer, function):
    graphdef, state = nnx.split(layer)
    return nnx.merge(graphdef, jax.tree.map(function, state))


def every_step(vector):
    return jnp.broadcast_to(vector[None, :], (T, vector.size))


def test_d01_zero_output_weights_give_the_mean_annotation_at_every_step():
    state, annotation, w, u, v = alignment_model(1)
    mean = every_step(jnp.mean(annotation, axis=0))
    assert_close(attention(state, annotation, w, u, 0 * v), mean)
    assert_differs(attention(state, annotation, w, u, v), mean)


def test_d01_a_new_additive_layer_attends_uniformly_to_all_tokens_but_padding():
    state, annotation, *_ = alignment_model(2)
    layer, mask = AdditiveAttention(N, E, A, rngs=nnx.Rngs(0)), jnp.arange(S) < 5
    layer = with_parameters(layer, lambda leaf: leaf.astype(jnp.float64))
    attention = partial(layer, state, layer.project(annotation), annotation)
    mean = every_step(jnp.mean(annotation[:5], axis=0))
    assert_close(attention(mask), mean)
    layer.v[...] = jnp.ones(A)
    assert_differs(attention(mask | True), mean)


def test_d02_zero_decoder_weights_make_the_context_independent_of_the_decoder():
    state, annotation, w, u, v = alignment_model(3)
    static = attention(state, annotation, 0 * w, u, v)
    assert_equal(static, every_step(static[0]))
    out = attention(state, annotation, w, u, v)
    assert_differs(out, every_step(out[0]))


def test_d03_without_tanh_the_query_cancels():
    state, annotation, w, u, v = alignment_model(4)

    def linear(query, key):
        return jnp.sum((query[:, None] + key[None]) * v[None, None], axis=-1)

    weights = attn_jax.attention_weights(state @ w, annotation @ u, score=linear)
    assert_close(weights, every_step(weights[0]))
    with_tanh = partial(scores.additive, out_kernel=v)
    weights = attn_jax.attention_weights(state @ w, annotation @ u, score=with_tanh)
    assert_differs(weights, every_step(weights[0]))


def test_d04_luongs_concat_is_bahdanaus_score_with_stacked_weights():
    state, annotation, w, u, v = alignment_model(5)
    additive = scores.additive(state @ w, annotation @ u, v)
    stacked = jnp.concatenate([w, u])
    assert_close(scores.concat(state, annotation, stacked, v), additive)
    assert_differs(scores.concat(state, annotation, stacked[::-1], v), additive)


def test_d05_one_source_token_is_a_fixed_context():
    state, annotation, w, u, v = alignment_model(6)
    assert_equal(attention(state, annotation[:1], w, u, v), every_step(annotation[0]))
    assert_differs(attention(state, annotation[:2], w, u, v), every_step(annotation[0]))


def test_d06_attention_to_the_last_annotation_alone_is_the_rnn_encoder_decoder():
    state, annotation, w, u, v = alignment_model(7)
    last_only = (jnp.arange(S) == S - 1)[None]

    def contexts(annotation, mask):
        score = partial(scores.additive, out_kernel=v)
        return attn_jax.attend(state @ w, annotation @ u, annotation, score=score, mask=mask)

    assert_equal(contexts(annotation, last_only), every_step(annotation[-1]))
    by_annotation = jax.jacobian(contexts)(annotation, last_only)
    assert_equal(by_annotation[:, :, :-1], jnp.zeros((T, E, S - 1, E)))
    everywhere = jnp.ones((1, S), bool)
    assert_differs(contexts(annotation, everywhere), every_step(annotation[-1]))
    by_annotation = jax.jacobian(contexts)(annotation, everywhere)
    assert (jnp.max(jnp.abs(by_annotation), axis=(0, 1, 3)) > 0).all()


def test_d07_luongs_general_score_with_the_identity_is_dot():
    state, annotation, w = draw(8, (T, N), (S, N), (N, N))
    dot = scores.dot(state, annotation)
    assert_close(scores.general(state, annotation, jnp.eye(N)), dot)
    assert_differs(scores.general(state, annotation, w), dot)


def test_d08_luongs_dot_over_root_n_is_cross_attention_with_one_head():
    state, annotation = draw(9, (T, N), (S, N))
    one_head = (array[:, None, :] for array in (state, annotation, annotation))
    cross = attn_jax.dot_product_attention(*one_head)[:, 0]
    luong = partial(attn_jax.attend, state, annotation, annotation, score=scores.dot)
    assert_close(luong(scale=1 / np.sqrt(N).item()), cross)
    assert_differs(luong(), cross)


def luong_layer(score, window=10):
    """A layer in float64 whose matrices do not depend on the score, if their sizes are equal."""
    layer = LuongAttention(N, E, score, window=window, rngs=nnx.Rngs(0))
    return with_parameters(layer, lambda leaf: draw(leaf.size, leaf.shape)[0])


def inspect(layer, state, annotation):
    _, weights = layer.inspect(state, layer.project(annotation), jnp.ones(S, bool))
    return weights


def test_d09_local_attention_with_a_window_without_end_is_global():
    state, annotation = draw(10, (T, N), (S, E))
    everywhere = inspect(luong_layer("general"), state, annotation)
    assert_close(inspect(luong_layer("local", window=10**8), state, annotation), everywhere)
    assert_differs(inspect(luong_layer("local", window=3), state, annotation), everywhere)


def test_d10_local_weights_with_a_finite_window_sum_to_less_than_one():
    state, annotation = draw(11, (T, N), (S, E))
    total = jnp.sum(inspect(luong_layer("local", window=3), state, annotation), axis=1)
    assert (total < 1).all()
    assert_close(jnp.sum(inspect(luong_layer("general"), state, annotation), axis=1), jnp.ones(T))


def test_d11_cross_attention_of_a_sequence_with_itself_is_self_attention():
    x, memory, w_query, w_key, w_value = draw(12, (T, N), (S, N), (N, A), (N, A), (N, E))

    def cross_attention(x, memory):
        return attn_jax.attend(x @ w_query, memory @ w_key, memory @ w_value)

    self_attention = attn_jax.self_attention(x, w_query, w_key, w_value)
    assert_close(cross_attention(x, x), self_attention)
    assert_differs(cross_attention(x, memory), self_attention)
