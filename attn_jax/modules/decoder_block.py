"""A Transformer decoder block: self-attention, cross-attention, feed-forward network."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import masks
from attn_jax._block_mask import BlockMask
from attn_jax.caches import Cache
from attn_jax.modules.dropout import split
from attn_jax.modules.feed_forward import FeedForward
from attn_jax.modules.multi_head_attention import HeadsMask, MultiHeadAttention
from attn_jax.modules.residual import Residual

type OwnMask = Bool[Array, "*#B #N #T T"] | masks.MaskFunction | BlockMask


class TransformerDecoderBlock(nnx.Module):
    """A Transformer decoder block: self-attention, cross-attention, feed-forward network.

    Vaswani et al. (2017), section 3.1 and figure 1 on the right, https://arxiv.org/abs/1706.03762.

      x = residual(x, self_attention)
      x = residual(x, cross_attention to memory)
      x = residual(x, feed_forward)     see `Residual`

    Args:
      self_attention: the attention among the decoder's tokens, made with `mask=masks.causal()`.
      cross_attention: the attention to the memory (the encoder's output), made with the memory's
        width as `memory_dim`.
      feed_forward: the network for each token; any module that is called as `f(x, rng=rng)`.
      rngs: passed to flax's norms.
      options: of the three `Residual` layers: placement, norm, norm_eps, dropout_rate, dtype,
        param_dtype.

    Returns:
      A module. `block(x, memory)` takes a whole sequence. For decoding,
      `cross_attention.project_memory` computes the memory's keys and values once, and `extend`
      takes the next tokens.

    Raises:
      ValueError: as `Residual`.

    Cost:
      The sum of the costs of its three parts.

    Example:
      >>> from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerDecoderBlock
      >>> rngs = nnx.Rngs(0)
      >>> own = MultiHeadAttention(8, 2, mask=attn_jax.masks.causal(), rngs=rngs)
      >>> cross = MultiHeadAttention(8, 2, memory_dim=6, rngs=rngs)
      >>> block = TransformerDecoderBlock(own, cross, FeedForward(8, 32, rngs=rngs), rngs=rngs)
      >>> memory, x = jax.random.normal(jax.random.key(0), (4, 6)), jnp.ones((3, 8))
      >>> out = block(x, memory)   # equal tokens without positions: equal outputs
      >>> bool(jnp.allclose(out[0], out[2], atol=1e-6))
      True
    """

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        cross_attention: MultiHeadAttention,
        feed_forward: FeedForward,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        residual = partial(Residual, self_attention.model_dim, rngs=rngs, **options)
        self.self_attention, self.self_residual = self_attention, residual()
        self.cross_attention, self.cross_residual = cross_attention, residual()
        self.feed_forward, self.feed_forward_residual = feed_forward, residual()

    def __call__(
        self,
        x: Float[Array, "*B T D"],
        memory: Float[Array, "*B S E"],
        *,
        mask: OwnMask | None = None,
        memory_mask: HeadsMask | None = None,
        position: Int[Array, "*#B T"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "*B T D"]:
        """Applies the block to a whole sequence.

        Args:
          x: one vector for each token.
          memory: the encoder's output.
          mask: another mask for the self-attention, combined with the layer's own.
          memory_mask: which tokens may attend to which part of the memory.
          position: the position of each token; default 0, 1, 2, …, as for the memory.
          rng: the random key of dropout; None turns dropout off.

        Returns:
          One vector for each token.
        """
        first, second, third = split(rng, 3)
        attend = partial(self.self_attention, mask=mask, query_position=position)
        attend_to_memory = partial(
            self.cross_attention,
            memory=memory,
            mask=memory_mask,
            query_position=position,
            key_position=None if position is None else jnp.arange(memory.shape[-2]),
        )
        x = self.self_residual(x, attend, rng=first)
        x = self.cross_residual(x, attend_to_memory, rng=second)
        return self.feed_forward_residual(x, self.feed_forward, rng=third)

    def extend(
        self,
        x: Float[Array, "B T D"],
        cache: Cache,
        memory: tuple[Float[Array, "B S K H"], Float[Array, "B S K V"]],
        *,
        is_real: Bool[Array, "B T"] | None = None,
        memory_mask: HeadsMask | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Applies the block to the next tokens, and appends them to the cache.

        Args:
          x: the next tokens of each sequence, any number.
          cache: the cache of the self-attention, see `MultiHeadAttention.extend`.
          memory: keys and values from `cross_attention.project_memory`.
          is_real: False for padding.
          memory_mask: which tokens may attend to which part of the memory.

        Returns:
          One vector for each token (meaningless for padding), and the cache with the tokens.

        Raises:
          CacheOverflow: there is no room, outside of `jit`.
        """
        position = cache.positions(jnp.ones(x.shape[:2], bool) if is_real is None else is_real)
        entered = self.self_residual.enter(x)
        out, cache = self.self_attention.extend(entered, cache, is_real=is_real)
        x = self.self_residual.leave(x, out)
        out = self.cross_attention.attend_to_memory(
            self.cross_residual.enter(x),
            *memory,
            mask=memory_mask,
            query_position=position,
            key_position=jnp.arange(memory[0].shape[-3]),
            query_row=position,
        )
        x = self.cross_residual.leave(x, out)
        return self.feed_forward_residual(x, self.feed_forward), cache
