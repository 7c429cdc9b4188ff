"""A trace: what a decoder computed at every step of a translation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attn_jax._base.numerics import accumulation_dtype
from attn_jax.models.ids import BOS, EOS, PAD
from attn_jax.models.records import State
from attn_jax.models.translator import Translator

TOP = 5
"""How many of the most likely next tokens a trace keeps for each step."""


class Trace(NamedTuple):
    """A translation and what the decoder computed at each step; zeros after the target's end.

    Attributes:
      source: token ids [S].
      source_mask: True at tokens [S].
      target: token ids, ending with EOS where one was reached; PAD after it [L].
      target_mask: True at tokens, EOS included [L].
      states: the decoder's state after each step [L n].
      scores: e_ij, before mask and softmax [L S].
      weights: α_ij, the alignment [L S].
      contexts: c_i = Σ_j α_ij h_j [L E].
      top_tokens: the most likely next tokens, best first [L k].
      top_log_probs: their log-probabilities, in float32 at least [L k].

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, greedy_search
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> source = jnp.array([4, 2, 0])
      >>> trace = greedy_search(model, source, source > 0, max_length=2)
      >>> trace.weights[0].tolist()      # untrained attention is uniform
      [0.5, 0.5, 0.0]
    """

    source: Int[Array, " S"]
    source_mask: Bool[Array, " S"]
    target: Int[Array, " L"]
    target_mask: Bool[Array, " L"]
    states: Float[Array, "L n"]
    scores: Float[Array, "L S"]
    weights: Float[Array, "L S"]
    contexts: Float[Array, "L E"]
    top_tokens: Int[Array, "L k"]
    top_log_probs: Float[Array, "L k"]


class TraceStep(NamedTuple):
    """One step of a `Trace`."""

    token: Int[Array, ""]
    is_token: Bool[Array, ""]
    state: Float[Array, " n"]
    scores: Float[Array, " S"]
    weights: Float[Array, " S"]
    context: Float[Array, " E"]
    top_tokens: Int[Array, " k"]
    top_log_probs: Float[Array, " k"]


class Progress(NamedTuple):
    """The decoder's state, the last token, and whether that token ended the translation."""

    state: State
    token: Int[Array, ""]
    finished: Bool[Array, ""]


def emittable_log_probs(logits: Float[Array, " K"]) -> Float[Array, " K"]:
    """The model's log-probabilities, with −inf for PAD and BOS, which a search never emits.

    In float32, or in float64 for float64 logits.
    """
    log_probs = jax.nn.log_softmax(logits.astype(accumulation_dtype(logits.dtype)))
    return log_probs.at[jnp.array([PAD, BOS])].set(-jnp.inf)


def initial_progress(model: Translator, memory: Any, max_length: int) -> Progress:
    """The progress before the first step."""
    return Progress(model.start(memory, max_length), jnp.int32(BOS), jnp.array(False))


def record_step(
    model: Translator,
    memory: Any,
    progress: Progress,
    choose: Callable[[Int[Array, " k"]], Int[Array, ""]],
) -> tuple[Progress, TraceStep]:
    """One decode step and its record; `choose` picks the next token from the most likely ones."""
    state, step = model.step(memory, progress.state, progress.token)
    log_probs = emittable_log_probs(step.logits)
    top_log_probs, top_tokens = jax.lax.top_k(log_probs, min(TOP, log_probs.size - 2))
    token = jnp.where(progress.finished, PAD, choose(top_tokens).astype(jnp.int32))
    is_token = token != PAD
    row = TraceStep(
        token,
        is_token,
        step.state,
        step.scores,
        step.weights,
        step.context,
        top_tokens,
        top_log_probs,
    )
    row = jax.tree.map(lambda leaf: jnp.where(is_token, leaf, jnp.zeros_like(leaf)), row)
    return Progress(state, token, ~is_token | (token == EOS)), row


def to_trace(source: Int[Array, " S"], source_mask: Bool[Array, " S"], steps: Any) -> Trace:
    """The trace of a source and of a `TraceStep` whose leaves are stacked along the steps."""
    return Trace(source, source_mask, *steps)


def force(
    model: Translator,
    source: Int[Array, " S"],
    source_mask: Bool[Array, " S"],
    target: Int[Array, " L"],
) -> Trace:
    """The trace of a given target: teacher forcing, where the target's tokens are fed back.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    figure 3, https://arxiv.org/abs/1409.0473, shows such `weights`.

    Args:
      model: the translator.
      source: token ids.
      source_mask: True at tokens, False at padding.
      target: token ids, EOS last; the trace ends at the first EOS or PAD.

    Returns:
      The trace; for a target that `greedy_search` found, it equals the trace of that search.

    Cost:
      L steps, each with its readout; for a loss `model.logits` is faster.

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, force
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> trace = force(model, jnp.array([4, 5, 6, 2]), jnp.ones(4, bool), jnp.array([6, 2, 0]))
      >>> trace.target_mask.tolist()
      [True, True, False]
      >>> trace.weights.tolist()       # untrained attention is uniform
      [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]]
    """
    memory = model.encode(source, source_mask)

    def step(progress, token):
        return record_step(model, memory, progress, lambda _: token)

    _, steps = jax.lax.scan(step, initial_progress(model, memory, target.shape[0]), target)
    return to_trace(source, source_mask, steps)
