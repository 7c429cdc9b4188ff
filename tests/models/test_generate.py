"""Generation: the model's tokens, alone or in a batch, with any cache, up to a stop sequence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax.models import PromptLookup, Sampling, decoding, generate, next_token_logits, sample
from attn_jax.models.generation import rounded_length
from tests.helpers.tolerance import assert_within
from tests.models.test_gpt import LLAMA, TINY, drawn

PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]]
MODEL = drawn(LLAMA)


def by_hand(prompt, number):
    """Greedy decoding without caches: the whole text is computed again for each token."""
    text = list(prompt)
    for _ in range(number):
        text.append(int(MODEL(jnp.array([text]))[0, -1].argmax()))
    return text[len(prompt) :]


GREEDY = [by_hand(prompt, 10) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", ["contiguous", "sliding", "paged"])
def test_greedy_is_the_likeliest_token_again_and_again(kind):
    assert generate(MODEL, PROMPTS, max_new_tokens=10, kind=kind).tokens == GREEDY


def test_int8_caches_give_the_same_first_token():
    result = generate(MODEL, PROMPTS, max_new_tokens=10, int8=True).tokens
    assert [row[0] for row in result] == [row[0] for row in GREEDY]


def test_the_same_key_gives_the_same_tokens_and_another_does_not():
    draw = Sampling(temperature=1.5)
    options = {"max_new_tokens": 9, "sampling": draw}
    first = generate(MODEL, PROMPTS, rng=jax.random.key(1), **options).tokens
    assert generate(MODEL, PROMPTS, rng=jax.random.key(1), **options).tokens == first
    assert generate(MODEL, PROMPTS[:1], rng=jax.random.key(1), **options).tokens == first[:1]
    assert generate(MODEL, PROMPTS, rng=jax.random.key(2), **options).tokens != first
    assert generate(MODEL, [PROMPTS[0]] * 2, rng=jax.random.key(1), **options).tokens[1] != first[0]


def test_a_text_ends_before_its_stop_sequence_and_the_others_continue():
    stop = GREEDY[0][4:6]
    end = next(i for i in range(9) if GREEDY[0][i : i + 2] == stop)
    result = generate(MODEL, PROMPTS, max_new_tokens=10, stop=[stop])
    assert result.tokens[0] == GREEDY[0][:end]
    assert result.stopped[0]
    for row in (1, 2):
        if not result.stopped[row]:
            assert result.tokens[row] == GREEDY[row]


def test_streamed_tokens_are_those_returned_without_any_stop_sequence():
    streamed = {row: [] for row in range(3)}
    stop = [GREEDY[0][7:9]]
    result = generate(
        MODEL,
        PROMPTS,
        max_new_tokens=10,
        stop=stop,
        on_tokens=lambda row, new: streamed[row].extend(new),
    )
    assert list(streamed.values()) == result.tokens


def test_passes_end_with_the_last_text():
    stop = GREEDY[0][1:3]
    end = next(i for i in range(9) if GREEDY[0][i : i + 2] == stop)
    result = generate(MODEL, PROMPTS[:1], max_new_tokens=10, stop=[stop])
    assert (result.tokens, result.passes) == ([GREEDY[0][:end]], end + 2)
    for most in (3, 9):  # of the first eight passes, and beyond
        result = generate(MODEL, PROMPTS, max_new_tokens=most)
        assert (result.tokens, result.passes) == ([row[:most] for row in GREEDY], most)


def test_free_lengths_compile_a_bounded_number_of_times():
    model = drawn(dataclasses.replace(TINY, num_layers=1, max_length=64))
    compiled = decoding.prefill, decoding.prefill_draft, decoding.decode_chunk
    draft = PromptLookup(2)

    def generated(length, new):
        prompt = [i % 7 for i in range(length)]
        return generate(model, [prompt], max_new_tokens=new, draft=draft).tokens

    generated(17, 5)
    before = [function._cache_size() for function in compiled]
    for length, new in ((18, 6), (20, 1), (21, 3), (23, 1)):
        assert len(generated(length, new)[0]) == new
    assert [function._cache_size() for function in compiled] == before


def test_lengths_are_rounded_to_few_sizes():
    sizes = [rounded_length(length) for length in range(1, 4097)]
    assert all(length <= size for length, size in enumerate(sizes, start=1))
    assert all(size < 1.5 * length for length, size in enumerate(sizes, start=1) if length > 16)
    assert sorted(set(sizes)) == [
        16,
        24,
        32,
        48,
        64,
        96,
        128,
        192,
        256,
        384,
        512,
        768,
        1024,
        1536,
        2048,
        3072,
        4096,
    ]


def test_seconds_are_counted():
    result = generate(MODEL, PROMPTS, max_new_tokens=2)
    assert result.seconds > 0 < result.prompt_seconds
    assert result.tokens_per_second == 6 / result.seconds


LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.07, 0.03]))
LEFT = {
    "all": (Sampling(), [0.4, 0.3, 0.2, 0.07, 0.03]),
    "greedy": (Sampling(temperature=0.0), [1, 0, 0, 0, 0]),
    "half the temperature": (Sampling(temperature=0.5), None),
    "two": (Sampling(top_k=2), [0.4, 0.3, 0, 0, 0]),
    "more than there are": (Sampling(top_k=9), [0.4, 0.3, 0.2, 0.07, 0.03]),
    "mass reached by two": (Sampling(top_p=0.7 - 1e-6), [0.4, 0.3, 0, 0, 0]),
    "mass just not reached": (Sampling(top_p=0.7 + 1e-6), [0.4, 0.3, 0.2, 0, 0]),
    "mass met by two": (Sampling(top_p=0.7), [0.4, 0.3, 0, 0, 0]),
    "all mass": (Sampling(top_p=1.0), [0.4, 0.3, 0.2, 0.07, 0.03]),
    "half of the best": (Sampling(min_p=0.5 - 1e-6), [0.4, 0.3, 0.2, 0, 0]),
    "mass of two": (Sampling(top_k=2, top_p=0.5), [0.4, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("rule", LEFT)
def test_each_rule_keeps_the_tokens_it_should(rule):
    sampling, left = LEFT[rule]
    left = np.exp(2 * LOGITS) if left is None else np.array(left, float)
    got = jax.nn.softmax(next_token_logits(jnp.asarray(LOGITS, jnp.float32), sampling))
    assert_within(got.astype(jnp.float32), (left / left.sum()).astype(np.float32), atol=1e-6)


@pytest.mark.parametrize("mass", [0.4, 0.65, 0.85, 0.95])
def test_a_mass_that_is_met_exactly_leaves_the_fewest_tokens(mass):
    shares = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    left = next_token_logits(jnp.asarray(np.log(shares), jnp.float32), Sampling(top_p=mass))
    wanted = np.searchsorted(np.cumsum(shares), mass - 1e-9) + 1
    assert int(jnp.isfinite(left).sum()) == wanted


def test_all_mass_includes_tokens_below_the_rounding_of_float32():
    left = next_token_logits(jnp.array([0.0, -30.0, -60.0]), Sampling(top_p=1.0))
    assert jnp.isfinite(left).all()


@pytest.mark.parametrize("temperature", [1e-320, 1e-38, 1e-3, 1e30])
def test_any_temperature_leaves_a_distribution(temperature):
    for logits in ([0.3, 0.5, -2.0], [-3.0, -1.0, -1.0], [-3e38, 3e38, -np.inf]):
        left = next_token_logits(jnp.array(logits, jnp.float32), Sampling(temperature=temperature))
        with np.errstate(over="ignore"):
            expected = np.exp((np.array(logits) - max(logits)) / temperature)
        expected = (expected / expected.sum()).astype(np.float32)
        assert_within(jax.nn.softmax(left), expected, atol=1e-6)


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_any_penalty_leaves_a_distribution(penalty):
    logits = jnp.array([0.0, 2.0, -2.0, -jnp.inf])
    for sampling in (Sampling(penalty), Sampling(penalty, temperature=1e-38, min_p=0.5)):
        left = jax.nn.softmax(next_token_logits(logits, sampling, jnp.ones(4, bool)))
        assert float(left.sum()) == pytest.approx(1)


def test_tokens_that_were_there_are_less_likely_whatever_their_sign():
    seen = jnp.array([True, True, False])
    got = next_token_logits(jnp.array([2.0, -2.0, 1.0]), Sampling(repetition_penalty=2.0), seen)
    assert got.tolist() == [1.0, -4.0, 1.0]


def test_a_penalty_keeps_a_text_from_repeating_itself():
    plain = GREEDY[0]
    sampling = Sampling(repetition_penalty=50.0, temperature=0.0)
    result = generate(MODEL, PROMPTS[:1], max_new_tokens=10, sampling=sampling).tokens[0]
    assert len(set(result) | set(PROMPTS[0])) > len(set(plain) | set(PROMPTS[0]))


def test_draws_have_the_frequencies_of_what_is_left():
    sampling = Sampling(top_k=3)
    rngs = jax.random.split(jax.random.key(0), 4000)
    logits = jnp.asarray(LOGITS, jnp.float32)
    draws = jax.vmap(lambda rng: sample(logits, sampling, rng))(rngs)
    counts = np.bincount(np.asarray(draws), minlength=5) / 4000
    wanted = np.array([4, 3, 2, 0, 0]) / 9
    assert not counts[3:].any()
    assert np.all(np.abs(counts - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 4000) + 1e-9)


MISTAKES = {
    "no prompt": ({"prompts": []}, r"prompts must hold at least one"),
    "an empty prompt": ({"prompts": [[1], []]}, r"prompts\[1\] is empty; start it with a token"),
    "an unknown id": ({"prompts": [[23]]}, r"ids between 0 and 22; got 23 to 23"),
    "no new token": ({"max_new_tokens": 0}, r"max_new_tokens must be at least 1; got 0"),
    "an empty stop": ({"stop": [[]]}, r"stop has an empty sequence"),
    "no key": ({"sampling": Sampling()}, r"rng is needed where the temperature is above 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_advice(mistake):
    options, message = MISTAKES[mistake]
    options = {"prompts": PROMPTS, "max_new_tokens": 3, **options}
    with pytest.raises(ValueError, match=message):
        generate(MODEL, options.pop("prompts"), **options)


def test_more_tokens_than_there_are_positions_are_refused():
    with pytest.raises(ValueError, match=r"\[0\] has 7 tokens .* is 10, .* the 16 positions"):
        generate(drawn(TINY), [[1] * 7], max_new_tokens=10)


RANGES = {
    "top_p 0": ({"top_p": 0.0}, r"top_p must be in \(0, 1\]; got 0.0"),
    "top_p above 1": ({"top_p": 1.1}, r"top_p must be in \(0, 1\]; got 1.1"),
    "min_p 0": ({"min_p": 0.0}, r"min_p must be in \(0, 1\]"),
    "top_k 0": ({"top_k": 0}, r"top_k must be at least 1; got 0"),
    "cold": ({"temperature": -1.0}, r"temperature must be a finite number >= 0; got -1.0"),
    "no penalty": ({"repetition_penalty": 0.0}, r"repetition_penalty must be a finite number > 0"),
}


@pytest.mark.parametrize("choice", RANGES)
def test_rules_out_of_range_are_refused(choice):
    options, message = RANGES[choice]
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
