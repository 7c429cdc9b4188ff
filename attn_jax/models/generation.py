"""`generate`: a batch of prompts is prefilled into caches, then decoded token by token."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from attn_jax.models.decoder_config import warn_of_length
from attn_jax.models.decoding import DecodedChunk, DecodeState, decode_chunk, prefill, prefill_draft
from attn_jax.models.drafts import Draft, DraftModel
from attn_jax.models.gpt import GPT, CacheKind
from attn_jax.models.sampling import GREEDY, Sampling


@dataclasses.dataclass(frozen=True)
class Generation:
    """The result of `generate`: the tokens that a model generated after each prompt.

    Args:
      tokens: the generated tokens of each prompt, without the stop sequence that ended them.
      stopped: whether a stop sequence ended the tokens of each prompt.
      passes: how many decode steps it took until the last text had ended; each step is one pass of
        the model over the whole batch. Without a draft this is the number of tokens of the longest
        text, its stop sequence included; with a draft it may be less. Stop sequences are checked
        after every eighth step, so up to seven more steps may be run; they do not count.
      seconds: time of decoding.
      prompt_seconds: time of the prefill, and of compilation where sizes are new.

    Example:
      >>> from attn_jax.models import Generation
      >>> result = Generation([[5, 6], [7]], [False, True], 2, seconds=0.5, prompt_seconds=0.1)
      >>> result.tokens_per_second
      6.0
    """

    tokens: list[list[int]]
    stopped: list[bool]
    passes: int
    seconds: float
    prompt_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all texts together, over `seconds`."""
        return sum(map(len, self.tokens)) / self.seconds if self.seconds else 0.0


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
    draft: Draft | None = None,
    on_tokens: Callable[[int, list[int]], object] | None = None,
) -> Generation:
    """Generates the tokens that follow each of several prompts.

    Prompts of different length are padded on the right; padding never enters a cache. A text that
    has reached a stop sequence outputs nothing more while the other texts are decoded.

      token[t] ~ sampling(model(prompt, token[:t]))

    Args:
      model: the model.
      prompts: token ids, one sequence a text.
      max_new_tokens: the most tokens that are generated after each prompt.
      sampling: how the next token is chosen; the likeliest one by default.
      stop: sequences of ids that end a text, such as [[end_of_text]].
      rng: the key of all draws; needed unless the temperature is 0. A text's draws depend on the
        key and on the text's place in the batch, not on the other texts.
      kind: of the caches, see `attn_jax.caches`.
      int8: keep keys and values in eight bits.
      draft: proposes draft tokens, which the model verifies in one pass (speculative decoding),
        such as a `PromptLookup`; the generated tokens stay the same.
      on_tokens: called with (index of the prompt, new tokens) as they come, a few at a time.

    Returns:
      A `Generation`.

    Raises:
      ValueError: there is no prompt, one is empty or has ids that are not in the vocabulary; the
        model has no positions for so many tokens; `rng` is missing; a stop sequence is empty; the
        draft has another vocabulary.

    Numerics:
      A draft changes how many tokens one pass takes, and so the last bits of logits: where two
      tokens are equally likely to the last bit, the other one may be chosen.

    Cost:
      Lengths are rounded up to 16, 24, 32, 48, 64, 96, …: the length of the longest prompt, and
      that of prompt and generated tokens, which is the capacity of the caches. A number of prompts
      and a `Sampling` compile once for each two such sizes. Memory as the caches.

    Example:
      >>> from attn_jax.models import DecoderConfig, GPT, generate
      >>> model = GPT(DecoderConfig(7, 8, 1, 2, max_length=12), rngs=nnx.Rngs(0))
      >>> both = generate(model, [[3, 1, 4], [1]], max_new_tokens=4).tokens
      >>> alone = generate(model, [[1]], max_new_tokens=4).tokens
      >>> both[1] == alone[0]
      True
    """
    _check(model, prompts, max_new_tokens, sampling, stop, rng, draft)
    capacity = _capacity(model, max(map(len, prompts)) + max_new_tokens)
    tokens, lengths = _pad_prompts(prompts, capacity)
    options: dict[str, Any] = {"kind": kind, "int8": int8}
    if kind == "sliding" and draft is not None:
        options["chunk"] = 1 + draft.tokens
    start = time.perf_counter()
    caches = model.init_caches(len(prompts), capacity, **options)
    rng = jax.random.key(0) if rng is None else rng
    decoding = prefill(*nnx.split(model), tokens, lengths, caches, rng, sampling=sampling)
    if draft is not None:
        most = rounded_length(max_new_tokens)
        drafting = prefill_draft(*nnx.split(draft), tokens, lengths, most=most)
        decoding = decoding._replace(draft=drafting)
    graph, state = nnx.split((model, draft))

    def decode(decoding: DecodeState, is_active: np.ndarray) -> tuple[DecodeState, DecodedChunk]:
        most = np.int32(max_new_tokens)
        return decode_chunk(graph, state, decoding, is_active, most, rng, sampling=sampling)

    # With no active example this compiles the decode step and generates nothing.
    none_active = np.zeros(len(prompts), bool)
    decoding, _ = jax.block_until_ready(decode(decoding, none_active))
    after_prefill = time.perf_counter()
    texts, stopped, passes = _collect(decode, decoding, max_new_tokens, stop, on_tokens)
    seconds = time.perf_counter() - after_prefill
    return Generation(texts, stopped, passes, seconds, after_prefill - start)


