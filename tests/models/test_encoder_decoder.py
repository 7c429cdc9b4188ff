import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, decoder_inputs
from tests.helpers.tiny_models import (
    SOURCE,
    TARGET,
    VARIANTS,
    all_tokens,
    steps,
    tiny_config,
    tiny_model,
)
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

INPUTS = decoder_inputs(TARGET)


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def model(request):
    return tiny_model(**VARIANTS[request.param])


@pytest.fixture(scope="module")
def logits(model):
    """The compiled teacher-forced forward pass."""
    return jax.jit(model.logits)


def test_encoding_once_and_stepping_is_the_teacher_forced_pass(model, logits):
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    decoded = steps(model, memory, INPUTS)
    assert_close(decoded.logits, logits(SOURCE, all_tokens(SOURCE), INPUTS))
    assert_differs(decoded.logits[1:], decoded.logits[:-1])


def test_padding_on_the_right_left_and_in_between_changes_nothing(model, logits):
    expected = logits(SOURCE, all_tokens(SOURCE), INPUTS)
    for padded in ([4, 10, 7, 5, 8, 2, 0, 0], [0, 0, 4, 10, 7, 5, 8, 2], [4, 0, 10, 7, 5, 0, 8, 2]):
        padded = jnp.array(padded)
        assert_close(logits(padded, padded != 0, INPUTS), expected)
        assert_equal(
            logits(jnp.where(padded == 0, 9, padded), padded != 0, INPUTS),
            logits(padded, padded != 0, INPUTS),
        )


def test_batch_neighbours_change_nothing(model, logits):
    others = jnp.array([[9, 9, 9, 9, 9, 2], [3, 2, 0, 0, 0, 0]])
    sources = jnp.concatenate([SOURCE[None], others])
    batched = jax.jit(jax.vmap(model.logits))(sources, sources != 0, jnp.stack([INPUTS] * 3))
    assert_close(batched[0], logits(SOURCE, all_tokens(SOURCE), INPUTS))
    short = others[1, :2]
    assert_close(batched[2], model.logits(short, all_tokens(short), INPUTS))


def test_later_words_do_not_reach_earlier_logits(logits):
    changed = logits(SOURCE, all_tokens(SOURCE), INPUTS.at[2].set(3))
    before = logits(SOURCE, all_tokens(SOURCE), INPUTS)
    assert_equal(changed[:2], before[:2])
    assert_differs(changed[2], before[2])


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(model):
    graphdef, parameters = nnx.split(model)

    def loss(parameters):
        logits = nnx.merge(graphdef, parameters).logits(SOURCE, all_tokens(SOURCE), INPUTS)
        return jnp.sum(jnp.sin(logits))

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(parameters)):
        assert jnp.isfinite(gradient).all(), path
        assert gradient.any(), path


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_split_and_merge_give_the_model_back(model, graph):
    graphdef, state = nnx.split(model, graph=graph)
    again = nnx.merge(graphdef, state).encode(SOURCE, all_tokens(SOURCE))
    assert_equal(again.annotations, model.encode(SOURCE, all_tokens(SOURCE)).annotations)


def logits_of_annotations(model, annotations):
    """The logits as a function of the annotations alone: the summary is the last state."""
    last = 0 if model.config.context == "attention" else -1
    summary = annotations[last, -model.config.hidden_dim :]
    memory = model.decoder.remember(annotations, summary, all_tokens(SOURCE))
    return steps(model, memory, INPUTS).logits


def test_the_final_context_decoder_depends_only_on_the_last_state():
    for context in ("final", "attention"):
        model = tiny_model(context=context)
        annotations, _ = model.encoder(SOURCE, all_tokens(SOURCE))
        jacobian = jax.jit(jax.jacrev(partial(logits_of_annotations, model)))(annotations)
        reached = jnp.any(jacobian != 0, axis=(0, 1, 3))
        assert reached.tolist() == [context == "attention"] * (SOURCE.size - 1) + [True]


def test_the_final_context_decoder_depends_on_a_source_through_the_summary():
    other = jnp.array([9, 3, 9, 6, 6, 2])
    for context in ("final", "attention"):
        model = tiny_model(context=context)
        memory, changed = (model.encode(ids, all_tokens(ids)) for ids in (SOURCE, other))
        changed = changed._replace(summary=memory.summary)
        decoded, decoded_changed = (steps(model, m, INPUTS).logits for m in (memory, changed))
        compare = assert_equal if context == "final" else assert_differs
        compare(decoded_changed, decoded)


