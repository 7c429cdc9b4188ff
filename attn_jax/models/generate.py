"""Texts that go on: a prompt is read at once, then tokens are said one by one, with caches."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from attn_jax.models.decoder_config import warn_of_length
from attn_jax.models.decoding import Decoding, Said, begin, go_on, read
from attn_jax.models.drafts import Draft, DraftModel
from attn_jax.models.gpt import GPT, CacheKind
from attn_jax.models.sampling import GREEDY, Sampling


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a model said after each prompt.

    `generate` makes it. A text ends before its stop sequence; `stopped` says whether there was one.
    `passes` counts how often the model was run after the prompts, for all rows at once, until the
    last text had ended: as often as the longest text has tokens, with those of its stop sequence,
    or less with a draft. Stop sequences are looked for after every eighth run, so up to seven runs
    may follow in vain, which are not counted. `seconds` are those of saying tokens, and
    `prompt_seconds` those of reading prompts and of compiling, where sizes are new.

    Example:
      >>> from attn_jax.models import Generation
      >>> said = Generation([[5, 6], [7]], [False, True], 2, seconds=0.5, prompt_seconds=0.1)
      >>> said.tokens_per_second
      6.0
    """

    tokens: list[list[int]]
    stopped: list[bool]
    passes: int
    seconds: float
    prompt_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all texts together."""
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
      draft: guesses tokens that the model then reads at once, such as a `PromptLookup`; what is
        said stays the same.
      on_tokens: called with (row, new tokens) as they come, a few at a time.

    Returns:
      A `Generation`.

    Raises:
      ValueError: there is no prompt, one is empty or has ids that are not in the vocabulary; the
        model has no positions for so many tokens; `rng` is missing; a stop sequence is empty; the
        draft has another vocabulary.

    Numerics:
      A draft changes how many tokens are read at once, and so the last bits of logits: where two
      tokens are equally likely to the last bit, the other one may be said.

    Cost:
      Lengths are rounded up to 16, 24, 32, 48, 64, 96, …: that of the longest prompt, and that of
      all tokens, which is the capacity of the caches. A number of prompts and a `Sampling` compile
      once for each two such sizes, whatever the lengths. Memory as the caches.

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
    tokens, lengths = _padded(prompts, capacity)
    options: dict[str, Any] = {"kind": kind, "int8": int8}
    if kind == "sliding" and draft is not None:
        options["chunk"] = 1 + draft.tokens
    start = time.perf_counter()
    caches = model.init_caches(len(prompts), capacity, **options)
    rng = jax.random.key(0) if rng is None else rng
    decoding = read(*nnx.split(model), tokens, lengths, caches, rng, sampling=sampling)
    if draft is not None:
        guesses = begin(*nnx.split(draft), tokens, lengths, most=few_sizes(max_new_tokens))
        decoding = decoding._replace(draft=guesses)
    graph, state = nnx.split((model, draft))

    def continued(decoding: Decoding, going: np.ndarray) -> tuple[Decoding, Said]:
        most = np.int32(max_new_tokens)
        return go_on(graph, state, decoding, going, most, rng, sampling=sampling)

    nobody = np.zeros(len(prompts), bool)  # who says nothing, but what is needed to say it compiles
    decoding, _ = jax.block_until_ready(continued(decoding, nobody))
    after_prompts = time.perf_counter()
    said, stopped, passes = _say(continued, decoding, max_new_tokens, stop, on_tokens)
    seconds = time.perf_counter() - after_prompts
    return Generation(said, stopped, passes, seconds, after_prompts - start)


def few_sizes(length: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96, …: so that few sizes are compiled."""
    power = 1 << max(4, (length - 1).bit_length())
    return power * 3 // 4 if 16 < length <= power * 3 // 4 else power


def _capacity(model: GPT, length: int) -> int:
    """Few sizes, and not beyond the model's positions where the texts are not."""
    most, longest = few_sizes(length), model.config.max_length
    return min(most, longest) if length <= longest else most


