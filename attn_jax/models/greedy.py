"""Greedy search: always say the most likely next word, until it is EOS."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax.models.trace import Trace, begin, record, to_trace
from attn_jax.models.translator import Translator


def greedy_search(
    model: Translator,
    source: Int[Array, " S"],
    source_mask: Bool[Array, " S"],
    *,
    max_length: int,
) -> Trace:
    """Translates one sentence, and records how.

      y_i = argmax p(· | y_1 … y_{i-1}, source)

    Args:
      model: the translator.
      source: token ids.
      source_mask: True at tokens, False at padding.
      max_length: the most words to say, EOS included; static under `jit`.

    Returns:
      The trace. PAD and BOS are never said; a target without EOS was cut at max_length.

    Raises:
      ValueError: max_length is below 1.

    Cost:
      As many steps as the translation has words; under `vmap`, as the longest one has.

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
        return record(model, memory, progress, lambda top_tokens: top_tokens[0])

    start = begin(model, memory, max_length)
    rows = _scan_until(step, lambda progress: progress.finished, start, max_length)
    return to_trace(source, source_mask, rows)


def check_max_length(max_length: int) -> None:
    """Raises ValueError where a search may not say a single word."""
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1, room for EOS")


def _scan_until[Carry, Row](
    step: Callable[[Carry], tuple[Carry, Row]],
    is_finished: Callable[[Carry], Bool[Array, ""]],
    carry: Carry,
    length: int,
) -> Row:
    """`lax.scan` that stops where nothing is left to do; rows it never reached are zeros."""
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