def test_the_final_context_is_the_last_state_at_every_step():
    model = tiny_model(context="final")
    padded = jnp.concatenate([jnp.array([0]), SOURCE, jnp.array([0])])
    memory = model.encode(padded, padded != 0)
    decoded = steps(model, memory, INPUTS)
    assert_equal(decoded.context, jnp.stack([memory.annotations[-2]] * INPUTS.size))
    assert_equal(decoded.weights, jnp.stack([jnp.eye(padded.size)[-2]] * INPUTS.size))
    assert_equal(decoded.weights @ memory.annotations, decoded.context)


def test_dropout_needs_a_key_and_changes_only_training():
    model = tiny_model(dropout_rate=0.5)
    without = tiny_model()
    forward = partial(model.logits, SOURCE, all_tokens(SOURCE), INPUTS)
    assert_equal(forward(), without.logits(SOURCE, all_tokens(SOURCE), INPUTS))
    assert_equal(forward(rng=jax.random.key(1)), forward(rng=jax.random.key(1)))
    assert_differs(forward(rng=jax.random.key(1)), forward(rng=jax.random.key(2)))
    assert_differs(forward(rng=jax.random.key(1)), forward())
    assert_equal(
        without.logits(SOURCE, all_tokens(SOURCE), INPUTS, rng=jax.random.key(1)), forward()
    )


def test_a_source_of_padding_alone_has_context_zero():
    model = tiny_model()
    memory = model.encode(SOURCE, ~all_tokens(SOURCE))
    decoded = steps(model, memory, INPUTS)
    assert not decoded.context.any()
    assert not decoded.weights.any()
    assert jnp.isfinite(decoded.logits).all()


def test_an_empty_source_is_refused():
    empty = jnp.zeros(0, int)
    with pytest.raises(ValueError, match="source is empty"):
        tiny_model().encode(empty, all_tokens(empty))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"cell": "vanilla"}, "cell='vanilla' is unknown; choose from 'gated', 'gru', 'lstm'"),
        ({"decoder": "gnmt"}, "decoder='gnmt' is unknown; choose from 'bahdanau', 'luong'"),
        ({"context": "mean"}, "context='mean' is unknown; choose from 'attention', 'final'"),
        ({"score": "cosine"}, "score='cosine' is unknown"),
        ({"readout_state": "old"}, "choose from 'previous', 'new'"),
        ({"init": "he"}, "choose from 'paper', 'glorot'"),
        ({"score": "dot"}, "score='dot' is not possible with decoder='bahdanau'"),
        ({"decoder": "luong"}, "choose from 'dot', 'general', 'concat', 'local'"),
        ({"decoder": "luong", "score": "dot", "context": "final"}, "needs decoder='bahdanau'"),
        ({"hidden_dim": 0}, "hidden_dim=0 must be at least 1"),
        ({"local_window": 0}, "local_window=0 must be at least 1"),
        ({"dropout_rate": 1.0}, r"dropout_rate=1.0 must be in \[0, 1\)"),
    ],
)
def test_choices_that_make_no_model_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**choices)


def test_a_vocabulary_without_room_for_the_special_tokens_is_refused():
    with pytest.raises(ValueError, match="target_vocab=3 must be at least 4"):
        EncoderDecoderConfig(10, 3)


def test_a_config_survives_json():
    config = tiny_config(cell="lstm", dropout_rate=0.2)
    assert EncoderDecoderConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_glorot_keeps_a_signal_where_the_papers_start_nearly_loses_it():
    spread = {}
    for init in ("paper", "glorot"):
        model = EncoderDecoder(tiny_config(init=init), rngs=nnx.Rngs(0))
        spread[init] = model.logits(SOURCE, all_tokens(SOURCE), INPUTS).std()
    assert spread["glorot"] > 100 * spread["paper"] > 0


def test_an_id_outside_the_vocabulary_gives_nan_rather_than_another_word():
    model = tiny_model()
    assert jnp.isnan(model.logits(SOURCE.at[1].set(11), all_tokens(SOURCE), INPUTS)).all()
