"""Texts that go on: a prompt is read at once, then tokens are said one by one, with caches."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax.models.gpt import GPT, CacheKind
from attn_jax.models.sampling import GREEDY, Sampling, sample

_STEPS = 8  # tokens between two looks of the host: at stop sequences, and for whoever listens


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a model said after each prompt.

    `generate` makes it. A text ends before its stop sequence; `stopped` says whether there was one.
    `seconds` are those of saying tokens, and `prompt_seconds` those of reading prompts; the first
    call for some sizes compiles in both.

    Example:
      >>> from attn_jax.models import Generation
      >>> said = Generation([[5, 6], [7]], [False, True], seconds=0.5, prompt_seconds=0.1)
      >>> said.tokens_per_second
      6.0
    """

    tokens: list[list[int]]
    stopped: list[bool]
    seconds: float
    prompt_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all texts together."""
        return sum(map(len, self.tokens)) / self.seconds if self.seconds else 0.0


class _Loop(NamedTuple):
    """Where decoding is: what each row says next, what it has said, and the caches."""

    token: Int[Array, " B"]
    seen: Bool[Array, "B P"] | None
    caches: Any
    step: Int[Array, ""]


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[Sequence[int]] = (),
    rng: Key[Array, ""] | None = None,
    kind: CacheKind = "contiguous",
    int8: bool = False,
    on_tokens: Callable[[int, list[int]], object] | None = None,
) -> Generation:
    """Says what comes after each of several prompts.

    Prompts of different length are padded on the right, and padding never enters a cache. A row
    that has stopped says nothing more, and the others go on.

      token[t] ~ sampling(model(prompt, token[:t]))

    Args:
      model: the model.
      prompts: ids, one sequence a text.
      max_new_tokens: the most tokens that are said after each.
      sampling: how the next token is chosen; the likeliest one by default.
      stop: sequences of ids that end a text, such as [[end_of_text]].
      rng: decides what is drawn; needed unless the temperature is 0. Equal keys draw the same,
        whatever else is in the batch.
      kind: of the caches, see `attn_jax.caches`.
      int8: keep keys and values in eight bits.
      on_tokens: called with (row, new tokens) as they come, a few at a time.

    Returns:
      A `Generation`.

    Raises:
      ValueError: there is no prompt, one is empty or has ids that are not in the vocabulary; the
        model has no positions for so many tokens; `rng` is missing; a stop sequence is empty.

    Cost:
      One compile a length of the longest prompt, and one for saying tokens; memory as the caches.

    Example:
      >>> from attn_jax.models import DecoderConfig, GPT, generate
      >>> model = GPT(DecoderConfig(7, 8, 1, 2, max_length=12), rngs=nnx.Rngs(0))
      >>> both = generate(model, [[3, 1, 4], [1]], max_new_tokens=4).tokens
      >>> alone = generate(model, [[1]], max_new_tokens=4).tokens
      >>> both[1] == alone[0]
      True
    """
    _check(model, prompts, max_new_tokens, sampling, stop, rng)
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.zeros((len(prompts), lengths.max()), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    begin = time.perf_counter()
    graph, state = nnx.split(model)
    caches = model.init_caches(
        len(prompts), int(lengths.max()) + max_new_tokens, kind=kind, int8=int8
    )
    rng = jax.random.key(0) if rng is None else rng
    loop = jax.block_until_ready(
        _read(graph, state, tokens, lengths, caches, rng, sampling=sampling)
    )
    read = time.perf_counter()
    said, stopped = _say(
        partial(_steps, graph, state), loop, rng, sampling, max_new_tokens, stop, on_tokens
    )
    return Generation(said, stopped, time.perf_counter() - read, read - begin)


@partial(jax.jit, static_argnums=0, static_argnames="sampling", donate_argnames="caches")
def _read(graph, state, tokens, lengths, caches, rng, *, sampling: Sampling) -> _Loop:
    """Takes the prompts into the caches, and chooses the first token after each."""
    model, (B, T) = nnx.merge(graph, state), tokens.shape
    is_real = jnp.arange(T)[None, :] < lengths[:, None]
    hidden, caches = model.extend(tokens, caches, is_real=is_real)
    last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
    seen = None
    if sampling.repetition_penalty != 1:
        there = jnp.where(is_real, tokens, model.config.vocab_size)
        seen = jnp.zeros((B, model.config.vocab_size), bool)
        seen = jax.vmap(lambda row, ids: row.at[ids].set(True, mode="drop"))(seen, there)
    loop = _Loop(jnp.zeros(B, jnp.int32), seen, caches, jnp.int32(0))
    return _choose(model.readout(last), loop, rng, sampling)


@partial(jax.jit, static_argnums=0, static_argnames=("sampling", "steps"), donate_argnames="loop")
def _steps(graph, state, loop: _Loop, active, rng, *, sampling: Sampling, steps: int):
    """The tokens that active rows say in so many steps, and where decoding is after them."""
    model = nnx.merge(graph, state)

    def one(loop: _Loop, _):
        hidden, caches = model.extend(loop.token[:, None], loop.caches, is_real=active[:, None])
        logits = model.readout(hidden[:, 0])
        return _choose(logits, loop._replace(caches=caches), rng, sampling), loop.token

    loop, said = jax.lax.scan(one, loop, length=steps)
    overflowed = jnp.stack([cache.overflowed for cache in loop.caches]).any()
    return loop, said.T, overflowed


def _choose(logits: Float[Array, "B P"], loop: _Loop, rng, sampling: Sampling) -> _Loop:
    rows = jnp.arange(logits.shape[0])
    here = jax.random.fold_in(rng, loop.step)
    draw = partial(sample, sampling=sampling)
    rngs = jax.vmap(partial(jax.random.fold_in, here))(rows)
    token = jax.vmap(lambda l, r, s: draw(l, rng=r, seen=s))(logits, rngs, loop.seen)
    seen = None if loop.seen is None else loop.seen.at[rows, token].set(True)
    return loop._replace(token=token, seen=seen, step=loop.step + 1)


def _say(steps, loop: _Loop, rng, sampling, most: int, stop, on_tokens) -> tuple[list, list[bool]]:
    """Calls `steps` until every row has stopped or said all that it may."""
    B = loop.token.shape[0]
    said: list[list[int]] = [[] for _ in range(B)]
    told, stopped = [0] * B, [False] * B
    for start in range(0, most, _STEPS):
        loop, new, overflowed = steps(
            loop, ~np.array(stopped), rng, sampling=sampling, steps=min(_STEPS, most - start)
        )
        if overflowed:
            raise RuntimeError("a cache overflowed while decoding, which its capacity rules out")
        for row, tokens in enumerate(np.asarray(new).tolist()):
            if not stopped[row]:
                said[row], stopped[row] = _until_stop(said[row], tokens, stop)
                _tell(on_tokens, row, said[row], told, all_of_it=stopped[row], stop=stop)
        if all(stopped):
            break
    for row in range(B):
        _tell(on_tokens, row, said[row], told, all_of_it=True, stop=stop)
    return said, stopped


def _until_stop(before: list[int], new: list[int], stop) -> tuple[list[int], bool]:
    """All that was said, up to the first stop sequence that ends in what is new."""
    text = [*before, *new]
    for end in range(len(before) + 1, len(text) + 1):
        for sequence in map(list, stop):
            if text[:end][-len(sequence) :] == sequence:
                return text[: end - len(sequence)], True
    return text, False


def _tell(on_tokens, row: int, text: list[int], told: list[int], *, all_of_it: bool, stop) -> None:
    """Hands over what is new, less what may yet turn out to begin a stop sequence."""
    held = 0 if all_of_it else max((len(sequence) - 1 for sequence in stop), default=0)
    end = max(told[row], len(text) - held)
    if on_tokens is not None and end > told[row]:
        on_tokens(row, text[told[row] : end])
    told[row] = end


def _check(model, prompts, max_new_tokens, sampling, stop, rng) -> None:
    if not len(prompts):
        raise ValueError("prompts must hold at least one prompt")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    P = model.config.vocab_size
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompts[{row}] is empty; begin with a token such as end of text")
        if not 0 <= min(prompt) <= max(prompt) < P:
            raise ValueError(
                f"prompts[{row}] must have ids between 0 and {P - 1}; got {min(prompt)} to "
                f"{max(prompt)}"
            )
    if any(not len(sequence) for sequence in stop):
        raise ValueError("stop has an empty sequence, which would stop before the first token")
    if rng is None and sampling.temperature > 0:
        raise ValueError("rng is needed where the temperature is above 0: pass a jax.random.key")
