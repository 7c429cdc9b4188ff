"""The Transformer equals torch's, and decode steps equal teacher forcing."""

import dataclasses
import importlib.util
import json
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import (
    BOS,
    EOS,
    PAD,
    EncoderDecoder,
    Transformer,
    TransformerConfig,
    Translator,
    beam_search,
    decoder_inputs,
    force,
    greedy_search,
    noam_schedule,
)
from tests.helpers.tiny_models import SOURCE, SOURCE_VOCAB, TARGET, TARGET_VOCAB, all_tokens, drawn
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal, assert_within
from tests.helpers.torch_weights import from_torch

DATA = Path(__file__).parents[1] / "data"
SIZES = {"model_dim": 6, "num_heads": 3, "num_layers": 2, "hidden_dim": 10}
VARIANTS = {
    "post": {},
    "pre": {"placement": "pre"},
    "shared, torch's": {"target_vocab": None, "final_norm": True, "use_bias": True},
}
INPUTS = decoder_inputs(TARGET)
LONGER = jnp.concatenate([SOURCE, jnp.array([PAD, PAD])])  # [S]
REAL = LONGER != PAD


def tiny(*, seed: int = 0, **choices) -> Transformer:
    """A model whose parameters are all perturbed, biases and norms too."""
    config = TransformerConfig(SOURCE_VOCAB, **({"target_vocab": TARGET_VOCAB} | SIZES | choices))
    model = Transformer(config, rngs=nnx.Rngs(seed))
    noise = nnx.state(drawn(model, seed))
    nnx.update(model, jax.tree.map(lambda start, n: start + 0.3 * n, nnx.state(model), noise))
    return model


def forward(model):
    """Teacher forcing of a batch, compiled."""
    return jax.jit(jax.vmap(model.logits))


def decode(model):
    """One sentence, decoded step by step with caches; compiled."""

    def decoded(source, source_mask, inputs):
        memory = model.encode(source, source_mask)
        start = model.start(memory, inputs.shape[0])
        return jax.lax.scan(partial(model.step, memory), start, inputs)[1]

    return jax.jit(decoded)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def logits(model):
    return forward(model)


@pytest.fixture(scope="module")
def decoded(model):
    return decode(model)


# torch


def torch_config(placement: str) -> TransformerConfig:
    sizes = {"model_dim": 12, "num_heads": 3, "num_layers": 2, "hidden_dim": 20, "norm_eps": 1e-5}
    like_torch = {"final_norm": True, "use_bias": True, "placement": placement}
    return TransformerConfig(11, 9, **sizes, **like_torch)


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_logits_are_those_of_torch(placement):
    golden = np.load(DATA / "torch_transformer.npz")
    ours = jax.jit(jax.vmap(from_torch(torch_config(placement), golden).logits))
    found = ours(golden["source"], golden["source"] != PAD, golden["inputs"])
    assert_within(found, golden[f"{placement}.logits"].astype(np.float32), atol=1e-5)


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_logits_are_those_of_torch_here_and_now(placement):
    pytest.importorskip("torch", reason="no torch here; torch_transformer.npz has its results")
    spec = importlib.util.spec_from_file_location("maker", DATA / "make_torch_transformer.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    theirs, tables = maker.stacks(placement == "pre"), maker.tables()
    weights = {name: leaf.numpy() for name, leaf in theirs.state_dict().items()}
    weights |= {f"table.{name}": table.numpy() for name, table in tables.items()}
    rng = np.random.default_rng(3)
    source, inputs = rng.integers(1, 11, (4, 9)), rng.integers(1, 9, (4, 6))
    source[1, 5:] = source[3, 1:] = PAD
    ours = jax.jit(jax.vmap(from_torch(torch_config(placement), weights).logits))
    expected = maker.logits(theirs, tables, source, inputs).detach().numpy()
    assert_within(ours(source, source != PAD, inputs), expected.astype(np.float32), atol=1e-5)


# the paper's table 3

TABLE_3 = {
    "base": ({}, 65),
    "2 layers": ({"num_layers": 2}, 36),
    "4 layers": ({"num_layers": 4}, 50),
    "8 layers": ({"num_layers": 8}, 80),
    "width 256": ({"model_dim": 256}, 28),
    "width 1024": ({"model_dim": 1024}, 168),
    "hidden 1024": ({"hidden_dim": 1024}, 53),
    "hidden 4096": ({"hidden_dim": 4096}, 90),
}


@pytest.mark.parametrize("row", TABLE_3)
def test_the_papers_models_have_the_papers_number_of_parameters(row):
    choices, millions = TABLE_3[row]
    config = TransformerConfig(41_100, **choices)
    abstract = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract)))
    assert round(size / 1e6) == millions


