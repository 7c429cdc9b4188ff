"""Language models of one stack of causal blocks: GPT-2, Llama, Mistral, Qwen3, Gemma 2."""

import math
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from attn_jax import caches, masks, score_mods
from attn_jax._base.concrete import are_numbers
from attn_jax.models.decoder_config import DecoderConfig, warn_of_length
from attn_jax.modules import Embedding, FeedForward, MultiHeadAttention, TransformerEncoderBlock
from attn_jax.modules.dropout import dropout, split
from attn_jax.modules.multi_head_attention import HeadsMask
from attn_jax.modules.norms import make_norm, normalise

type CacheKind = Literal["contiguous", "sliding", "paged"]


class GPT(nnx.Module):
    """A decoder-only Transformer: each token's vector goes through causal blocks, then to logits.

    Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3, and
    what came of it; `DecoderConfig` says which. Matrices start at N(0, 0.02²), those that end a
    sub-layer smaller by √(2 num_layers), as in the paper.

      logits = norm(blocks(embedding(tokens) + position)) tableᵀ

    Args:
      config: sizes and choices.
      param_dtype: in which parameters are kept, and so what is computed in; norms stay float32.
      rngs: where the parameters come from.

    Returns:
      A module. `model(tokens)` gives the logits of whole texts, `extend` decodes with caches.

    Raises:
      ValueError: sizes do not fit together.

    Cost:
      O(B T model_dim² num_layers) and attention's; logits are B·T·vocab_size numbers, so `hidden`
      and `readout` are apart.

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
        self.origin: Any = None  # what `load_hf` found beside weights, for `save_hf`
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
            [_block(config, layer, param_dtype, rngs) for layer in range(config.num_layers)]
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
          mask: who may read whom beside the causal rule: packed documents, padding. An array in it
            has axes of heads: `masks.segments(ids[:, None])`.
          position: where each token stands, from 0 on; it may restart in each packed document.
          rng: what is dropped; None drops nothing.

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
        """As the call, without the product with the vocabulary.

        Raises:
          ValueError: there are more tokens than learned positions.
        """
        if position is None:
            self._check_length(tokens)
        first, *rest = split(rng, 1 + len(self.blocks))
        place = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None] if position is None else position
        x = dropout(self._embedded(tokens, place), self.config.dropout_rate, first)
        for block, own in zip(self.blocks, rest, strict=True):
            x = block(x, mask=mask, position=position, rng=own)
        return normalise(self.norm, x)

    def readout(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B P"]:
        """Logits over the vocabulary, given what `hidden` or `extend` made of tokens."""
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
        """Takes the next tokens of each text: a prompt, a piece of one, or one token.

        Args:
          tokens: ids, as many as one likes.
          caches: one a layer, of `init_caches`.
          is_real: False for padding, on either side; None where all tokens are real.

        Returns:
          What `hidden` gives for these tokens, and the caches with them.

        Raises:
          CacheOverflow: there is no room, and we are not under `jit`.
          ValueError: there are more tokens than learned positions, and none is padding.
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
        B: int,
        capacity: int,
        *,
        kind: CacheKind = "contiguous",
        int8: bool = False,
        dtype: DTypeLike | None = None,
        **options: Any,
    ) -> tuple[caches.Cache, ...]:
        """Empty caches, one a layer.

        Args:
          B: how many texts.
          capacity: the most tokens of one text.
          kind: where keys and values are kept, see `attn_jax.caches`. "sliding" is for the layers
            that have a window; the others are contiguous.
          int8: keep them in eight bits.
          dtype: in which they are kept; that of the embeddings by default.
          options: of the kind: `chunk`, or `page` and `pages`.

        Returns:
          A tuple for `extend`.

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
        kept = {"int8": int8, "dtype": self.embedding.table.dtype if dtype is None else dtype}

        def one(layer: int) -> caches.Cache:
            window = config.window(layer)
            if kind == "sliding" and window is not None:
                return caches.sliding(B, window, *size, **kept, **options)
            if kind == "paged":
                return caches.paged(B, capacity, *size, **kept, **options)
            return caches.contiguous(B, capacity, *size, **kept)

        return tuple(one(layer) for layer in range(config.num_layers))

    def _check_length(self, tokens) -> None:
        """A length that is a symbol of `jax.export` is unknown: a learned table gives NaN past its
        end."""
        T, longest = tokens.shape[1], self.config.max_length
        if not are_numbers(T):
            return
        if self.position is None:
            warn_of_length(self.config, T)
        elif longest < T:
            raise ValueError(
                f"tokens has {T} positions, and the model has learned {longest} (max_length); cut "
                "the texts, or choose a model with rotary positions"
            )

    def _embedded(self, tokens, position) -> Float[Array, "B T D"]:
        x = self.embedding(tokens)
        if self.config.embed_scale != 1:
            x = x * jnp.asarray(self.config.embed_scale, x.dtype)
        return (
            x if self.position is None else x + jnp.broadcast_to(self.position(position), x.shape)
        )


def _block(
    config: DecoderConfig, layer: int, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> TransformerEncoderBlock:
    made = {
        "kernel_init": nnx.initializers.normal(0.02),
        "param_dtype": param_dtype,
        "rngs": rngs,
    }
    attention = _attention(config, layer, made)
    feed_forward = FeedForward(
        config.model_dim,
        4 * config.model_dim if config.hidden_dim is None else config.hidden_dim,
        activation=config.activation,
        gated=config.gated,
        use_bias=config.use_bias,
        **made,
    )
    for last in (attention.w_out, feed_forward.w_down):
        last[...] = last[...] / math.sqrt(2 * config.num_layers)
    return TransformerEncoderBlock(
        attention,
        feed_forward,
        placement=config.placement,
        norm=config.norm,
        norm_eps=config.norm_eps,
        dropout_rate=config.dropout_rate,
        rngs=rngs,
    )


def _attention(config: DecoderConfig, layer: int, made: dict[str, Any]) -> MultiHeadAttention:
    window = config.window(layer)
    near = masks.causal() if window is None else masks.causal() & masks.sliding_window(window, 0)
    cap = config.logits_soft_cap
    return MultiHeadAttention(
        config.model_dim,
        config.num_heads,
        num_kv_heads=config.kv_heads,
        head_dim=config.head_width,
        use_bias=config.use_qkv_bias,
        use_out_bias=config.use_bias,
        qk_norm=config.qk_norm,
        rotary=config.rotary,
        mask=near,
        score_mod=None if cap is None else score_mods.soft_cap(cap),
        scale=config.scale,
        norm_eps=config.norm_eps,
        dropout_rate=config.dropout_rate,
        **made,
    )