def rounded_length(length: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, … that is at least `length`: few sizes to compile."""
    power = 1 << max(4, (length - 1).bit_length())
    return power * 3 // 4 if 16 < length <= power * 3 // 4 else power


def _capacity(model: GPT, length: int) -> int:
    """The capacity of the caches: `length` rounded up, but not past the model's `max_length`.

    A `length` over `max_length`, which rotary positions allow, is rounded up all the same.
    """
    rounded, longest = rounded_length(length), model.config.max_length
    return min(rounded, longest) if length <= longest else rounded


def _pad_prompts(prompts: Sequence[Sequence[int]], capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """The prompts' ids [B T] with zeros on the right, and their lengths [B]."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.zeros((len(prompts), min(rounded_length(int(lengths.max())), capacity)), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths


def _collect(
    decode: Callable[[DecodeState, np.ndarray], tuple[DecodeState, DecodedChunk]],
    decoding: DecodeState,
    max_new_tokens: int,
    stop: Sequence[Sequence[int]],
    on_tokens: Callable[[int, list[int]], object] | None,
) -> tuple[list[list[int]], list[bool], int]:
    """Decodes chunk by chunk until every text has stopped or has `max_new_tokens` tokens.

    Returns:
      The texts, whether a stop sequence ended each, and `Generation.passes`.
    """
    B, passes = decoding.token.shape[0], 0
    texts: list[list[int]] = [[] for _ in range(B)]
    streamed, stopped = [0] * B, [False] * B
    while not all(stopped[b] or len(texts[b]) == max_new_tokens for b in range(B)):
        decoding, chunk = decode(decoding, ~np.array(stopped))
        if chunk.overflowed:
            raise RuntimeError(
                "a cache overflowed while decoding, although its capacity is the prompt's length "
                "plus max_new_tokens; please report this with the arguments of generate"
            )
        needed = 0
        for b, (new, counts) in enumerate(_by_example(chunk)):
            if not stopped[b]:
                texts[b], stopped[b], used = _cut_at_stop(texts[b], new, stop)
                needed = max(needed, int(np.searchsorted(counts.cumsum(), used)) + (used > 0))
                _stream(on_tokens, b, texts[b], streamed, is_complete=stopped[b], stop=stop)
        passes += needed
    for b in range(B):
        _stream(on_tokens, b, texts[b], streamed, is_complete=True, stop=stop)
    return texts, stopped, passes


def _by_example(chunk: DecodedChunk) -> Iterator[tuple[list[int], np.ndarray]]:
    """For each batch example its new tokens, and how many of them came in each decode step."""
    tokens, count = np.asarray(chunk.tokens), np.asarray(chunk.count)
    is_output = np.arange(tokens.shape[2]) < count[:, :, None]
    for b in range(tokens.shape[1]):
        yield tokens[:, b][is_output[:, b]].tolist(), count[:, b]


def _cut_at_stop(before: list[int], new: list[int], stop) -> tuple[list[int], bool, int]:
    """A text with its new tokens, cut before the first stop sequence that ends among them.

    Returns:
      The text; whether a stop sequence ended it; how many of the new tokens were needed to tell.
    """
    text = [*before, *new]
    for end in range(len(before) + 1, len(text) + 1):
        for sequence in map(list, stop):
            if text[:end][-len(sequence) :] == sequence:
                return text[: end - len(sequence)], True, end - len(before)
    return text, False, len(new)


def _stream(
    on_tokens, b: int, text: list[int], streamed: list[int], *, is_complete: bool, stop
) -> None:
    """Calls `on_tokens` with the tokens of example b that were not streamed before.

    An incomplete text keeps back its last tokens, which may be the start of a stop sequence.
    """
    held = 0 if is_complete else max((len(sequence) - 1 for sequence in stop), default=0)
    end = max(streamed[b], len(text) - held)
    if on_tokens is not None and end > streamed[b]:
        on_tokens(b, text[streamed[b] : end])
    streamed[b] = end


def _check(model, prompts, max_new_tokens, sampling, stop, rng, draft) -> None:
    if not len(prompts):
        raise ValueError("prompts must hold at least one prompt")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    for b, prompt in enumerate(prompts):
        _check_prompt(f"prompts[{b}]", prompt, model.config.vocab_size)
    _check_room("", model, prompts, max_new_tokens)
    if any(not len(sequence) for sequence in stop):
        raise ValueError("stop has an empty sequence, which would stop before the first token")
    if rng is None and sampling.temperature > 0:
        raise ValueError("rng is needed where the temperature is above 0; pass a jax.random.key")
    if isinstance(draft, DraftModel):
        P, draft_P = model.config.vocab_size, draft.model.config.vocab_size
        if draft_P != P:
            raise ValueError(
                f"draft must have the model's vocabulary of {P} tokens; its own has {draft_P}"
            )
        _check_room("draft: ", draft.model, prompts, max_new_tokens)


def _check_prompt(name: str, prompt: Sequence[int], P: int) -> None:
    if not len(prompt):
        raise ValueError(f"{name} is empty; start it with a token such as end of text")
    if not 0 <= min(prompt) <= max(prompt) < P:
        raise ValueError(
            f"{name} must have ids between 0 and {P - 1}; got {min(prompt)} to {max(prompt)}"
        )


def _check_room(prefix: str, model: GPT, prompts, max_new_tokens: int) -> None:
    b = max(range(len(prompts)), key=lambda b: len(prompts[b]))
    most, length = model.config.max_length, len(prompts[b]) + max_new_tokens
    if model.position is None:
        warn_of_length(model.config, length)
    elif length > most:
        raise ValueError(
            f"{prefix}prompts[{b}] has {len(prompts[b])} tokens and max_new_tokens is "
            f"{max_new_tokens}, together more than the {most} positions of the model; shorten one"
        )