# both ways to the same logits


def three(ids):
    return jnp.stack([ids] * 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_decode_steps_with_caches_equal_teacher_forcing(variant):
    model = tiny(**VARIANTS[variant])
    expected = forward(model)(LONGER[None], REAL[None], INPUTS[None])[0]
    assert_within(decode(model)(LONGER, REAL, INPUTS).logits, expected, atol=1e-5)
    assert_differs(expected[1:], expected[:-1])


def test_padding_on_the_right_left_and_in_between_changes_nothing(logits, decoded):
    left, between = jnp.array([0, 0, 4, 10, 7, 5, 8, 2]), jnp.array([4, 0, 10, 7, 5, 0, 8, 2])
    sources = jnp.stack([LONGER, left, between])
    found = logits(sources, sources != PAD, three(INPUTS))
    filled = jnp.where(sources == PAD, 9, sources)
    assert_equal(logits(filled, sources != PAD, three(INPUTS)), found)
    for i, source in enumerate(sources):
        assert_within(found[i], found[0], atol=1e-5)
        assert_within(decoded(source, source != PAD, INPUTS).logits, found[0], atol=1e-5)


def test_batch_neighbours_change_nothing(logits):
    first = jnp.stack([LONGER, LONGER[::-1], LONGER // 2])
    second = first.at[1:].set(9)
    expected = logits(first, first != PAD, three(INPUTS))
    found = logits(second, second != PAD, three(INPUTS).at[1:].set(3))
    assert_equal(found[0], expected[0])
    assert_differs(found[1:], expected[1:])


def test_later_words_do_not_reach_earlier_logits(logits):
    inputs = three(INPUTS).at[1, 2].set(3)
    before, changed, _ = logits(three(LONGER), three(REAL), inputs)
    assert_equal(changed[:2], before[:2])
    assert_differs(changed[2], before[2])


def test_words_in_another_order_are_another_sentence(logits):
    sources = three(LONGER).at[1, :6].set(SOURCE[::-1])
    inputs = three(INPUTS).at[2, :2].set(INPUTS[1::-1])
    before, *others = logits(sources, sources != PAD, inputs)
    for changed in others:
        assert_differs(changed[2:], before[2:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(variant):
    graphdef, parameters = nnx.split(tiny(**VARIANTS[variant]))

    def loss(parameters):
        logits = nnx.merge(graphdef, parameters).logits(SOURCE, all_tokens(SOURCE), INPUTS)
        return jnp.sum(jnp.sin(logits))

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(parameters)):
        assert jnp.isfinite(gradient).all(), path
        shifts_all_scores_alike = "b_key" in jax.tree_util.keystr(path)
        assert gradient.any() or shifts_all_scores_alike, path


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_split_and_merge_give_the_model_back(model, graph):
    graphdef, state = nnx.split(model, graph=graph)
    again = nnx.merge(graphdef, state)
    assert_equal(again.logits(LONGER, REAL, INPUTS), model.logits(LONGER, REAL, INPUTS))


def test_a_shared_vocabulary_has_one_table_and_two_have_two():
    def table_shapes(**choices):
        state = nnx.to_flat_state(nnx.state(tiny(**choices)))
        return [leaf.shape for path, leaf in state if path[-1] == "table"]

    assert table_shapes(target_vocab=None) == [(SOURCE_VOCAB, 6)]
    assert sorted(table_shapes()) == [(TARGET_VOCAB, 6), (SOURCE_VOCAB, 6)]


def test_dropout_needs_a_key_and_changes_only_training():
    model, without = tiny(dropout_rate=0.5), tiny(dropout_rate=0.0)
    train = jax.jit(partial(model.logits, LONGER, REAL, INPUTS))
    expected = without.logits(LONGER, REAL, INPUTS)
    assert_equal(model.logits(LONGER, REAL, INPUTS), expected)
    assert_equal(without.logits(LONGER, REAL, INPUTS, rng=jax.random.key(1)), expected)
    first, again, other = (train(rng=jax.random.key(seed)) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert_differs(first, other)
    assert_differs(first, expected)


def test_a_source_of_padding_alone_has_context_zero(decoded):
    nothing = decoded(LONGER, ~all_tokens(LONGER), INPUTS)
    assert not nothing.weights.any()
    assert not nothing.context.any()
    assert jnp.isfinite(nothing.logits).all()


def test_an_id_outside_the_vocabulary_gives_nan_rather_than_another_word(logits):
    sources = three(LONGER).at[1, 1].set(SOURCE_VOCAB)
    assert_equal(
        jnp.isnan(logits(sources, sources != PAD, three(INPUTS))).any(axis=(1, 2)),
        jnp.array([False, True, False]),
    )


# searches and traces

SOURCES = jnp.array([[4, 10, 7, 5, 8, 2], [9, 2, 0, 0, 0, 0], [3, 3, 6, 2, 0, 0]])


@pytest.fixture(scope="module")
def traces(model):
    return jax.jit(jax.vmap(partial(greedy_search, model, max_length=7)))(SOURCES, SOURCES != PAD)


def test_greedy_search_outputs_what_teacher_forcing_ranks_first(logits, traces):
    inputs = jax.vmap(decoder_inputs)(traces.target)
    log_probs = jax.nn.log_softmax(logits(SOURCES, SOURCES != PAD, inputs))
    log_probs, is_token = log_probs.at[..., :2].set(-jnp.inf), traces.target_mask
    assert is_token.sum() > SOURCES.shape[0]
    assert_equal(traces.target[is_token], log_probs.argmax(-1)[is_token])
    best = jax.lax.top_k(log_probs, 5)[0]
    assert_within(traces.top_log_probs[is_token], best[is_token], atol=1e-5)


def test_forcing_a_models_own_output_gives_the_same_trace(model, traces):
    forced = jax.jit(jax.vmap(partial(force, model)))(SOURCES, SOURCES != PAD, traces.target)
    assert_equal(forced.target, traces.target)
    assert_within(forced.weights, traces.weights, atol=1e-5)


def test_a_beam_of_one_is_greedy_search(model, traces):
    beam = jax.jit(jax.vmap(partial(beam_search, model, width=1, max_length=7)))
    assert_equal(beam(SOURCES, SOURCES != PAD).tokens[:, 0], traces.target)


LENGTH = 3


def every_translation(model):
    """All translations of up to three tokens of a model of six, with float64 log-probabilities."""
    words = np.array(list(product(range(2, 6), repeat=LENGTH)))
    ends = np.cumsum(words == EOS, axis=1)
    decoded = np.unique(np.where((ends - (words == EOS)) > 0, PAD, words), axis=0)
    inputs = np.concatenate([np.full_like(decoded[:, :1], BOS), decoded[:, :-1]], axis=1)
    logits = jax.jit(jax.vmap(partial(model.logits, LONGER, REAL)))(inputs)
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    log_probs_of_tokens = np.take_along_axis(log_probs, decoded[..., None], axis=-1)[..., 0]
    return decoded, np.sum(log_probs_of_tokens, axis=1, where=decoded != PAD)


@pytest.fixture(scope="module")
def toy():
    """A model of few tokens, and all its translations."""
    model = tiny(target_vocab=6, seed=2)
    return model, *every_translation(model)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6])
def test_a_beam_wide_enough_for_everything_is_exhaustive_search(toy, length_penalty):
    model, decoded, log_probs = toy
    wide = partial(beam_search, width=64, max_length=LENGTH, length_penalty=length_penalty)
    beams = jax.jit(partial(wide, model))(LONGER, REAL)
    scores = log_probs / ((5 + (decoded != PAD).sum(1)) / 6) ** length_penalty
    order = np.argsort(-scores)
    assert_equal(np.asarray(beams.tokens[: len(decoded)]), decoded[order].astype(np.int32))
    assert_within(beams.scores[: len(decoded)], scores[order].astype(np.float32), atol=1e-5)
    assert not jnp.isfinite(beams.log_probs[len(decoded) :]).any()


def test_a_trace_shows_one_layers_mean_over_heads(model, decoded):
    shown = decoded(LONGER, REAL, INPUTS)
    memory = model.encode(LONGER, REAL)
    block, x = model.decoder[0], model._embed(model.embedding, INPUTS, jnp.arange(4), None)
    x = block.self_residual(x, block.self_attention)
    layer, x = block.cross_attention, block.cross_residual.enter(x)
    query = jnp.einsum("TD,DNH->TNH", x, layer.w_query[...])
    scores = jnp.einsum("TNH,SNH->NTS", query, memory.keys[0]) / 2**0.5
    weights = jax.nn.softmax(jnp.where(REAL[None, None], scores, -jnp.inf)).mean(0)
    assert_within(shown.scores, scores.mean(0), atol=1e-5)
    assert_within(shown.weights, weights, atol=1e-5)
    assert_within(shown.context, weights @ memory.annotations, atol=1e-5)


def test_both_models_are_translators_and_a_layer_is_none():
    assert issubclass(Transformer, Translator)
    assert issubclass(EncoderDecoder, Translator)
    assert not issubclass(nnx.Linear, Translator)


# configuration and schedule


def test_an_empty_source_is_refused():
    empty = jnp.zeros(0, int)
    with pytest.raises(ValueError, match="source is empty"):
        tiny().encode(empty, all_tokens(empty))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"source_vocab": 3}, "source_vocab=3 must be at least 4"),
        ({"target_vocab": 2}, "target_vocab=2 must be at least 4"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"model_dim": 9, "num_heads": 3}, "model_dim=9 must be even"),
        ({"model_dim": 8, "num_heads": 3}, "num_heads=3 must divide model_dim=8"),
        ({"placement": "both"}, "placement='both' is unknown; choose 'post' or 'pre'"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be a number in \[0, 1\); got 1.0"),
    ],
)
def test_choices_that_make_no_model_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**({"source_vocab": 9} | choices))


