"""The compiled half of `generate`: prompts into caches, then token after token."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from attn_jax.models.drafts import Draft
from attn_jax.models.gpt import GPT
from attn_jax.models.sampling import Sampling, sample

PASSES = 8  # of the model between two looks of the host: at stop sequences, for who listens


class Decoding(NamedTuple):
    """Where each row is.

    Attributes:
      token: what it says next.
      said: how many tokens it has said before that one.
      seen: the tokens of its prompt, of what it has said, and `token`; None where nobody asks.
      caches: of its prompt and of what it has said.
      draft: state of the draft, where there is one.
    """

    token: Int[Array, " B"]
    said: Int[Array, " B"]
    seen: Bool[Array, "B P"] | None
    caches: tuple
    draft: Any


class Said(NamedTuple):
    """What rows say in some passes of the model.

    Attributes:
      tokens: of each pass, of which the first `count` count.
      count: how many; 0 where the row was silent.
      passes: how many there were.
      overflowed: whether a cache had no room.
    """

    tokens: Int[Array, "I B C"]
    count: Int[Array, "I B"]
    passes: Int[Array, ""]
    overflowed: Bool[Array, ""]


@partial(jax.jit, static_argnums=0, static_argnames="sampling", donate_argnames="caches")
def read(
    graph: nnx.GraphDef,
    state: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    caches: tuple,
    rng: Key[Array, ""],
    *,
    sampling: Sampling,
) -> Decoding:
    """Takes the prompts into the model's caches, and chooses the first token after each."""
    model, (B, T) = nnx.merge(graph, state), tokens.shape
    is_real = jnp.arange(T, dtype=jnp.int32)[None, :] < lengths[:, None]
    hidden, caches = model.extend(tokens, caches, is_real=is_real)
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = _mark(jnp.zeros((B, model.config.vocab_size), bool), tokens, lengths)
    none = jnp.zeros(B, jnp.int32)
    token = _choose(model.readout(last), none, seen, rng, sampling)
    seen = None if seen is None else _mark(seen, token, none + 1)
    return Decoding(token[:, 0], none, seen, caches, None)


@partial(jax.jit, static_argnums=0, static_argnames="most")
def begin(
    graph: nnx.GraphDef,
    state: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    most: int,
) -> PyTree:
    """The state of a draft that has seen the prompts."""
    return nnx.merge(graph, state).begin(tokens, lengths, most)


@partial(jax.jit, static_argnums=0, static_argnames="sampling", donate_argnames="decoding")
def go_on(
    graph: nnx.GraphDef,
    state: PyTree,
    decoding: Decoding,
    going: Bool[Array, " B"],
    most: Int[Array, ""],
    rng: Key[Array, ""],
    *,
    sampling: Sampling,
) -> tuple[Decoding, Said]:
    """What the rows that are going say in `PASSES` passes, each at most `most` tokens in all."""
    (model, draft), B = nnx.merge(graph, state), going.size
    width = 1 if draft is None else 1 + draft.tokens

    def goes_on(carry) -> Bool[Array, ""]:
        decoding, said = carry
        return (said.passes < PASSES) & jnp.any(going & (decoding.said < most))

    def one(carry):
        decoding, said = carry
        room = jnp.where(going, most - decoding.said, 0) - 1
        decoding, tokens, count = _pass(model, draft, decoding, room, rng, sampling)
        return decoding, said._replace(
            tokens=said.tokens.at[said.passes].set(tokens),
            count=said.count.at[said.passes].set(count),
            passes=said.passes + 1,
        )

    nothing = Said(
        jnp.zeros((PASSES, B, width), jnp.int32),
        jnp.zeros((PASSES, B), jnp.int32),
        jnp.int32(0),
        jnp.bool_(False),
    )
    decoding, said = jax.lax.while_loop(goes_on, one, (decoding, nothing))
    overflowed = jnp.stack([cache.overflowed for cache in decoding.caches]).any()
    return decoding, said._replace(overflowed=overflowed)


def _pass(
    model: GPT,
    draft: Draft | None,
    decoding: Decoding,
    room: Int[Array, " B"],
    rng: Key[Array, ""],
    sampling: Sampling,
) -> tuple[Decoding, Int[Array, "B C"], Int[Array, " B"]]:
    """Reads each row's token and the guesses after it; says those that it would have chosen.

    The last token that it chooses is its own, whatever the guess there was: it is said next.
    """
    token, said, seen, caches, guesses = decoding
    tokens, guesses = _with_guesses(draft, guesses, token, room)
    offset = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    is_real = (tokens >= 0) & (offset <= room[:, None])
    hidden, caches = model.extend(jnp.maximum(tokens, 0), caches, is_real=is_real)
    chosen = _choose(model.readout(hidden), said + 1, seen, rng, sampling)
    is_right = is_real[:, 1:] & (tokens[:, 1:] == chosen[:, :-1])
    kept = jnp.sum(jnp.cumprod(is_right, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)
    count = jnp.where(room < 0, 0, 1 + kept)
    if draft is not None:
        wrong = jnp.sum(is_real, axis=1, dtype=jnp.int32) - count
        caches = tuple(cache.rewind(cache.lengths - wrong) for cache in caches)
        guesses = draft.keep(guesses, tokens, count)
    after = jnp.take_along_axis(chosen, jnp.maximum(count, 1)[:, None] - 1, axis=1)[:, 0]
    token = jnp.where(count > 0, after, token)
    seen = None if seen is None else _mark(seen, chosen, count)
    return Decoding(token, said + count, seen, caches, guesses), tokens, count


def _with_guesses(draft: Draft | None, guesses, token, room) -> tuple[Int[Array, "B C"], Any]:
    if draft is None:
        return token[:, None], None
    proposed, guesses = draft.propose(guesses, token, room)
    return jnp.concatenate([token[:, None], proposed.astype(jnp.int32)], axis=1), guesses


def _choose(
    logits: Float[Array, "B C P"],
    index: Int[Array, " B"],
    seen: Bool[Array, "B P"] | None,
    rng: Key[Array, ""],
    sampling: Sampling,
) -> Int[Array, "B C"]:
    """The token after each; that of `index` in a row is always drawn by the same key."""
    rows = jnp.arange(logits.shape[0], dtype=jnp.int32)

    def one(seen, inputs):
        logits, place = inputs
        own = jax.vmap(lambda i, row: jax.random.fold_in(jax.random.fold_in(rng, i), row))
        token = jax.vmap(partial(sample, sampling=sampling))(
            logits, rng=own(index + place, rows), seen=seen
        )
        return None if seen is None else seen.at[rows, token].set(True), token

    places = jnp.arange(logits.shape[1], dtype=jnp.int32)
    return jax.lax.scan(one, seen, (logits.swapaxes(0, 1), places))[1].T


def _mark(
    seen: Bool[Array, "B P"], tokens: Int[Array, "B T"], count: Int[Array, " B"]
) -> Bool[Array, "B P"]:
    """With the first `count` tokens of each row."""
    rows, P = jnp.arange(seen.shape[0])[:, None], seen.shape[1]
    counts = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] < count[:, None]
    return seen.at[rows, jnp.where(counts, tokens, P)].set(True, mode="drop")
