from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax.models import (
    BOS,
    EOS,
    PAD,
    EncoderDecoder,
    beam_search,
    decoder_inputs,
    force,
    greedy_search,
    search,
)
from attn_jax.models.beam import Hypotheses, expand
from tests.helpers.tiny_models import SOURCE, TARGET, VARIANTS, all_tokens, steps, tiny_model
from tests.helpers.tolerance import assert_close, assert_equal

TOKENS, LENGTH = 4, 4  # the toy outputs at most four of the tokens EOS = 2, 3, 4, 5


@pytest.fixture(scope="module")
def toy():
    """A trigram model of six tokens, PAD and BOS impossible: `table[last, before] -> log p`."""
    logits = np.random.default_rng(4).normal(size=(6, 6, 6)) * 2
    logits[..., EOS] += 1
    logits[..., [PAD, BOS]] = -np.inf
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))


def search_toy(toy, **options):
    def step(before, token):
        return token, toy[token, before]

    return jax.jit(partial(search, step, max_length=LENGTH, **options))(jnp.array(BOS))


def every_translation(toy):
    """All translations of up to four tokens of the toy, with log-probabilities, by enumeration."""
    table, found = np.asarray(toy, np.float64), {}
    for words in product(range(2, 2 + TOKENS), repeat=LENGTH):
        end = words.index(EOS) + 1 if EOS in words else LENGTH
        history = [BOS, BOS, *words[:end]]
        steps = zip(history[1:], history, history[2:], strict=False)
        tokens = (*words[:end], *[PAD] * (LENGTH - end))
        found[tokens] = sum(table[last, before, word] for last, before, word in steps)
    return found


def greedy(toy):
    before, last, words = BOS, BOS, []
    while len(words) < LENGTH and last != EOS:
        before, last = last, int(toy[last, before].argmax())
        words.append(last)
    return words + [PAD] * (LENGTH - len(words))


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_d17_a_beam_wide_enough_for_everything_is_exhaustive_search(toy, length_penalty):
    beams = search_toy(toy, width=TOKENS**LENGTH, length_penalty=length_penalty)
    found = every_translation(toy)
    tokens = [
        tuple(row)
        for row, p in zip(beams.tokens.tolist(), beams.log_probs, strict=True)
        if p > -np.inf
    ]
    assert sorted(tokens) == sorted(found)
    lengths = np.array([sum(token != PAD for token in row) for row in tokens])
    log_probs = np.array([found[row] for row in tokens])
    scores = log_probs / ((5 + lengths) / 6) ** length_penalty
    assert_close(beams.log_probs[: len(found)], log_probs.astype(np.float32))
    assert_close(beams.scores[: len(found)], scores.astype(np.float32))
    assert (np.diff(beams.scores[: len(found)]) <= 0).all()
    assert tokens[0] == max(
        found, key=lambda row: found[row] / ((5 + LENGTH - row.count(PAD)) / 6) ** length_penalty
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_log_probabilities_are_summed_in_float32(dtype):
    log_probs = jnp.log(jnp.array([0.0, 0.0, 0.0, 0.6])).astype(dtype)
    length = 1024
    beams = search(lambda state, _: (state, log_probs), (), width=1, max_length=length)
    expected = np.full(1, length * float(log_probs[3]), np.float32)
    np.testing.assert_allclose(beams.log_probs, expected, rtol=1e-5)  # of 1,024 sums
    assert beams.log_probs.dtype == jnp.float32


def test_the_log_probabilities_of_a_narrow_model_are_taken_in_float32():
    model = tiny_model(dtype=jnp.bfloat16)
    trace = greedy_search(model, SOURCE, all_tokens(SOURCE), max_length=2)
    _, step = model.step(
        memory := model.encode(SOURCE, all_tokens(SOURCE)), model.start(memory, 2), jnp.int32(BOS)
    )
    logits = np.asarray(step.logits, np.float64)
    expected = np.sort(logits[2:])[:-6:-1] - np.log(np.exp(logits).sum())
    assert_close(trace.top_log_probs[0], expected.astype(np.float32))


def test_d17_a_beam_of_one_is_greedy(toy):
    assert search_toy(toy, width=1).tokens.tolist() == [greedy(toy)]


def test_a_wider_beam_finds_what_greedy_misses(toy):
    best = max(every_translation(toy).values())
    plain = {
        width: search_toy(toy, width=width, length_penalty=0.0).log_probs[0] for width in (1, 8)
    }
    assert float(plain[8]) == pytest.approx(best, rel=1e-6)
    assert plain[1] < plain[8]


def test_d18_a_length_penalty_of_zero_ranks_by_plain_log_probability(toy):
    beams = search_toy(toy, width=5, length_penalty=0.0)
    assert_equal(beams.scores, beams.log_probs)


def test_a_length_penalty_favours_longer_translations(toy):
    def mean_length(length_penalty):
        return (search_toy(toy, width=6, length_penalty=length_penalty).tokens != PAD).sum(1).mean()

    assert mean_length(3.0) > mean_length(0.0)


def hypotheses_of_tfa(lengths, finished):
    """Three beams of equal probability, as in TensorFlow Addons' test of its beam step."""
    return Hypotheses(
        state=jnp.arange(3),
        tokens=jnp.zeros((3, 4), int),
        last=jnp.ones(3, int),
        lengths=jnp.array(lengths),
        log_probs=jnp.full(3, jnp.log(jnp.float32(1 / 3))),
        finished=jnp.array(finished),
    )


TFA_LOGITS = np.full((2, 3, 5), 0.0001, np.float32)
for index, logit in {(0, 0, 2): 1.9, (0, 0, 3): 2.1, (0, 1, 3): 3.1, (0, 1, 4): 0.9}.items():
    TFA_LOGITS[index] = logit
for index, logit in {(1, 0, 1): 0.5, (1, 1, 2): 2.7, (1, 2, 2): 10.0, (1, 2, 3): 0.2}.items():
    TFA_LOGITS[index] = logit


@pytest.mark.parametrize(
    ("example", "tokens", "parents"), [(0, [3, 3, 2], [1, 0, 0]), (1, [2, 2, 1], [2, 1, 0])]
)
def test_a_step_chooses_as_tensorflow_addons_does(example, tokens, parents):
    log_probs = jax.nn.log_softmax(jnp.asarray(TFA_LOGITS[example]))
    grown = expand(hypotheses_of_tfa([2, 2, 2], [False] * 3), log_probs, jnp.array(2), 0.6)
    assert grown.last.tolist() == tokens
    assert grown.state.tolist() == parents
    assert grown.tokens[:, 2].tolist() == tokens
    assert grown.lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("example", "lengths", "finished", "tokens", "parents", "grown_lengths"),
    [
        (0, [2, 1, 2], [False, True, False], [0, 3, 2], [1, 0, 0], [1, 3, 3]),
        (1, [2, 2, 1], [False, False, True], [2, 0, 1], [1, 2, 0], [3, 1, 3]),
    ],
)
def test_a_finished_beam_waits_as_in_tensorflow_addons(
    example, lengths, finished, tokens, parents, grown_lengths
):
    logits = TFA_LOGITS.copy()
    logits[1, 1, 2], logits[1, 2, 2] = 5.7, 1.0
    log_probs = jax.nn.log_softmax(jnp.asarray(logits[example]))
    grown = expand(hypotheses_of_tfa(lengths, finished), log_probs, jnp.array(2), 0.6)
    assert grown.last.tolist() == tokens
    assert grown.state.tolist() == parents
    assert grown.lengths.tolist() == grown_lengths


