"""Draft tokens, which a model verifies in one pass instead of many: speculative decoding.

Leviathan, Kalman & Matias, "Fast Inference from Transformers via Speculative Decoding" (2022),
https://arxiv.org/abs/2211.17192. A draft here proposes single tokens, not distributions, so
algorithm 1 becomes simpler: the model samples its own token at each position, with the key of that
position, and a draft token is accepted if it and all before it equal the model's. The output is the
same as without a draft.
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
    """The methods that `generate` calls on a draft.

    A draft proposes tokens that may follow. Its state is any pytree; `generate` passes it along.

    Example:
      >>> from attn_jax.models import Draft, PromptLookup
      >>> isinstance(PromptLookup(), Draft)
      True
    """

    tokens: int

    def begin(self, prompts: Int[Array, "B T"], lengths: Int[Array, " B"], most: int) -> Any:
        """The state after the prompts, which are padded on the right; `most` tokens may follow."""
        ...

    def propose(
        self, state: Any, token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], Any]:
        """The draft tokens after `token`, each example's next output; the first −1 ends them.

        An example may output `room` more tokens after `token`; below 0 it outputs nothing at all.
        """
        ...

    def keep(
        self, state: Any, tokens: Int[Array, "B {self.tokens}+1"], kept: Int[Array, " B"]
    ) -> Any:
        """The state after each example has output the first `kept` of `tokens`.

        `tokens` are the token and the draft tokens after it, as in `propose`.
        """
        ...


class PromptLookup(nnx.Module):
    """A draft that proposes the tokens that followed an earlier occurrence of the last tokens.

    Saxena, "Prompt Lookup Decoding" (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
    The position is the one whose preceding tokens match the last tokens of the text for the longest
    stretch, up to `longest`; of several such positions, the latest. It needs no second model, and
    helps where a text repeats parts of itself: code, summaries.

      draft_token[t] = text[position + t]

    Args:
      tokens: how many draft tokens to propose at once.
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
        """The prompts, with room for the output."""
        text = jnp.pad(jnp.asarray(prompts, jnp.int32), ((0, 0), (0, most + 1 + self.tokens)))
        return _Texts(text, jnp.asarray(lengths, jnp.int32))

    def propose(
        self, state: "_Texts", token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], "_Texts"]:
        """The tokens after the longest match in each example's text, the latest of equal ones."""
        del room
        with_token = self.keep(state, token[:, None], jnp.ones_like(token))
        return jax.vmap(self._continuation)(*with_token), state

    def keep(self, state: "_Texts", tokens: Int[Array, "B I"], kept: Int[Array, " B"]) -> "_Texts":
        """The texts with the output tokens appended."""
        tokens, kept = tokens.astype(jnp.int32), kept.astype(jnp.int32)
        examples = jnp.arange(kept.size)[:, None]
        offset = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
        outside = state.text.shape[1]
        position = jnp.where(offset < kept[:, None], state.lengths[:, None] + offset, outside)
        text = state.text.at[examples, position].set(tokens, mode="drop")
        return _Texts(text, state.lengths + kept)

    def _continuation(self, text: Int[Array, " L"], length: Int[Array, ""]) -> Int[Array, " I"]:
        """The draft tokens of one text of `length` tokens; all −1 if nothing matches."""
        position = jnp.arange(text.size, dtype=jnp.int32)
        back = jnp.arange(1, self.longest + 1, dtype=jnp.int32)[None, :]
        same = text[position[:, None] - back] == text[length - back]
        same &= (position[:, None] >= back) & (position[:, None] < length)
        matching = jnp.sum(jnp.cumprod(same, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)
        best = jnp.argmax(matching * text.size + position).astype(jnp.int32)
        period = jnp.maximum(length - best, 1)  # past the text's end, the draft tokens repeat
        proposed = text[best + jnp.arange(self.tokens, dtype=jnp.int32) % period]
        return jnp.where(matching[best] > 0, proposed, -1)


class DraftModel(nnx.Module):
    """A draft that proposes the greedy continuation of a smaller model.

    Args:
      model: the smaller model; it has the vocabulary of the model that verifies.
      tokens: how many draft tokens to propose at once.

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
        """The smaller model's caches after prefill."""
        (B, T), lengths = prompts.shape, jnp.asarray(lengths, jnp.int32)
        is_real = jnp.arange(T, dtype=jnp.int32)[None, :] < lengths[:, None]
        is_learned, longest = self.model.position is not None, self.model.config.max_length
        empty = self.model.init_caches(B, min(T + most, longest) if is_learned else T + most)
        _, caches = self.model.extend(prompts, empty, is_real=is_real)
        return _Caches(caches, lengths)

    def propose(
        self, state: "_Caches", token: Int[Array, " B"], room: Int[Array, " B"]
    ) -> tuple[Int[Array, "B {self.tokens}"], "_Caches"]:
        """The smaller model's greedy continuation of each example.

        The last draft token enters the caches too, and what follows it is discarded: if all draft
        tokens are accepted, the caches must hold it.
        """

        def one(carry, i):
            token, caches = carry
            hidden, caches = self.model.extend(token[:, None], caches, is_real=(i <= room)[:, None])
            token = jnp.argmax(self.model.readout(hidden[:, 0]), axis=-1).astype(jnp.int32)
            return (token, caches), token

        steps = jnp.arange(self.tokens + 1, dtype=jnp.int32)
        (_, caches), proposed = jax.lax.scan(one, (token, state.caches), steps)
        return proposed[:-1].T, state._replace(caches=caches)

    def keep(
        self, state: "_Caches", tokens: Int[Array, "B I"], kept: Int[Array, " B"]
    ) -> "_Caches":
        """The caches without the rejected draft tokens."""
        del tokens
        lengths = state.lengths + kept.astype(jnp.int32)
        return _Caches(tuple(cache.rewind(lengths) for cache in state.caches), lengths)


class _Texts(NamedTuple):
    """The state of `PromptLookup`: prompt and output of each example, and how long they are."""

    text: Int[Array, "B L"]
    lengths: Int[Array, " B"]


class _Caches(NamedTuple):
    """The state of `DraftModel`: its caches, and how many verified tokens each example has."""

    caches: tuple[Cache, ...]
    lengths: Int[Array, " B"]
