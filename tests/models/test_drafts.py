"""A draft changes how often a model runs, and none of its tokens."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from attn_jax.models import GPT, Draft, DraftModel, PromptLookup, Sampling, generate
from tests.models.test_gpt import LLAMA, TINY, drawn

MODEL = drawn(dataclasses.replace(LLAMA, num_layers=2, windows=(3, None)))
SMALL = GPT(dataclasses.replace(LLAMA, num_layers=1, windows=None), rngs=nnx.Rngs(5))
SHORT = dataclasses.replace(TINY, num_layers=1, vocab_size=LLAMA.vocab_size)
PROMPTS = [[3, 1, 4, 1, 5, 3, 1], [9, 2], [6, 6, 6, 6]]
DRAFTS = {
    "lookup": PromptLookup(5, 2),
    "one token": PromptLookup(1, 1),
    "small model": DraftModel(SMALL, 3),
    "itself": DraftModel(MODEL, 4),
}
RULES = {
    "greedy": Sampling(temperature=0.0),
    "drawn": Sampling(),
    "cold": Sampling(temperature=0.3, top_k=5),
    "penalty": Sampling(temperature=0.0, repetition_penalty=1.7),
    "drawn with a penalty": Sampling(temperature=0.7, repetition_penalty=1.3, top_p=0.9),
}


@functools.cache
def plain(rule="greedy"):
    return generate(MODEL, PROMPTS, max_new_tokens=21, sampling=RULES[rule], rng=jax.random.key(3))


@pytest.mark.parametrize(
    ("name", "rule"),
    [("lookup", rule) for rule in RULES]
    + [(name, "drawn with a penalty") for name in DRAFTS if name != "lookup"],
)
def test_a_draft_changes_no_token(name, rule):
    drafted = generate(
        MODEL,
        PROMPTS,
        max_new_tokens=21,
        sampling=RULES[rule],
        rng=jax.random.key(3),
        draft=DRAFTS[name],
    )
    assert drafted.tokens == plain(rule).tokens
    assert drafted.passes <= plain(rule).passes == 21


@pytest.mark.parametrize(("name", "kind"), [("lookup", "sliding"), ("small model", "paged")])
def test_a_draft_changes_no_token_whatever_the_cache(name, kind):
    drafted = generate(MODEL, PROMPTS, max_new_tokens=21, kind=kind, draft=DRAFTS[name])
    assert drafted.tokens == plain().tokens


def test_a_draft_changes_no_token_in_eight_bits():
    options = {"max_new_tokens": 21, "int8": True}
    alone = generate(MODEL, PROMPTS, **options)
    assert generate(MODEL, PROMPTS, **options, draft=DRAFTS["lookup"]).tokens == alone.tokens


def test_accepted_draft_tokens_save_passes():
    itself = generate(MODEL, PROMPTS, max_new_tokens=21, draft=DRAFTS["itself"])
    assert itself.passes == 5  # ⌈21 / (1 + 4)⌉


def test_no_text_is_longer_than_max_new_tokens():
    drafted = generate(MODEL, PROMPTS, max_new_tokens=7, draft=DRAFTS["itself"])
    assert drafted.tokens == [row[:7] for row in plain().tokens]


def test_draft_tokens_do_not_reach_past_the_last_position():
    model = drawn(SHORT)
    prompt = [[1, 2, 1, 2, 1, 2]]
    most = SHORT.max_length - 6
    alone = generate(model, prompt, max_new_tokens=most).tokens
    for draft in (PromptLookup(6), DraftModel(model, 6)):
        assert generate(model, prompt, max_new_tokens=most, draft=draft).tokens == alone


def test_a_stop_sequence_within_draft_tokens_ends_the_text():
    stop = [plain().tokens[0][9:11]]
    alone = generate(MODEL, PROMPTS, max_new_tokens=21, stop=stop)
    assert any(alone.stopped)
    drafted = generate(MODEL, PROMPTS, max_new_tokens=21, stop=stop, draft=DRAFTS["itself"])
    assert (drafted.tokens, drafted.stopped) == (alone.tokens, alone.stopped)


LOOKUPS = {
    "the latest of equal matches": ([1, 7, 1, 8, 1], [8, 1, 8, 1]),
    "the longest match before the latest": ([5, 1, 7, 9, 1, 8, 5, 1], [7, 9, 1, 8]),
    "past its own end it repeats itself": ([4, 6, 4, 6], [4, 6, 4, 6]),
    "the same token again and again": ([2, 2], [2, 2, 2, 2]),
    "nothing in common": ([1, 2, 3], [-1] * 4),
    "a single token": ([3], [-1] * 4),
    "no more than is compared": ([1, 2, 3, 9, 0, 2, 3, 8, 1, 2, 3], [8, 1, 2, 3]),
}


@pytest.mark.parametrize("case", LOOKUPS)
def test_lookup_proposes_what_followed_the_longest_match(case):
    text, proposed = LOOKUPS[case]
    lookup = PromptLookup(4, 2)
    prompt = jnp.array([[*text[:-1], 0, 0]])  # padded
    state = lookup.begin(prompt, jnp.array([len(text) - 1]), 9)
    got, _ = lookup.propose(state, jnp.array(text[-1:]), jnp.array([9]))
    assert got.tolist() == [proposed]


def test_lookup_also_searches_the_output():
    lookup = PromptLookup(2, 2)
    state = lookup.begin(jnp.array([[1, 2], [5, 0]]), jnp.array([2, 1]), 9)
    state = lookup.keep(state, jnp.array([[3, 4, 0], [6, 0, 0]]), jnp.array([2, 0]))
    state = lookup.keep(state, jnp.array([[1, 9, 9], [7, 8, 5]]), jnp.array([1, 3]))
    got, _ = lookup.propose(state, jnp.array([2, 7]), jnp.array([9, 9]))
    assert got.tolist() == [[3, 4], [8, 5]]


def test_a_users_own_draft_works():
    class Stubborn(nnx.Module):
        """Always proposes the same token."""

        tokens = 2

        def begin(self, prompts, lengths, most):
            return ()

        def propose(self, state, token, room):
            return jnp.full((token.size, 2), 6), state

        def keep(self, state, tokens, kept):
            return state

    draft = Stubborn()
    assert isinstance(draft, Draft)
    drafted = generate(MODEL, PROMPTS, max_new_tokens=21, draft=draft)
    assert drafted.tokens == plain().tokens


def test_numbers_below_one_are_refused():
    for make in (
        lambda: PromptLookup(0),
        lambda: DraftModel(MODEL, tokens=0),
    ):
        with pytest.raises(ValueError, match="tokens must be at least 1; got 0"):
            make()
    with pytest.raises(ValueError, match="longest must be at least 1; got -1"):
        PromptLookup(3, -1)


def test_another_vocabulary_is_refused():
    other = GPT(dataclasses.replace(LLAMA, vocab_size=9), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="model's vocabulary of 23 tokens; its own has 9"):
        generate(MODEL, PROMPTS, max_new_tokens=3, draft=DraftModel(other))


def test_a_draft_with_too_few_positions_is_refused():
    other = drawn(SHORT)
    with pytest.raises(ValueError, match=r"draft: prompts\[0\] has 7 tokens .* 16 positions"):
        generate(MODEL, PROMPTS, max_new_tokens=10, draft=DraftModel(other))