@pytest.fixture(scope="module", params=["attention", "final-lstm", "luong-local"])
def model(request):
    return tiny_model(seed=3, **VARIANTS[request.param])


SOURCES = jnp.array([[4, 10, 7, 5, 8, 2], [9, 2, 0, 0, 0, 0], [3, 3, 6, 2, 0, 0]])


@pytest.fixture(scope="module")
def traces(model):
    return jax.jit(jax.vmap(partial(greedy_search, model, max_length=7)))(SOURCES, SOURCES != PAD)


def test_greedy_search_equals_decoding_step_by_step(model, traces):
    for source, target in zip(SOURCES, traces.target.tolist(), strict=True):
        memory = model.encode(source, source != PAD)
        state, token, found = model.start(memory), BOS, []
        step = jax.jit(partial(model.step, memory))
        while len(found) < 7 and token != EOS:
            state, result = step(state, jnp.array(token))
            token = int(result.logits.at[jnp.array([PAD, BOS])].set(-jnp.inf).argmax())
            found.append(token)
        assert target == found + [PAD] * (7 - len(found))


def test_forcing_a_models_own_output_gives_the_same_trace(model, traces):
    forced = jax.jit(jax.vmap(partial(force, model)))(SOURCES, SOURCES != PAD, traces.target)
    for name, again, before in zip(traces._fields, forced, traces, strict=True):
        if jnp.issubdtype(before.dtype, jnp.floating):
            assert_close(again, before)
        else:
            assert_equal(again, before), name


