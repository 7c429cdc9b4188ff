"""Beam search: keeps the W best partial translations, ranked by length-normalised probability."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from attn_jax._base.numerics import accumulation_dtype
from attn_jax.models.greedy import check_max_length
from attn_jax.models.ids import BOS, EOS, PAD
from attn_jax.models.records import State
from attn_jax.models.trace import emittable_log_probs
from attn_jax.models.translator import Translator

type StepFunction = Callable[[State, Int[Array, ""]], tuple[State, Float[Array, " K"]]]
"""From a state and the last token to the next state and log-probabilities."""


class Beams(NamedTuple):
    """The W translations that a beam search found, best first.

    Attributes:
      tokens: ids, EOS included where it was reached, PAD after it [W L].
      log_probs: log p(tokens); −inf, and no tokens, where fewer than W translations exist [W].
      scores: log_probs divided by the length penalty; the beams are ordered by it [W].

    Example:
      >>> from attn_jax.models import search
      >>> halves = jnp.log(jnp.array([0.0, 0.0, 0.5, 0.5]))          # EOS = 2 or UNK = 3
      >>> beams = search(lambda state, token: (state, halves), (), width=1, max_length=3)
      >>> (beams.tokens.tolist(), jnp.exp(beams.log_probs).tolist())
      ([[2, 0, 0]], [0.5])
    """

    tokens: Int[Array, "W L"]
    log_probs: Float[Array, " W"]
    scores: Float[Array, " W"]


class Hypotheses(NamedTuple):
    """W partial translations; a finished one stays as it is.

    Attributes:
      state: the decoder's state of each, leaves [W …].
      tokens: the tokens so far, PAD after them [W L].
      last: the last token [W].
      lengths: how many tokens there are [W].
      log_probs: log p(tokens) [W].
      finished: whether the last token is EOS [W].
    """

    state: State
    tokens: Int[Array, "W L"]
    last: Int[Array, " W"]
    lengths: Int[Array, " W"]
    log_probs: Float[Array, " W"]
    finished: Bool[Array, " W"]


def beam_search(
    model: Translator,
    source: Int[Array, " S"],
    source_mask: Bool[Array, " S"],
    *,
    width: int,
    max_length: int,
    length_penalty: float = 0.6,
) -> Beams:
    """Translates one sentence by beam search with a length penalty.

    Wu et al., "Google's Neural Machine Translation System" (2016), eq. 14,
    https://arxiv.org/abs/1609.08144.

      score = log p(tokens | source) / ((5 + length) / 6) ** length_penalty

    Args:
      model: the translator.
      source: token ids.
      source_mask: True at tokens, False at padding.
      width: how many partial translations to keep, W; 1 is `greedy_search`.
      max_length: the most tokens of a translation, EOS included; static under `jit`.
      length_penalty: 0 ranks by plain log-probability, which favours short translations.

    Returns:
      W translations, best first. They contain neither PAD nor BOS.

    Raises:
      ValueError: width or max_length is below 1, or the length penalty is negative.

    Numerics:
      Log-probabilities are computed and summed in float32, or in float64 for float64 logits.

    Cost:
      W times the steps of greedy search; the search ends when all W beams have ended.

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, beam_search
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 4, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> source, mask = jnp.array([4, 5, 2]), jnp.ones(3, bool)
      >>> beams = beam_search(model, source, mask, width=4, max_length=2)
      >>> sorted(beams.tokens.tolist())      # EOS = 2 and UNK = 3 make three translations
      [[0, 0], [2, 0], [3, 2], [3, 3]]
    """
    memory = model.encode(source, source_mask)

    def step(state, token):
        state, result = model.step(memory, state, token)
        return state, emittable_log_probs(result.logits)

    check_max_length(max_length)
    start = model.start(memory, max_length)
    return search(step, start, width=width, max_length=max_length, length_penalty=length_penalty)


def search(
    step: StepFunction,
    state: State,
    *,
    width: int,
    max_length: int,
    length_penalty: float = 0.6,
) -> Beams:
    """Beam search with any step function that gives log-probabilities of the next token.

    Args:
      step: a pure function `(state, token) -> (state, log_probs)`; its first token is BOS.
      state: the state of the first step, any pytree.
      width: see `beam_search`.
      max_length: see `beam_search`.
      length_penalty: see `beam_search`.

    Returns:
      As `beam_search`. With width ≥ Vᵗ for V tokens and t steps no partial sequence is dropped, so
      the search is exhaustive.

    Raises:
      ValueError: as `beam_search`.

    Numerics:
      As `beam_search`, for any dtype of the step's log-probabilities.

    Cost:
      As many steps as the longest beam has tokens, each of W calls and one top-k over W·K.

    Example:
      >>> from attn_jax.models import search
      >>> log_probs = jnp.log(jnp.array([0.0, 0.0, 0.4, 0.6]))      # EOS = 2 and UNK = 3, always
      >>> beams = search(lambda state, token: (state, log_probs), (), width=3, max_length=2)
      >>> print(beams.tokens.tolist(), np.exp(beams.log_probs).round(2))
      [[2, 0], [3, 3], [3, 2]] [0.4  0.36 0.24]
    """
    check_max_length(max_length)
    if width < 1:
        raise ValueError(f"width={width} must be at least 1; 1 is greedy search")
    if length_penalty < 0:
        raise ValueError(
            f"length_penalty={length_penalty} must be at least 0, plain log-probability"
        )

    def unfinished(loop):
        t, hypotheses = loop
        can_grow = ~hypotheses.finished & (hypotheses.log_probs > -jnp.inf)
        return (t < max_length) & jnp.any(can_grow)

    def advance(loop):
        t, hypotheses = loop
        state, log_probs = jax.vmap(step)(hypotheses.state, hypotheses.last)
        return t + 1, expand(hypotheses._replace(state=state), log_probs, t, length_penalty)

    first = _initial_hypotheses(step, state, width, max_length)
    _, last = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), first))
    scores = last.log_probs / _penalty(last.lengths, length_penalty, last.log_probs.dtype)
    tokens = jnp.where(last.log_probs[:, None] > -jnp.inf, last.tokens, PAD)
    return Beams(tokens, last.log_probs, scores)


def expand(
    hypotheses: Hypotheses,
    log_probs: Float[Array, "W K"],
    t: Int[Array, ""],
    length_penalty: float,
) -> Hypotheses:
    """The W best of all W·K continuations by one token.

    The only continuation of a finished hypothesis is PAD, with log-probability 0.
    """
    W, K = log_probs.shape
    log_probs = log_probs.astype(hypotheses.log_probs.dtype)
    only_pad = jnp.full(K, -jnp.inf, log_probs.dtype).at[PAD].set(0)
    log_probs = jnp.where(hypotheses.finished[:, None], only_pad[None], log_probs)
    totals = hypotheses.log_probs[:, None] + log_probs
    lengths = jnp.where(hypotheses.finished, hypotheses.lengths, hypotheses.lengths + 1)
    scores = totals / _penalty(lengths, length_penalty, totals.dtype)[:, None]
    _, best = jax.lax.top_k(scores.reshape(-1), W)
    parent, token = best // K, best % K
    state, tokens, lengths, finished = jax.tree.map(
        lambda leaf: leaf[parent],
        (hypotheses.state, hypotheses.tokens, lengths, hypotheses.finished),
    )
    tokens = tokens.at[:, t].set(token)
    finished |= token == EOS
    return Hypotheses(state, tokens, token, lengths, totals.reshape(-1)[best], finished)


def _initial_hypotheses(
    step: StepFunction, state: State, width: int, max_length: int
) -> Hypotheses:
    """W empty hypotheses. All but the first have probability 0: W equal beams would stay equal."""
    state = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * width), state)
    last, lengths = jnp.full(width, BOS, jnp.int32), jnp.zeros(width, jnp.int32)
    _, log_probs = jax.eval_shape(jax.vmap(step), state, last)
    return Hypotheses(
        state,
        jnp.full((width, max_length), PAD, jnp.int32),
        last,
        lengths,
        jnp.full(width, -jnp.inf, accumulation_dtype(log_probs.dtype)).at[0].set(0),
        jnp.zeros(width, bool),
    )


def _penalty(
    lengths: Int[Array, " W"], length_penalty: float, dtype: DTypeLike
) -> Float[Array, " W"]:
    """The divisor of a log-probability, which grows with length: it favours longer translations."""
    return ((5 + lengths.astype(dtype)) / 6) ** length_penalty