def test_a_config_survives_json():
    config = TransformerConfig(9, 7, placement="pre", dropout_rate=0.2)
    assert TransformerConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_rate_is_highest_at_the_end_of_the_warm_up_and_is_the_papers():
    rate = jax.vmap(noam_schedule(512))(jnp.arange(20_000))
    assert int(rate.argmax()) + 1 == 4000
    assert float(rate.max()) == pytest.approx(6.98771e-4, rel=1e-6)


@pytest.mark.parametrize(("warmup_steps", "factor"), [(1, 1.0), (400, 0.5), (8000, 2.0)])
def test_any_warm_up_and_factor_follow_the_formula(warmup_steps, factor):
    schedule = noam_schedule(256, warmup_steps=warmup_steps, factor=factor)
    step = np.arange(1.0, 10_001)
    expected = factor * 256**-0.5 * np.minimum(step**-0.5, step * warmup_steps**-1.5)
    assert_close(jax.vmap(schedule)(jnp.arange(10_000)), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_dim": 0}, "model_dim=0 must be at least 1"),
        ({"model_dim": 8, "warmup_steps": 0}, "warmup_steps=0 must be at least 1"),
        ({"model_dim": 8, "factor": 0.0}, "factor=0.0 must be positive"),
    ],
)
def test_schedules_without_a_positive_rate_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        noam_schedule(**options)
