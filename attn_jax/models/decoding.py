"""The compiled half of `generate`: one prefill of the prompts, then chunks of decode steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from attn_jax.models.drafts import Draft
from attn_jax.models.gpt import GPT
from attn_jax.models.sampling import Sampling, sample

# After each chunk the host checks for stop sequences and streams the new tokens.
STEPS_PER_CHUNK = 8


class DecodeState(NamedTuple):
    """State of decoding, for each batch example.

    Attributes:
      token: the newest token: sampled, but not yet output and not yet in the caches.
      generated: how many tokens were output before `token`.
      seen: which tokens are in the prompt, in the output, or are `token`; None where the sampling
        has no repetition penalty.
      caches: keys and values of the prompt and of the output.
      draft: state of the draft; None without a draft.
    """

    token: Int[Array, " B"]
    generated: Int[Array, " B"]
    seen: Bool[Array, "B P"] | None
    caches: tuple
    draft: Any


class DecodedChunk(NamedTuple):
    """Output of one chunk of decode steps.

    Attributes:
      tokens: of each step, of which the first `count` are output.
      count: how many tokens an example outputs in a step; 0 where it was not active.
      passes: how many decode steps were run, each one pass of the model.
      overflowed: whether a cache had no room.
    """

    tokens: Int[Array, "I B C"]
    count: Int[Array, "I B"]
    passes: Int[Array, ""]
    overflowed: Bool[Array, ""]


@partial(jax.jit, static_argnums=0, static_argnames="sampling", donate_argnames="caches")
def prefill(
    graph: nnx.GraphDef,
    state: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    caches: tuple,
    rng: Key[Array, ""],
    *,
    sampling: Sampling,
) -> DecodeState:
    """Appends the prompts to the model's caches and samples the first token after each prompt."""
    model, (B, T) = nnx.merge(graph, state), tokens.shape
    is_real = jnp.arange(T, dtype=jnp.int32)[None, :] < lengths[:, None]
    hidden, caches = model.extend(tokens, caches, is_real=is_real)
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)
    seen = None
    if sampling.repetition_penalty != 1:
        seen = _mark_seen(jnp.zeros((B, model.config.vocab_size), bool), tokens, lengths)
    none = jnp.zeros(B, jnp.int32)
    token = _sample_next(model.readout(last), none, seen, rng, sampling)
    seen = None if seen is None else _mark_seen(seen, token, none + 1)
    return DecodeState(token[:, 0], none, seen, caches, None)


@partial(jax.jit, static_argnums=0, static_argnames="most")
def prefill_draft(
    graph: nnx.GraphDef,
    state: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    most: int,
) -> PyTree:
    """The state of a draft after the prompts, where up to `most` tokens follow."""
    return nnx.merge(graph, state).begin(tokens, lengths, most)


@partial(jax.jit, static_argnums=0, static_argnames="sampling", donate_argnames="decoding")
def decode_chunk(
    graph: nnx.GraphDef,
    state: PyTree,
    decoding: DecodeState,
    is_active: Bool[Array, " B"],
    most: Int[Array, ""],
    rng: Key[Array, ""],
    *,
    sampling: Sampling,
) -> tuple[DecodeState, DecodedChunk]:
    """Up to `STEPS_PER_CHUNK` decode steps of the active examples.

    They end earlier once every active example has output `most` tokens since its prompt.
    """
    (model, draft), B = nnx.merge(graph, state), is_active.size
    width = 1 if draft is None else 1 + draft.tokens

    def is_unfinished(carry) -> Bool[Array, ""]:
        decoding, chunk = carry
        return (chunk.passes < STEPS_PER_CHUNK) & jnp.any(is_active & (decoding.generated < most))

    def step(carry):
        decoding, chunk = carry
        room = jnp.where(is_active, most - decoding.generated, 0) - 1
        decoding, tokens, count = _decode_step(model, draft, decoding, room, rng, sampling)
        return decoding, chunk._replace(
            tokens=chunk.tokens.at[chunk.passes].set(tokens),
            count=chunk.count.at[chunk.passes].set(count),
            passes=chunk.passes + 1,
        )

    empty = DecodedChunk(
        jnp.zeros((STEPS_PER_CHUNK, B, width), jnp.int32),
        jnp.zeros((STEPS_PER_CHUNK, B), jnp.int32),
        jnp.int32(0),
        jnp.bool_(False),
    )
    decoding, chunk = jax.lax.while_loop(is_unfinished, step, (decoding, empty))
    overflowed = jnp.stack([cache.overflowed for cache in decoding.caches]).any()
    return decoding, chunk._replace(overflowed=overflowed)


