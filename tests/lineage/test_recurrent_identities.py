"""Identities R1–R4 of recurrent networks, each with a counterexample, in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import LSTM, GatedUnit
from tests.helpers.draws import draw
from tests.helpers.tiny_models import SOURCE, TARGET, all_tokens, drawn, steps, tiny_model
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("x64")

T, M, N = 5, 3, 4  # words, width of a word, width of the state
OPEN, CLOSED = jnp.full(N, 1e3), jnp.full(N, -1e3)  # σ is exactly 1 and exactly 0


def tanh_twice(x):
    return np.tanh(np.tanh(x))


def elman(words, w, u, b, activation=np.tanh):
    """Elman (1990) in numpy: all states of a simple recurrent network that starts at zeros."""
    state, states = np.zeros(N), []
    for word in np.asarray(words):
        state = activation(word @ np.asarray(w) + state @ np.asarray(u) + np.asarray(b))
        states.append(state)
    return np.array(states)


def scan(cell, drives):
    """All outputs of a cell that starts at zeros, for the drives of all steps."""
    state, outputs = jnp.zeros(cell.state_dim), []
    for drive in drives:
        state = cell(state, drive)
        outputs.append(state[:N])
    return jnp.stack(outputs)


def with_gates(candidate, *gates, place):
    """Drives of all steps: the same gates, and the candidate's drive at its place among them."""
    parts = [jnp.broadcast_to(gate[None, :], candidate.shape) for gate in gates]
    parts.insert(place, candidate)
    return jnp.concatenate(parts, axis=1)


def test_flax_simple_cell_is_elmans_network():
    words, w, u, b = draw(1, (T, M), (M, N), (N, N), (N,))
    options = {"param_dtype": jnp.float64, "dtype": jnp.float64}
    cell = nnx.SimpleCell(M, N, rngs=nnx.Rngs(0), **options)
    cell.dense_i.kernel[...], cell.dense_i.bias[...], cell.dense_h.kernel[...] = w, b, u
    state, states = jnp.zeros(N), []
    for word in words:
        state, _ = cell(state, word)
        states.append(state)
    assert_close(jnp.stack(states), elman(words, w, u, b))
    assert_differs(jnp.stack(states), elman(words, w, u.T, b))


def test_r01_an_lstm_that_forgets_at_once_is_an_rnn_with_tanh_twice():
    """The forget gate, here 0, is that of Gers et al. (2000); the paper of 1997 has none."""
    words, w, b = draw(2, (T, M), (M, N), (N,))
    lstm = drawn(LSTM(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    candidate = words @ w + b[None, :]
    u, recurrent_bias = (
        np.split(np.asarray(parameter[...]), 4, axis=-1)[2]  # of the gates i, f, g, o
        for parameter in (lstm.cell.dense_h.kernel, lstm.cell.dense_h.bias)
    )
    expected = elman(words, w, u, b + recurrent_bias, tanh_twice)
    forgets = with_gates(candidate, OPEN, CLOSED, OPEN, place=2)
    assert_close(scan(lstm, forgets), expected)
    assert_differs(scan(lstm, with_gates(candidate, OPEN, OPEN, OPEN, place=2)), expected)


def test_r02_a_gru_that_always_updates_and_never_resets_is_an_rnn():
    words, w, b = draw(3, (T, M), (M, N), (N,))
    gru = drawn(GatedUnit(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    candidate = words @ w + b[None, :]
    expected = elman(words, w, gru.candidate_kernel[...], b)
    update_and_no_reset = with_gates(candidate, OPEN, OPEN, place=2)
    assert_close(scan(gru, update_and_no_reset), expected)
    for gates in ((OPEN, CLOSED), (0 * OPEN, OPEN)):  # all is reset; half of the state stays
        assert_differs(scan(gru, with_gates(candidate, *gates, place=2)), expected)


def test_r03_an_encoder_decoder_without_its_vector_is_two_grus():
    """One reads the source. The other writes the target, without anything from the first."""
    model = tiny_model(context="final", dtype=jnp.float64)
    encoder, decoder = model.encoder, model.decoder
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    read = scan(encoder.cells[0], encoder.inputs[0](encoder.embedding[...][SOURCE]))
    assert_close(memory.annotations, read)
    written = scan(decoder.cell, decoder.word_input(decoder.embedding[...][TARGET]))
    assert_differs(steps(model, memory, TARGET).state, written)
    for layer in (decoder.context_input, decoder.initial):
        layer.kernel[...] = 0 * layer.kernel[...]
    decoder.initial.bias[...] = 0 * decoder.initial.bias[...]
    assert_close(steps(model, memory, TARGET).state, written)


def test_r04_an_open_memory_keeps_its_derivative_where_an_rnns_vanishes():
    """Hochreiter & Schmidhuber (1997), section 3.2: the constant error carousel."""
    lstm = drawn(LSTM(N, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    (memory,) = draw(4, (N,))
    keep = jnp.concatenate([CLOSED, OPEN, 0 * OPEN, OPEN])

    def after_many_steps(memory):
        state = jnp.concatenate([0 * memory, memory])
        for _ in range(30):
            state = lstm(state, keep)
        return state[N:]

    assert_equal(jax.jacobian(after_many_steps)(memory), jnp.eye(N))

    def rnn_after_many_steps(state):
        for _ in range(30):
            state = jnp.tanh(0.5 * state)
        return state

    assert jnp.abs(jax.jacobian(rnn_after_many_steps)(memory)).max() < 1e-8
