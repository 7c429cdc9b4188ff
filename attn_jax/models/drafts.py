"""Guesses of what a model is about to say, which it then reads all at once: speculative decoding.

Leviathan, Kalman & Matias, "Fast Inference from Transformers via Speculative Decoding" (2022),
https://arxiv.org/abs/2211.17192. A draft here is one guess, not a distribution, so algorithm 1
becomes plain: the model chooses its own token at each place, by the key of that place, and a guess
is kept while it is the same. What is said is what the model alone would have said.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from attn_jax.caches import Cache
from attn_jax.models.gpt import GPT


@runtime_checkable
class Draft(Protocol):
    """What `generate` asks of a draft; its state is a pytree that only it reads.

    Example:
      >>> from attn_jax.models import Draft, PromptLookup
      >>> isinstance(PromptLookup(), Draft)
      True
    """

    tokens: int

    def begin(self, prompts: Int[Array, "B T"], lengths: Int[Array, " B"], most: int) -> Any:
        """The state after the prompts, padded on the right, where up to `most` tokens follow."""
        ...

    def propose(
        self, state: Any, token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], Any]:
        """What may come after the token that each row says next; −1 and all after it is no guess.

        A row may say `room` more tokens after that one; where that is below 0 it says none at all.
        """
        ...

    def keep(
        self, state: Any, tokens: Int[Array, "B {self.tokens}+1"], kept: Int[Array, " B"]
    ) -> Any:
        """The state after each row has said the first `kept` of `tokens`: its token and guesses."""
        ...


class PromptLookup(nnx.Module):
    """Guesses that a text goes on as it did where its last tokens stood before.

    Saxena, "Prompt Lookup Decoding" (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
    The place is the one with the most tokens before it in common, up to `longest`, and the latest
    of those. It costs no second model, and helps where a text quotes itself: code, summaries.

      guess[t] = text[place + t]

    Args:
      tokens: how many to guess at once.
      longest: the most tokens that are compared.

    Raises:
      ValueError: a number is below 1.

    Example:
      >>> from attn_jax.models import DecoderConfig, GPT, PromptLookup, generate
      >>> model = GPT(DecoderConfig(7, 8, 1, 2, max_length=32), rngs=nnx.Rngs(0))
      >>> alone = generate(model, [[3, 1, 4]], max_new_tokens=12)
      >>> faster = generate(model, [[3, 1, 4]], max_new_tokens=12, draft=PromptLookup())
      >>> faster.tokens == alone.tokens, faster.passes < alone.passes
      (True, True)
    """

    def __init__(self, tokens: int = 8, longest: int = 3) -> None:
        for name, number in (("tokens", tokens), ("longest", longest)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}")
        self.tokens, self.longest = tokens, longest

    def begin(self, prompts: Int[Array, "B T"], lengths: Int[Array, " B"], most: int) -> "_Texts":
        """The prompts, with room for what is said."""
        text = jnp.pad(jnp.asarray(prompts, jnp.int32), ((0, 0), (0, most + 1 + self.tokens)))
        return _Texts(text, jnp.asarray(lengths, jnp.int32))

    def propose(
        self, state: "_Texts", token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], "_Texts"]:
        """What stood after the latest and longest match in each row."""
        del room
        with_token = self.keep(state, token[:, None], jnp.ones_like(token))
        return jax.vmap(self._continuation)(*with_token), state

    def keep(self, state: "_Texts", tokens: Int[Array, "B I"], kept: Int[Array, " B"]) -> "_Texts":
        """The texts with what was said."""
        tokens, kept = tokens.astype(jnp.int32), kept.astype(jnp.int32)
        rows = jnp.arange(kept.size)[:, None]
        offset = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
        outside = state.text.shape[1]
        place = jnp.where(offset < kept[:, None], state.lengths[:, None] + offset, outside)
        text = state.text.at[rows, place].set(tokens, mode="drop")
        return _Texts(text, state.lengths + kept)

    def _continuation(self, text: Int[Array, " L"], length: Int[Array, ""]) -> Int[Array, " I"]:
        place = jnp.arange(text.size, dtype=jnp.int32)
        back = jnp.arange(1, self.longest + 1, dtype=jnp.int32)[None, :]
        same = text[place[:, None] - back] == text[length - back]
        same &= (place[:, None] >= back) & (place[:, None] < length)
        in_common = jnp.sum(jnp.cumprod(same, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)
        best = jnp.argmax(in_common * text.size + place).astype(jnp.int32)
        period = jnp.maximum(length - best, 1)  # past its own end, the guess goes on with itself
        guess = text[best + jnp.arange(self.tokens, dtype=jnp.int32) % period]
        return jnp.where(in_common[best] > 0, guess, -1)


class DraftModel(nnx.Module):
    """Guesses with a smaller model of the same vocabulary, its likeliest token again and again.

    Args:
      model: the smaller model.
      tokens: how many to guess at once.

    Raises:
      ValueError: `tokens` is below 1.

    Example:
      >>> from attn_jax.models import DecoderConfig, DraftModel, GPT, generate
      >>> large, small = (
      ...     GPT(DecoderConfig(7, 8, layers, 2, max_length=32), rngs=nnx.Rngs(0))
      ...     for layers in (2, 1)
      ... )
      >>> alone = generate(large, [[3, 1, 4]], max_new_tokens=12).tokens
      >>> alone == generate(large, [[3, 1, 4]], max_new_tokens=12, draft=DraftModel(small)).tokens
      True
    """

    def __init__(self, model: GPT, tokens: int = 4) -> None:
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1; got {tokens}")
        self.model, self.tokens = model, tokens

    def begin(self, prompts: Int[Array, "B T"], lengths: Int[Array, " B"], most: int) -> "_Caches":
        """The smaller model's caches, with the prompts in them."""
        (B, T), lengths = prompts.shape, jnp.asarray(lengths, jnp.int32)
        is_real = jnp.arange(T, dtype=jnp.int32)[None, :] < lengths[:, None]
        is_learned, longest = self.model.position is not None, self.model.config.max_length
        empty = self.model.init_caches(B, min(T + most, longest) if is_learned else T + most)
        _, caches = self.model.extend(prompts, empty, is_real=is_real)
        return _Caches(caches, lengths)

    def propose(
        self, state: "_Caches", token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], "_Caches"]:
        """Its greedy continuation of each row.

        The last guess is read, too, though nobody asks what follows: if all are kept, it must be in
        the caches.
        """

        def one(carry, i):
            token, caches = carry
            hidden, caches = self.model.extend(token[:, None], caches, is_real=(i <= room)[:, None])
            token = jnp.argmax(self.model.readout(hidden[:, 0]), axis=-1).astype(jnp.int32)
            return (token, caches), token

        steps = jnp.arange(self.tokens + 1, dtype=jnp.int32)
        (_, caches), guesses = jax.lax.scan(one, (token, state.caches), steps)
        return guesses[:-1].T, state._replace(caches=caches)

    def keep(
        self, state: "_Caches", tokens: Int[Array, "B I"], kept: Int[Array, " B"]
    ) -> "_Caches":
        """The caches without the guesses that were wrong."""
        del tokens
        lengths = state.lengths + kept.astype(jnp.int32)
        return _Caches(tuple(cache.rewind(lengths) for cache in state.caches), lengths)


class _Texts(NamedTuple):
    text: Int[Array, "B L"]
    lengths: Int[Array, " B"]


class _Caches(NamedTuple):
    caches: tuple[Cache, ...]
    lengths: Int[Array, " B"]
