"""Greedy search: at each step the most likely next token, until it is EOS."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax.models.trace import Trace, initial_progress, record_step, to_trace
from attn_jax.models.translator import Translator


def greedy_search(
    model: Translator,
    source: Int[Array, " S"],
    source_mask: Bool[Array, " S"],
    *,
    max_length: int,
) -> Trace:
    """Translates one sentence greedily and records a trace of every step.

      y_i = argmax p(· | y_1 … y_{i-1}, source)

    Args:
      model: the translator.
      source: token ids.
      source_mask: True at tokens, False at padding.
      max_length: the most tokens of the translation, EOS included; static under `jit`.

    Returns:
      The trace. Its target contains neither BOS nor, before its end, PAD; a target without EOS was
      cut at max_length.

    Raises:
      ValueError: max_length is below 1.

    Cost:
      As many steps as the translation has tokens; under `vmap`, as many as the longest one has.

    Example:
      >>> from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, greedy_search
      >>> model = EncoderDecoder(EncoderDecoderConfig(9, 7, 2, 3, 4, 5), rngs=nnx.Rngs(0))
      >>> trace = greedy_search(model, jnp.array([4, 5, 2]), jnp.ones(3, bool), max_length=4)
      >>> bool((trace.target == trace.top_tokens[:, 0]).all())
      True
    """
    check_max_length(max_length)
    memory = model.encode(source, source_mask)

    def step(progress):
        return record_step(model, memory, progress, lambda top_tokens: top_tokens[0])

    start = initial_progress(model, memory, max_length)
    steps = _scan_until(step, lambda progress: progress.finished, start, max_length)
    return to_trace(source, source_mask, steps)


def check_max_length(max_length: int) -> None:
    """Raises ValueError if `max_length` leaves no room for a single token."""
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1, room for EOS")


def _scan_until[Carry, Row](
    step: Callable[[Carry], tuple[Carry, Row]],
    is_finished: Callable[[Carry], Bool[Array, ""]],
    carry: Carry,
    length: int,
) -> Row:
    """`lax.scan` that stops once `is_finished(carry)`; the rows of steps not run are zeros."""
    _, row = jax.eval_shape(step, carry)
    rows = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), row)

    def unfinished(loop):
        t, carry, _ = loop
        return (t < length) & ~is_finished(carry)

    def advance(loop):
        t, carry, rows = loop
        carry, row = step(carry)
        return t + 1, carry, jax.tree.map(lambda all, one: all.at[t].set(one), rows, row)

    return jax.lax.while_loop(unfinished, advance, (jnp.int32(0), carry, rows))[-1]
