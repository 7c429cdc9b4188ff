"""The Transformer of the paper: an encoder–decoder of attention layers, without recurrence."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attn_jax import caches, masks, positions
from attn_jax._attend import attention_weights
from attn_jax.models.records import Step
from attn_jax.models.transformer_config import TransformerConfig
from attn_jax.modules import (
    Embedding,
    FeedForward,
    MultiHeadAttention,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)
from attn_jax.modules.dropout import dropout, split
from attn_jax.modules.norms import Norm, make_norm, normalise

type DecoderState = tuple[caches.Cache, ...]
"""Keys and values of the output so far: for each block one cache, of one sequence."""


class TransformerMemory(NamedTuple):
    """The encoded source of a `Transformer`: the decoder uses nothing else of the source.

    Attributes:
      annotations: the encoder's output for each source token [S D].
      keys: of the cross-attention of each block, computed once for the sentence [S N H].
      values: likewise [S N H].
      mask: True where the decoder may attend to [S].

    Example:
      >>> from attn_jax.models import Transformer, TransformerConfig
      >>> config = TransformerConfig(9, 7, model_dim=6, num_heads=3, num_layers=2, hidden_dim=8)
      >>> source = jnp.array([4, 5, 2, 0])
      >>> memory = Transformer(config, rngs=nnx.Rngs(0)).encode(source, source > 0)
      >>> memory.annotations.shape, [key.shape for key in memory.keys]
      ((4, 6), [(4, 3, 2), (4, 3, 2)])
    """

    annotations: Float[Array, "S D"]
    keys: tuple[Float[Array, "S N H"], ...]
    values: tuple[Float[Array, "S N H"], ...]
    mask: Bool[Array, " S"]


class Transformer(nnx.Module):
    """A translation model of encoder and decoder blocks, on one sentence; batch it with `jax.vmap`.

    Vaswani et al., "Attention Is All You Need" (2017), https://arxiv.org/abs/1706.03762. It is a
    `Translator`: losses, searches and traces take it in place of an `EncoderDecoder`.

      x_0[t] = drop(√D · embedding[token[t]] + sinusoidal[t])
      x_l = block_l(x_{l-1})      see `TransformerEncoderBlock` and `TransformerDecoderBlock`
      logits = x_N embeddingᵀ     with the table of the target's embedding

    In a trace, `weights` is the mean over the heads of one block's cross-attention, the last block
    but one (Garg et al. 2019, https://arxiv.org/abs/1909.02074: of all blocks, its mean aligns
    words best). `scores` is the mean of the heads' scores; its softmax is not `weights`.

    Args:
      config: sizes and choices.
      rngs: random keys of the initial parameters: Glorot's matrices, and tables whose rows have
        length about 1.

    Returns:
      A module. Ids outside the vocabulary give NaN: under `jit` they cannot be checked.

    Cost:
      Training O(N (T² + T S + S²) D + N (T + S) D²) for N layers, all positions at once. Decode
      step t attends to t cached positions: O(N (t + S) D + N D²).

    Example:
      >>> from attn_jax.models import Transformer, TransformerConfig
      >>> config = TransformerConfig(9, 7, model_dim=6, num_heads=3, num_layers=2, hidden_dim=8)
      >>> model = Transformer(config, rngs=nnx.Rngs(0))
      >>> source, mask, inputs = jnp.array([4, 8, 2]), jnp.ones(3, bool), jnp.array([1, 5])
      >>> memory = model.encode(source, mask)
      >>> state, step = model.step(memory, model.start(memory, 2), inputs[0])
      >>> state, step = model.step(memory, state, inputs[1])
      >>> jnp.allclose(step.logits, model.logits(source, mask, inputs)[1], atol=1e-6).item()
      True
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        blocks = range(config.num_layers)
        table = partial(Embedding, model_dim=config.model_dim, rngs=rngs)
        self.embedding = table(config.target_vocab or config.source_vocab)
        self.source_embedding = table(config.source_vocab) if config.target_vocab else None
        self.encoder = nnx.List(_encoder_block(config, rngs) for _ in blocks)
        self.decoder = nnx.List(_decoder_block(config, rngs) for _ in blocks)
        self.encoder_norm = _final_norm(config, rngs)
        self.decoder_norm = _final_norm(config, rngs)

    def encode(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> TransformerMemory:
        """Encodes the source; the decoder uses nothing else of it.

        Args:
          source: token ids; padding may be anywhere, and positions number the tokens without it.
          source_mask: True at tokens, False at padding.
          rng: dropout's key in training.

        Returns:
          The memory. If the source is all padding, every query on it is fully masked.

        Raises:
          ValueError: the source is empty.
        """
        annotations = self._annotate(source, source_mask, rng)
        layers = (block.cross_attention for block in self.decoder)
        keys, values = zip(*(layer.project_memory(annotations) for layer in layers), strict=True)
        return TransformerMemory(annotations, keys, values, source_mask)

    def start(self, memory: TransformerMemory, max_length: int) -> DecoderState:
        """Empty caches with room for `max_length` tokens."""
        N, H = self.config.num_heads, self.config.head_dim
        empty = caches.contiguous(1, max_length, N, H, dtype=memory.annotations.dtype)
        return (empty,) * len(self.decoder)

    def step(
        self, memory: TransformerMemory, state: DecoderState, token: Int[Array, ""]
    ) -> tuple[DecoderState, Step]:
        """One decode step: from the previous token's id to the logits of the next token."""
        x = self._embed(self.embedding, token[None], state[0].lengths, None)[None]
        mask = memory.mask[None, None, None]
        longer, block_inputs = [], []
        for block, cache, key, value in zip(
            self.decoder, state, memory.keys, memory.values, strict=True
        ):
            block_inputs.append(x)
            x, cache = block.extend(x, cache, (key[None], value[None]), memory_mask=mask)
            longer.append(cache)
        x = _normalise_end(self.decoder_norm, x)[0, 0]
        i = self.shown
        scores, weights = _inspect(
            self.decoder[i], block_inputs[i], state[i], memory.keys[i], memory.mask
        )
        context = weights @ memory.annotations
        return tuple(longer), Step(self.embedding.attend(x), scores, weights, context, x)

    @property
    def shown(self) -> int:
        """Index of the decoder block whose cross-attention a trace records: the last but one."""
        return max(len(self.decoder) - 2, 0)

    def logits(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "T K"]:
        """Teacher forcing: the logits of every next token, given the true tokens before it.

        Args:
          source: token ids.
          source_mask: True at tokens, False at padding.
          inputs: the decoder's inputs, [BOS, first token, …]; logits[t] are for the token after
            inputs[t].
          rng: dropout's key; None drops nothing.

        Returns:
          Logits over the target vocabulary.
        """
        return self.readout(self.unroll(source, source_mask, inputs, rng=rng))

    def unroll(
        self,
        source: Int[Array, " S"],
        source_mask: Bool[Array, " S"],
        inputs: Int[Array, " T"],
        *,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "T D"]:
        """`logits` up to the readout: the decoder's vector at each position."""
        source_rng, inputs_rng, *block_rngs = split(rng, 2 + len(self.decoder))
        memory = self._annotate(source, source_mask, source_rng)
        x = self._embed(self.embedding, inputs, jnp.arange(inputs.shape[0]), inputs_rng)
        mask = source_mask[None, None]
        for block, block_rng in zip(self.decoder, block_rngs, strict=True):
            x = block(x, memory, memory_mask=mask, rng=block_rng)
        return _normalise_end(self.decoder_norm, x)

    def readout(
        self, rows: Float[Array, "T D"], *, rng: PRNGKeyArray | None = None
    ) -> Float[Array, "T K"]:
        """The logits of the decoder's vectors; `rng` is unused, the readout has no dropout."""
        del rng
        return self.embedding.attend(rows)

    def _annotate(self, source, source_mask, rng) -> Float[Array, "S D"]:
        """The encoder's output for each source token."""
        if source.shape[0] == 0:
            raise ValueError("source is empty (S=0); a sentence has at least its EOS")
        table = self.embedding if self.source_embedding is None else self.source_embedding
        source_rng, *block_rngs = split(rng, 1 + len(self.encoder))
        x = self._embed(table, source, jnp.cumsum(source_mask) - 1, source_rng)
        for block, block_rng in zip(self.encoder, block_rngs, strict=True):
            x = block(x, mask=source_mask[None, None], rng=block_rng)
        return _normalise_end(self.encoder_norm, x)

    def _embed(self, table: Embedding, tokens, position, rng) -> Float[Array, "T D"]:
        """Sections 3.4 and 3.5: √D times the embedding, plus the position's vector."""
        x = table(tokens) * math.sqrt(self.config.model_dim)
        x = x + positions.sinusoidal(position, self.config.model_dim).astype(x.dtype)
        return dropout(x, self.config.dropout_rate, rng)


def _attention(
    config: TransformerConfig, rngs: nnx.Rngs, mask: masks.Mask | None = None
) -> MultiHeadAttention:
    return MultiHeadAttention(
        config.model_dim, config.num_heads, use_bias=config.use_bias, mask=mask, rngs=rngs
    )


def _options(config: TransformerConfig) -> dict:
    """The options of every block's residual connections: norms and dropout."""
    return {
        "placement": config.placement,
        "norm_eps": config.norm_eps,
        "dropout_rate": config.dropout_rate,
    }


def _encoder_block(config: TransformerConfig, rngs: nnx.Rngs) -> TransformerEncoderBlock:
    feed_forward = FeedForward(config.model_dim, config.hidden_dim, rngs=rngs)
    return TransformerEncoderBlock(
        _attention(config, rngs), feed_forward, rngs=rngs, **_options(config)
    )


def _decoder_block(config: TransformerConfig, rngs: nnx.Rngs) -> TransformerDecoderBlock:
    feed_forward = FeedForward(config.model_dim, config.hidden_dim, rngs=rngs)
    self_attention = _attention(config, rngs, masks.causal())
    cross_attention = _attention(config, rngs)
    return TransformerDecoderBlock(
        self_attention, cross_attention, feed_forward, rngs=rngs, **_options(config)
    )


def _final_norm(config: TransformerConfig, rngs: nnx.Rngs) -> Norm | None:
    if not config.ends_with_norm:
        return None
    options = {"epsilon": config.norm_eps, "param_dtype": jnp.float32, "rngs": rngs}
    return make_norm("layer", config.model_dim, **options)


def _normalise_end(norm: Norm | None, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """`x` after the final norm of a stack; `x` itself if the stack has none."""
    return x if norm is None else normalise(norm, x)


def _inspect(
    block: TransformerDecoderBlock,
    x: Float[Array, "1 1 D"],
    cache: caches.Cache,
    key: Float[Array, "S N H"],
    mask: Bool[Array, " S"],
) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Scores and weights of a block's cross-attention, means over its heads.

    This repeats part of what the block's `extend` computed. Under `jit` XLA computes the common
    part once, and nothing for a caller that drops the result.
    """
    out, _ = block.self_attention.extend(block.self_residual.enter(x), cache)
    x = block.cross_residual.enter(block.self_residual.leave(x, out))
    layer = block.cross_attention
    query = layer.project_query(x[0])
    scores = jnp.einsum("TNH,SNH->NTS", query, key) / math.sqrt(layer.head_dim)
    weights = jax.vmap(lambda query, key: attention_weights(query, key, mask=mask[None]), 1)
    return scores.mean(axis=0)[0], weights(query, key).mean(axis=0)[0]
