"""RNNsearch against the paper in float64 numpy, and the identities that tie it to RNNenc."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import scores
from attn_jax.models import (
    BahdanauDecoder,
    EncoderDecoder,
    EncoderDecoderConfig,
    MaxoutReadout,
    decoder_inputs,
)
from tests.helpers import rnnsearch_oracle as paper
from tests.helpers.tiny_models import (
    HIDDEN,
    SOURCE,
    TARGET,
    all_tokens,
    steps,
    tiny_config,
    tiny_model,
)
from tests.helpers.tolerance import assert_close, assert_differs

pytestmark = pytest.mark.usefixtures("x64")

INPUTS = decoder_inputs(TARGET)


def array(parameter) -> np.ndarray:
    return np.asarray(parameter[...])


def unit(cell, word_input, context_kernel=None) -> paper.Unit:
    """Takes our fused matrices apart into the paper's letters; gates come as z, r, candidate."""
    recurrent = [*np.split(array(cell.gate_kernel), 2, axis=1), array(cell.candidate_kernel)]
    words, biases = (
        np.split(array(word_input.kernel), 3, axis=1),
        np.split(array(word_input.bias), 3),
    )
    contexts = [None] * 3 if context_kernel is None else np.split(context_kernel, 3, axis=1)
    gates = zip(words, recurrent, biases, contexts, strict=True)
    return paper.Unit(*(paper.Gate(*gate) for gate in gates))


def read_by_the_paper(model, state, annotations):
    """Scores, weights and context of one step."""
    attention = model.decoder.attention
    w_a, u_a = array(attention.query_kernel.kernel), array(attention.key_kernel.kernel)
    e = paper.alignment_scores(state, annotations, w_a, u_a, array(attention.v))
    alpha = paper.softmax(e)
    return e, alpha, alpha @ annotations


def encode_by_the_paper(model, source):
    encoder = model.encoder
    units = [
        unit(cell, project) for cell, project in zip(encoder.cells, encoder.inputs, strict=True)
    ]
    return paper.encode(*units, array(encoder.embedding), np.asarray(source))


def decode_by_the_paper(model, annotations, inputs, *, readout_state="previous"):
    """For each step its logits, scores, weights, context and state."""
    decoder, readout = model.decoder, model.decoder.readout_layer
    cell = unit(decoder.cell, decoder.word_input, array(decoder.context_input.kernel))
    matrices = [array(layer.kernel) for layer in (readout.state, readout.word, readout.context)]
    state = paper.first_state(
        annotations, array(decoder.initial.kernel), array(decoder.initial.bias)
    )
    for token in np.asarray(inputs):
        word = array(decoder.embedding)[token]
        e, alpha, context = read_by_the_paper(model, state, annotations)
        previous, state = state, paper.gated_unit(cell, state, word, context)
        seen = previous if readout_state == "previous" else state
        logits = paper.readout_logits(
            seen, word, context, *matrices, array(readout.state.bias), array(readout.words.kernel)
        )
        yield logits, e, alpha, context, state


@pytest.mark.parametrize("readout_state", ["previous", "new"])
def test_every_quantity_of_a_translation_is_the_papers(readout_state):
    model = tiny_model(dtype=jnp.float64, readout_state=readout_state)
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    annotations = encode_by_the_paper(model, SOURCE)
    assert_close(memory.annotations, annotations)
    decoded = steps(model, memory, INPUTS)
    expected = decode_by_the_paper(model, annotations, INPUTS, readout_state=readout_state)
    for ours, papers in zip(decoded, zip(*expected, strict=True), strict=True):
        assert_close(ours, np.array(papers))


def test_the_first_state_comes_from_the_backward_state_at_the_first_word():
    model = tiny_model(dtype=jnp.float64)
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    initial = model.decoder.initial
    papers = paper.first_state(
        np.asarray(memory.annotations), array(initial.kernel), array(initial.bias)
    )
    assert_close(model.start(memory), papers)


def test_d01_before_training_every_context_is_the_mean_annotation():
    model = tiny_model(dtype=jnp.float64)
    attention = model.decoder.attention
    attention.v[...] = 0 * attention.v[...]
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    contexts = steps(model, memory, INPUTS).context
    mean = jnp.broadcast_to(memory.annotations.mean(axis=0)[None], contexts.shape)
    assert_close(contexts, mean)
    fresh = EncoderDecoder(tiny_config(), rngs=nnx.Rngs(0))
    assert not fresh.decoder.attention.v[...].any()


def additive_without_tanh(query, key, out_kernel):
    return jnp.einsum("TSA,A->TS", query[:, None] + key[None], out_kernel)