def _padded(prompts: Sequence[Sequence[int]], capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids with zeros on the right, and how many of each row are real."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.zeros((len(prompts), min(few_sizes(int(lengths.max())), capacity)), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths


def _say(
    go_on: Callable[[Decoding, np.ndarray], tuple[Decoding, Said]],
    decoding: Decoding,
    max_new_tokens: int,
    stop: Sequence[Sequence[int]],
    on_tokens: Callable[[int, list[int]], object] | None,
) -> tuple[list[list[int]], list[bool], int]:
    """Calls `go_on` until every row has stopped or said all that it may."""
    B, passes = decoding.token.shape[0], 0
    texts: list[list[int]] = [[] for _ in range(B)]
    told, stopped = [0] * B, [False] * B
    while not all(stopped[row] or len(texts[row]) == max_new_tokens for row in range(B)):
        decoding, said = go_on(decoding, ~np.array(stopped))
        if said.overflowed:
            raise RuntimeError("a cache overflowed while decoding, which its capacity rules out")
        needed = 0
        for row, (new, counts) in enumerate(_by_row(said)):
            if not stopped[row]:
                texts[row], stopped[row], used = _until_stop(texts[row], new, stop)
                needed = max(needed, int(np.searchsorted(counts.cumsum(), used)) + (used > 0))
                _tell(on_tokens, row, texts[row], told, all_of_it=stopped[row], stop=stop)
        passes += needed
    for row in range(B):
        _tell(on_tokens, row, texts[row], told, all_of_it=True, stop=stop)
    return texts, stopped, passes


def _by_row(said: Said) -> Iterator[tuple[list[int], np.ndarray]]:
    """What each row says, and how many tokens of it in each pass."""
    tokens, count = np.asarray(said.tokens), np.asarray(said.count)
    counts = np.arange(tokens.shape[2]) < count[:, :, None]
    for row in range(tokens.shape[1]):
        yield tokens[:, row][counts[:, row]].tolist(), count[:, row]


def _until_stop(before: list[int], new: list[int], stop) -> tuple[list[int], bool, int]:
    """All that was said, up to the first stop sequence that ends in what is new; whether there was
    one; and how many of the new tokens say so."""
    text = [*before, *new]
    for end in range(len(before) + 1, len(text) + 1):
        for sequence in map(list, stop):
            if text[:end][-len(sequence) :] == sequence:
                return text[: end - len(sequence)], True, end - len(before)
    return text, False, len(new)


def _tell(on_tokens, row: int, text: list[int], told: list[int], *, all_of_it: bool, stop) -> None:
    """Hands over what is new, less what may yet turn out to begin a stop sequence."""
    held = 0 if all_of_it else max((len(sequence) - 1 for sequence in stop), default=0)
    end = max(told[row], len(text) - held)
    if on_tokens is not None and end > told[row]:
        on_tokens(row, text[told[row] : end])
    told[row] = end


def _check(model, prompts, max_new_tokens, sampling, stop, rng, draft) -> None:
    if not len(prompts):
        raise ValueError("prompts must hold at least one prompt")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1; got {max_new_tokens}")
    for row, prompt in enumerate(prompts):
        _check_prompt(f"prompts[{row}]", prompt, model.config.vocab_size)
    _check_room("", model, prompts, max_new_tokens)
    if any(not len(sequence) for sequence in stop):
        raise ValueError("stop has an empty sequence, which would stop before the first token")
    if rng is None and sampling.temperature > 0:
        raise ValueError("rng is needed where the temperature is above 0: pass a jax.random.key")
    if isinstance(draft, DraftModel):
        P, theirs = model.config.vocab_size, draft.model.config.vocab_size
        if theirs != P:
            raise ValueError(f"draft must know the model's {P} tokens; its vocabulary has {theirs}")
        _check_room("draft: ", draft.model, prompts, max_new_tokens)


def _check_prompt(name: str, prompt: Sequence[int], P: int) -> None:
    if not len(prompt):
        raise ValueError(f"{name} is empty; begin with a token such as end of text")
    if not 0 <= min(prompt) <= max(prompt) < P:
        raise ValueError(
            f"{name} must have ids between 0 and {P - 1}; got {min(prompt)} to {max(prompt)}"
        )


def _check_room(whose: str, model: GPT, prompts, max_new_tokens: int) -> None:
    row = max(range(len(prompts)), key=lambda row: len(prompts[row]))
    most, length = model.config.max_length, len(prompts[row]) + max_new_tokens
    if model.position is None:
        warn_of_length(model.config, length)
    elif length > most:
        raise ValueError(
            f"{whose}prompts[{row}] has {len(prompts[row])} tokens and max_new_tokens is "
            f"{max_new_tokens}, together more than the {most} positions of the model; shorten one"
        )
