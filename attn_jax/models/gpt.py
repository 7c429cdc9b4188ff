"""Language models made of one stack of decoder blocks: GPT-2, Llama, Mistral, Qwen3, Gemma 2."""

from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from attn_jax import caches
from attn_jax._base.concrete import are_numbers
from attn_jax.models.decoder_block import DecoderBlock
from attn_jax.models.decoder_config import DecoderConfig, warn_of_length
from attn_jax.modules import Embedding
from attn_jax.modules.dropout import dropout, split
from attn_jax.modules.multi_head_attention import HeadsMask
from attn_jax.modules.norms import make_norm, normalise

type CacheKind = Literal["contiguous", "sliding", "paged"]


class GPT(nnx.Module):
    """A decoder-only Transformer: embedding, a stack of `DecoderBlock`s, a norm, logits.

    Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3, and
    its successors; `DecoderConfig` lists them. Matrices start at N(0, 0.02²); the last one of each
    sub-layer is divided by √(2 num_layers), as in the paper.

      logits = norm(blocks(embedding(tokens) + position)) tableᵀ

    Args:
      config: sizes and choices.
      param_dtype: dtype of the parameters and of the computation; norms stay float32.
      rngs: random keys of the initial parameters.

    Returns:
      A module. `model(tokens)` gives the logits of whole texts; `extend` decodes with caches.

    Raises:
      ValueError: sizes do not fit together.

    Cost:
      O(B T model_dim² num_layers), plus attention. Logits are B·T·vocab_size numbers; to compute
      those of few positions, call `hidden` and then `readout`.

    Example:
      >>> from attn_jax.models import DecoderConfig, GPT
      >>> config = DecoderConfig(vocab_size=7, model_dim=8, num_layers=2, num_heads=2, max_length=9)
      >>> model = GPT(config, rngs=nnx.Rngs(0))
      >>> tokens = jnp.array([[3, 1, 4, 1, 5]])
      >>> hidden, _ = model.extend(tokens, model.init_caches(1, 9))
      >>> bool(jnp.allclose(model.readout(hidden), model(tokens), atol=1e-6))
      True
    """

    def __init__(
        self, config: DecoderConfig, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        self.origin: Any = None  # files that `load_hf` found beside the weights, for `save_hf`
        table = partial(
            Embedding,
            model_dim=config.model_dim,
            embedding_init=nnx.initializers.normal(0.02),
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.embedding = table(config.vocab_size)
        self.position = table(config.max_length) if config.rotary is None else None
        self.blocks = nnx.List(
            DecoderBlock(config, layer, param_dtype=param_dtype, rngs=rngs)
            for layer in range(config.num_layers)
        )
        norm = {"epsilon": config.norm_eps, "param_dtype": jnp.float32, "rngs": rngs}
        self.norm = make_norm(config.norm, config.model_dim, **norm)
        self.output = None if config.is_tied else table(config.vocab_size)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        mask: HeadsMask | None = None,
        position: Int[Array, "B T"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T P"]:
        """Logits over the vocabulary for the token after each token.

        Args:
          tokens: ids.
          mask: which tokens may attend to which, beside the causal rule: for packed documents or
            padding. An array in it has a heads axis: `masks.segments(ids[:, None])`.
          position: the position of each token, from 0 on; it may restart in each packed document.
          rng: the key of dropout; None drops nothing.

        Returns:
          Logits in the dtype of the embeddings.

        Raises:
          ValueError: there are more tokens than learned positions.
        """
        return self.readout(self.hidden(tokens, mask=mask, position=position, rng=rng))

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        mask: HeadsMask | None = None,
        position: Int[Array, "B T"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "B T D"]:
        """The vectors after the last norm, from which `readout` computes logits.

        The arguments are those of the call.

        Raises:
          ValueError: there are more tokens than learned positions.
        """
        if position is None:
            self._check_length(tokens)
        embedding_rng, *block_rngs = split(rng, 1 + len(self.blocks))
        place = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None] if position is None else position
        x = dropout(self._embedded(tokens, place), self.config.dropout_rate, embedding_rng)
        for block, block_rng in zip(self.blocks, block_rngs, strict=True):
            x = block(x, mask=mask, position=position, rng=block_rng)
        return normalise(self.norm, x)

    def readout(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B P"]:
        """Logits over the vocabulary, from the vectors that `hidden` or `extend` returns."""
        logits = (self.embedding if self.output is None else self.output).attend(hidden)
        cap = self.config.final_soft_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def extend(
        self,
        tokens: Int[Array, "B T"],
        caches: tuple[caches.Cache, ...],
        *,
        is_real: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[caches.Cache, ...]]:
        """The vectors of each text's next tokens, computed with caches: prefill, or a decode step.

        Args:
          tokens: ids of the next tokens, one or more a text.
          caches: one a layer, as `init_caches` makes them.
          is_real: False for padding, on either side; None where all tokens are real.

        Returns:
          What `hidden` gives for these tokens, and the caches with these tokens appended.

        Raises:
          CacheOverflow: there is no room; under `jit` the cache's flag `overflowed` is set instead.
          ValueError: `is_real` is None and there are more tokens than learned positions.
        """
        if is_real is None:
            self._check_length(tokens)
        is_real = jnp.ones(tokens.shape, bool) if is_real is None else is_real
        position = caches[0].positions(is_real)
        x = self._embedded(tokens, jnp.maximum(position, 0))
        longer = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.extend(x, cache, is_real=is_real)
            longer.append(cache)
        return normalise(self.norm, x), tuple(longer)

    def init_caches(
        self,
        batch: int,
        capacity: int,
        *,
        kind: CacheKind = "contiguous",
        int8: bool = False,
        dtype: DTypeLike | None = None,
        **options: Any,
    ) -> tuple[caches.Cache, ...]:
        """Empty caches, one a layer.

        Args:
          batch: how many texts.
          capacity: the most tokens of one text.
          kind: which cache, see `attn_jax.caches`. "sliding" applies to layers that have a window;
            the other layers get a contiguous cache.
          int8: keep keys and values in eight bits.
          dtype: of keys and values; that of the embeddings by default.
          options: options of the kind: `chunk` for "sliding", `page` and `pages` for "paged".

        Returns:
          The caches, for `extend`.

        Raises:
          ValueError: the model has no positions for so many tokens, or the kind is unknown.
        """
        config = self.config
        if self.position is not None and capacity > config.max_length:
            raise ValueError(
                f"capacity={capacity} is more than the {config.max_length} positions of the model"
            )
        if kind not in ("contiguous", "sliding", "paged"):
            raise ValueError(f"kind={kind!r} is unknown; choose contiguous, sliding or paged")
        size = (config.kv_heads, config.head_width)
        storage = {"int8": int8, "dtype": self.embedding.table.dtype if dtype is None else dtype}

        def empty_cache(layer: int) -> caches.Cache:
            window = config.window(layer)
            if kind == "sliding" and window is not None:
                return caches.sliding(batch, window, *size, **storage, **options)
            if kind == "paged":
                return caches.paged(batch, capacity, *size, **storage, **options)
            return caches.contiguous(batch, capacity, *size, **storage)

        return tuple(empty_cache(layer) for layer in range(config.num_layers))

    def _check_length(self, tokens) -> None:
        """Raises or warns if there are more tokens than positions.

        A symbolic length of `jax.export` is not checked: a learned table gives NaN past its end.
        """
        T, longest = tokens.shape[1], self.config.max_length
        if not are_numbers(T):
            return
        if self.position is None:
            warn_of_length(self.config, T)
        elif longest < T:
            raise ValueError(
                f"tokens has {T} positions, and the model has {longest} learned ones (max_length); "
                "cut the texts, or choose a model with rotary positions"
            )

    def _embedded(self, tokens, position) -> Float[Array, "B T D"]:
        """The input vectors of the first block: embeddings, plus learned positions if any."""
        x = self.embedding(tokens)
        if self.config.embed_scale != 1:
            x = x * jnp.asarray(self.config.embed_scale, x.dtype)
        return (
            x if self.position is None else x + jnp.broadcast_to(self.position(position), x.shape)
        )