def test_d03_without_tanh_the_state_no_longer_chooses(monkeypatch):
    model = tiny_model(dtype=jnp.float64)
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    weights = steps(model, memory, INPUTS).weights
    assert_differs(weights[1:], weights[:-1])
    monkeypatch.setattr(scores, "additive", additive_without_tanh)
    weights = steps(model, memory, INPUTS).weights
    assert_close(weights[1:], weights[:-1])


def test_d05_with_one_source_token_there_is_one_context():
    model = tiny_model(dtype=jnp.float64)
    memory = model.encode(SOURCE[:1], all_tokens(SOURCE[:1]))
    decoded = steps(model, memory, INPUTS)
    assert_close(decoded.context, jnp.repeat(memory.annotations, INPUTS.size, axis=0))
    assert_close(decoded.weights, jnp.ones((INPUTS.size, 1)))


def final_twin(decoder: BahdanauDecoder) -> BahdanauDecoder:
    """The RNN encoder–decoder with the same parameters; of C and C_o the rows that multiply →h."""
    twin = BahdanauDecoder(tiny_config(context="final"), rngs=nnx.Rngs(0))
    for name in ("embedding", "cell", "word_input", "initial", "readout_layer"):
        part = getattr(decoder, name)
        setattr(twin, name, part if isinstance(part, nnx.Param) else nnx.clone(part))
    for layer, source in (
        (twin.context_input, decoder.context_input),
        (twin.readout_layer.context, decoder.readout_layer.context),
    ):
        layer.kernel = nnx.Param(source.kernel[:HIDDEN])
    return twin


def test_d06_attention_fixed_on_the_last_forward_state_is_the_rnn_encoder_decoder():
    model = tiny_model(dtype=jnp.float64)
    decoder = model.decoder
    annotations, _ = model.encoder(SOURCE, all_tokens(SOURCE))
    forward = annotations.at[:, HIDDEN:].set(0)
    last = jnp.arange(SOURCE.size) == SOURCE.size - 1
    attending = decoder.remember(forward, forward[-1, :HIDDEN], last)
    twin = final_twin(decoder)
    final = twin.remember(forward[:, :HIDDEN], forward[-1, :HIDDEN], all_tokens(SOURCE))
    expected, model.decoder = steps(model, attending, INPUTS), twin
    decoded = steps(model, final, INPUTS)
    assert_close(decoded.logits, expected.logits)
    assert_close(decoded.state, expected.state)
    assert_close(decoded.context, expected.context[:, :HIDDEN])
    assert_close(decoded.weights, expected.weights)


def test_d14_maxout_over_duplicated_pieces_is_linear():
    config = tiny_config()
    readout = MaxoutReadout(config, rngs=nnx.Rngs(1))
    for layer in (readout.state, readout.word, readout.context):
        layer.kernel[...] = jnp.repeat(layer.kernel[:, ::2], 2, axis=1)
    keys = jax.random.split(jax.random.key(0), 3)
    widths = (config.hidden_dim, config.embed_dim, config.annotation_dim)
    x = [jax.random.normal(key, (w,), jnp.float32) for key, w in zip(keys, widths, strict=True)]
    hidden = readout.state(x[0]) + readout.word(x[1]) + readout.context(x[2])
    assert_close(readout(*x), readout.words(hidden[::2]))


def test_parameters_start_as_in_the_paper():
    model = EncoderDecoder(EncoderDecoderConfig(40, 50, 60, 70, 80, 90), rngs=nnx.Rngs(0))
    attention, readout = model.decoder.attention, model.decoder.readout_layer
    for layer, deviation in (
        (attention.query_kernel, 0.001),
        (attention.key_kernel, 0.001),
        (readout.words, 0.01),
        (model.decoder.context_input, 0.01),
        (model.encoder.inputs[0], 0.01),
    ):
        assert np.std(array(layer.kernel)) == pytest.approx(deviation, rel=0.05)
    assert np.std(array(model.encoder.embedding)) == pytest.approx(0.01, rel=0.05)
    biases = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim == 1]
    assert biases
    assert not any(bias.any() for bias in biases)


def test_at_the_papers_size_the_matrices_hold_80_million_numbers():
    config = EncoderDecoderConfig(30_000, 30_000)
    model = nnx.eval_shape(lambda: EncoderDecoder(config, rngs=nnx.Rngs(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim == 2]
    m, n, a, l, K = 620, 1000, 1000, 500, 30_000
    encoder = K * m + 2 * 3 * (m * n + n * n)
    decoder = K * m + 3 * (m * n + n * n + 2 * n * n) + n * n
    assert sum(sizes) == encoder + decoder + n * a + 2 * n * a + 2 * l * (n + m + 2 * n) + l * K
    assert sum(sizes) == pytest.approx(80.4e6, rel=1e-3)