def test_a_trace_holds_what_the_steps_computed(model):
    trace = force(model, SOURCE, all_tokens(SOURCE), TARGET)
    memory = model.encode(SOURCE, all_tokens(SOURCE))
    found = steps(model, memory, decoder_inputs(TARGET))
    assert_close(trace.states, found.state)
    assert_close(trace.scores + 1, found.scores + 1)
    assert_close(trace.weights, found.weights)
    assert_close(trace.contexts, found.context)
    assert_close(trace.weights @ memory.annotations, found.context)
    log_probs = jax.nn.log_softmax(found.logits).at[:, :2].set(-jnp.inf)
    assert_equal(trace.top_tokens, jnp.argsort(-log_probs)[:, :5])
    assert_close(trace.top_log_probs, jnp.sort(log_probs)[:, :-6:-1])


def test_nothing_is_recorded_after_the_end(model):
    ended = jnp.array([5, EOS, 7, 7])
    trace = force(model, SOURCE, all_tokens(SOURCE), ended)
    assert trace.target.tolist() == [5, EOS, PAD, PAD]
    assert trace.target_mask.tolist() == [True, True, False, False]
    for rows in (trace.states, trace.weights, trace.contexts, trace.top_log_probs):
        assert rows[:2].any(axis=1).all()
        assert not rows[2:].any()


def test_a_beam_of_one_is_greedy_search(model, traces):
    beam = jax.jit(jax.vmap(partial(beam_search, model, width=1, max_length=7)))
    assert_equal(beam(SOURCES, SOURCES != PAD).tokens[:, 0], traces.target)


def test_a_beams_log_probability_is_that_of_its_tokens(model):
    beams = jax.jit(partial(beam_search, model, width=3, max_length=5))(SOURCE, all_tokens(SOURCE))
    for tokens, log_prob in zip(beams.tokens, beams.log_probs, strict=True):
        found = tokens[tokens != PAD]
        logits = model.logits(SOURCE, all_tokens(SOURCE), decoder_inputs(found))
        expected = jax.nn.log_softmax(logits)[jnp.arange(found.size), found].sum()
        assert float(log_prob) == pytest.approx(float(expected), rel=1e-5)


def test_neither_search_ever_outputs_padding_or_bos():
    model = tiny_model(seed=1)
    readout = model.decoder.readout_layer
    readout.state.bias[...] = jnp.full_like(readout.state.bias, 20.0)
    readout.words.kernel[...] = readout.words.kernel.at[:, jnp.array([PAD, BOS])].set(10.0)
    assert model.logits(SOURCE, all_tokens(SOURCE), SOURCE[:1])[0].argmax() in (PAD, BOS)
    trace = greedy_search(model, SOURCE, all_tokens(SOURCE), max_length=6)
    beams = beam_search(model, SOURCE, all_tokens(SOURCE), width=2, max_length=6)
    for tokens in (trace.target, *beams.tokens):
        length = int((tokens == EOS).argmax()) + 1 if EOS in tokens.tolist() else tokens.size
        assert not jnp.isin(tokens[:length], jnp.array([PAD, BOS])).any()
    assert not jnp.isin(trace.top_tokens[trace.target_mask], jnp.array([PAD, BOS])).any()


def test_greedy_search_stops_behind_eos(monkeypatch):
    calls, step = [], EncoderDecoder.step

    def counted_step(*arguments):
        jax.debug.callback(lambda: calls.append(1))
        return step(*arguments)

    monkeypatch.setattr(EncoderDecoder, "step", counted_step)
    model = tiny_model(seed=1)
    readout = model.decoder.readout_layer
    readout.state.bias[...] = jnp.full_like(readout.state.bias, 20.0)
    readout.words.kernel[...] = readout.words.kernel.at[:, EOS].set(10.0)
    trace = greedy_search(model, SOURCE, all_tokens(SOURCE), max_length=30)
    jax.effects_barrier()
    assert trace.target[:2].tolist() == [EOS, PAD]
    assert len(calls) == 1


def test_beam_search_stops_when_every_beam_has_ended():
    calls = []

    def step(state, token):
        jax.debug.callback(lambda: calls.append(1))
        return state, jnp.log(jnp.array([0.0, 0.0, 1.0, 0.0]))  # always EOS

    beams = search(step, (), width=1, max_length=50)
    jax.effects_barrier()
    assert beams.tokens[0, :2].tolist() == [EOS, PAD]
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 2, "max_length": 0}, "max_length=0 must be at least 1"),
        ({"width": 0, "max_length": 3}, "width=0 must be at least 1"),
        ({"width": 2, "max_length": 3, "length_penalty": -1.0}, "length_penalty=-1.0"),
    ],
)
def test_searches_without_room_for_a_token_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        beam_search(tiny_model(), SOURCE, all_tokens(SOURCE), **options)


def test_greedy_search_without_room_for_a_word_is_refused():
    with pytest.raises(ValueError, match="max_length=0 must be at least 1"):
        greedy_search(tiny_model(), SOURCE, all_tokens(SOURCE), max_length=0)