def _decode_step(
    model: GPT,
    draft: Draft | None,
    decoding: DecodeState,
    room: Int[Array, " B"],
    rng: Key[Array, ""],
    sampling: Sampling,
) -> tuple[DecodeState, Int[Array, "B C"], Int[Array, " B"]]:
    """One pass of the model over each example's newest token and the draft tokens after it.

    The model samples its own token after each of them. A draft token is output if it and all draft
    tokens before it equal the model's. The model's token after the last output one is the next
    `token`.

    Args:
      model: the language model.
      draft: proposes the draft tokens; None for none.
      decoding: the state before this step.
      room: how many tokens each example may output after `token`; below 0 it outputs nothing.
      rng: of all draws.
      sampling: the sampling rules.

    Returns:
      The state after this step; the tokens; how many of them each example outputs.
    """
    token, generated, seen, caches, draft_state = decoding
    tokens, draft_state = _with_draft_tokens(draft, draft_state, token, room)
    offset = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    is_real = (tokens >= 0) & (offset <= room[:, None])
    hidden, caches = model.extend(jnp.maximum(tokens, 0), caches, is_real=is_real)
    sampled = _sample_next(model.readout(hidden), generated + 1, seen, rng, sampling)
    count = jnp.where(room < 0, 0, 1 + _verify_draft(tokens, sampled, is_real))
    if draft is not None:
        rejected = jnp.sum(is_real, axis=1, dtype=jnp.int32) - count
        caches = tuple(cache.rewind(cache.lengths - rejected) for cache in caches)
        draft_state = draft.keep(draft_state, tokens, count)
    after = jnp.take_along_axis(sampled, jnp.maximum(count, 1)[:, None] - 1, axis=1)[:, 0]
    token = jnp.where(count > 0, after, token)
    seen = None if seen is None else _mark_seen(seen, sampled, count)
    return DecodeState(token, generated + count, seen, caches, draft_state), tokens, count


def _with_draft_tokens(
    draft: Draft | None, draft_state: Any, token: Int[Array, " B"], room: Int[Array, " B"]
) -> tuple[Int[Array, "B C"], Any]:
    """Each example's token and the draft tokens after it, −1 where the draft proposes none."""
    if draft is None:
        return token[:, None], None
    proposed, draft_state = draft.propose(draft_state, token, room)
    return jnp.concatenate([token[:, None], proposed.astype(jnp.int32)], axis=1), draft_state


def _verify_draft(
    tokens: Int[Array, "B C"], sampled: Int[Array, "B C"], is_real: Bool[Array, "B C"]
) -> Int[Array, " B"]:
    """How many leading draft tokens equal the model's own samples.

    `tokens[:, 1:]` are the draft tokens, and `sampled[:, i]` is the model's token after
    `tokens[:, i]`.
    """
    is_right = is_real[:, 1:] & (tokens[:, 1:] == sampled[:, :-1])
    return jnp.sum(jnp.cumprod(is_right, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)


def _sample_next(
    logits: Float[Array, "B C P"],
    index: Int[Array, " B"],
    seen: Bool[Array, "B P"] | None,
    rng: Key[Array, ""],
    sampling: Sampling,
) -> Int[Array, "B C"]:
    """Samples the token after each of C positions.

    The first one is generated token number `index` of its example. Each is drawn with a key folded
    from that number and the example's place in the batch, so a draft does not change the draws.
    `seen` gets each token before the next position is sampled.
    """
    examples = jnp.arange(logits.shape[0], dtype=jnp.int32)

    def one(seen, inputs):
        logits, offset = inputs
        keys = jax.vmap(lambda i, b: jax.random.fold_in(jax.random.fold_in(rng, i), b))
        token = jax.vmap(partial(sample, sampling=sampling))(
            logits, rng=keys(index + offset, examples), seen=seen
        )
        return None if seen is None else seen.at[examples, token].set(True), token

    offsets = jnp.arange(logits.shape[1], dtype=jnp.int32)
    return jax.lax.scan(one, seen, (logits.swapaxes(0, 1), offsets))[1].T


def _mark_seen(
    seen: Bool[Array, "B P"], tokens: Int[Array, "B T"], count: Int[Array, " B"]
) -> Bool[Array, "B P"]:
    """`seen` with the first `count` tokens of each example set to True."""
    examples, P = jnp.arange(seen.shape[0])[:, None], seen.shape[1]
    counts = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] < count[:, None]
    return seen.at[examples, jnp.where(counts, tokens, P)].set(True, mode="drop")
