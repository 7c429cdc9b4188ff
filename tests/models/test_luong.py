"""Luong's decoder against a numpy version of the paper, and laws of its attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import decoder_inputs
from attn_jax.modules import LuongAttention
from tests.helpers.tiny_models import SOURCE, TARGET, all_tokens, drawn, steps, tiny_model
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.usefixtures("x64")

INPUTS = decoder_inputs(TARGET)
S, T, H, E, D = 9, 4, 3, 5, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def array(parameter) -> np.ndarray:
    return np.asarray(parameter[...])


def weights_of_the_paper(attention, h, annotations):
    """Luong et al. (2015), eq. 7–10, for one decoder state."""
    if attention.score == "dot":
        scores = annotations @ h
    elif attention.score == "concat":
        w_a = np.concatenate(
            [array(attention.query_kernel.kernel), array(attention.key_kernel.kernel)]
        )
        pairs = [np.concatenate([h, row]) for row in annotations]
        scores = np.array([np.tanh(pair @ w_a) @ array(attention.v.kernel)[:, 0] for pair in pairs])
    else:
        scores = annotations @ (h @ array(attention.bilinear.kernel))
    if attention.score != "local":
        return np.exp(scores) / np.exp(scores).sum()
    hidden = np.tanh(h @ array(attention.focus.hidden.kernel))
    p = len(annotations) * sigmoid(hidden @ array(attention.focus.position.kernel)[:, 0])
    inside = [
        s
        for s in range(len(annotations))
        if p - attention.focus.window <= s <= p + attention.focus.window
    ]
    total = sum(np.exp(scores[s]) for s in inside)
    weights, sigma = np.zeros(len(annotations)), attention.focus.window / 2
    for s in inside:
        weights[s] = np.exp(scores[s]) / total * np.exp(-((s - p) ** 2) / (2 * sigma**2))
    return weights


def decode_by_the_paper(model, annotations, state):
    decoder = model.decoder
    u_z, u_r = np.split(array(decoder.cell.gate_kernel), 2, axis=1)
    u = array(decoder.cell.candidate_kernel)
    fed = np.zeros_like(state)
    for token in np.asarray(INPUTS):
        word = array(decoder.embedding)[token]
        drive = word @ array(decoder.word_input.kernel) + array(decoder.word_input.bias)
        z, r, candidate = np.split(drive + fed @ array(decoder.feed_input.kernel), 3)
        z, r = sigmoid(z + state @ u_z), sigmoid(r + state @ u_r)
        state = (1 - z) * state + z * np.tanh(candidate + (r * state) @ u)
        weights = weights_of_the_paper(decoder.attention, state, annotations)
        context = weights @ annotations
        w_c = np.concatenate(
            [array(decoder.combine_context.kernel), array(decoder.combine_state.kernel)]
        )
        fed = np.tanh(np.concatenate([context, state]) @ w_c)
        yield fed @ array(decoder.words.kernel), weights, context, state


@pytest.mark.parametrize("score", ["dot", "general", "concat", "local"])
def test_every_quantity_of_a_translation_is_the_papers(score):
    model = tiny_model(dtype=jnp.float64, decoder="luong", score=score, local_window=2)
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    decoded = steps(model, memory, INPUTS)
    papers = decode_by_the_paper(model, np.asarray(memory.annotations), np.asarray(memory.summary))
    logits, weights, context, state = (np.array(rows) for rows in zip(*papers, strict=True))
    assert_close(decoded.logits, logits)
    assert_close(decoded.weights, weights)
    assert_close(decoded.context, context)
    assert_close(decoded.state, state)


def test_d18_without_its_input_block_nothing_is_fed():
    model = tiny_model(dtype=jnp.float64, decoder="luong", score="general")
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    state = model.start(memory)
    other = state._replace(attentional=state.attentional + 1)
    states = [model.step(memory, s, INPUTS[1])[1].state for s in (state, other)]
    assert_differs(*states)
    model.decoder.feed_input.kernel[...] = 0 * model.decoder.feed_input.kernel[...]
    states = [model.step(memory, s, INPUTS[1])[1].state for s in (state, other)]
    assert_close(*states)


def local_attention(dtype=jnp.float64, window=D):
    attention = LuongAttention(H, E, "local", window=window, rngs=nnx.Rngs(0))
    return drawn(attention, seed=2, dtype=dtype)


def queries_and_annotations():
    rng = np.random.default_rng(8)
    return jnp.asarray(rng.normal(size=(T, H))), jnp.asarray(rng.normal(size=(S, E)))


def test_local_attentions_context_is_the_weighted_mean():
    attention, (query, annotations) = local_attention(), queries_and_annotations()
    mask = jnp.arange(S) != 4
    _, weights = attention.inspect(query, attention.project(annotations), mask)
    context = attention(query, attention.project(annotations), annotations, mask)
    assert_close(context, weights @ annotations)


def test_local_positions_count_tokens_and_not_padding():
    attention, (query, annotations) = local_attention(), queries_and_annotations()
    mask = jnp.arange(S) % 3 != 1
    _, weights = attention.inspect(query, annotations, mask)
    _, alone = attention.inspect(query, annotations[mask], mask[mask])
    assert_close(weights[:, mask], alone)
    assert not weights[:, ~mask].any()


def test_the_predicted_position_has_a_gradient_only_by_the_gaussian():
    query, annotations = queries_and_annotations()

    def gradient_norm(window):
        graphdef, parameters = nnx.split(local_attention(window=window))

        def loss(parameters):
            attention = nnx.merge(graphdef, parameters)
            return jnp.sum(jnp.sin(attention(query, annotations, annotations, jnp.ones(S, bool))))

        gradients = jax.jit(jax.grad(loss))(parameters)
        return max(abs(leaf).max() for leaf in jax.tree.leaves(gradients["focus"]))

    assert gradient_norm(D) > 1e-3
    assert gradient_norm(10**7) < 1e-12  # flat: the position no longer matters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (H, E, "cosine"),
            "score='cosine' is unknown; choose from 'dot', 'general', 'concat', 'local'",
        ),
        ((H, E, "dot"), "query_dim=3 and annotation_dim=5 to be equal"),
    ],
)
def test_scores_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LuongAttention(*arguments, rngs=nnx.Rngs(0))


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        LuongAttention(H, E, "local", window=0, rngs=nnx.Rngs(0))
