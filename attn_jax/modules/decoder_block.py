"""One layer of a Transformer's decoder: what was said, what was read, and a thought about both."""

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
    """Self-attention, then attention to another sequence, then a feed-forward network.

    Vaswani et al. (2017), section 3.1 and figure 1 on the right, https://arxiv.org/abs/1706.03762.

      x = residual(x, self_attention)
      x = residual(x, cross_attention to memory)
      x = residual(x, feed_forward)     see `Residual`

    Args:
      self_attention: reads what was said so far; with `mask=masks.causal()`.
      cross_attention: reads the memory; its `memory_dim` is the memory's width.
      feed_forward: transforms each token; any module that is called with `(x, rng=)` will do.
      rngs: what flax's norms ask for.
      options: of the three `Residual`: placement, norm, norm_eps, dropout_rate, dtype,
        param_dtype.

    Returns:
      A module. `block(x, memory)` takes a whole sequence; for decoding,
      `cross_attention.project_memory` makes the memory's keys and values once, and `extend` takes
      the next tokens.

    Raises:
      ValueError: as `Residual`.

    Cost:
      That of its three parts.

    Example:
      >>> from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerDecoderBlock
      >>> rngs = nnx.Rngs(0)
      >>> said = MultiHeadAttention(8, 2, mask=attn_jax.masks.causal(), rngs=rngs)
      >>> read = MultiHeadAttention(8, 2, memory_dim=6, rngs=rngs)
      >>> block = TransformerDecoderBlock(said, read, FeedForward(8, 32, rngs=rngs), rngs=rngs)
      >>> memory, x = jax.random.normal(jax.random.key(0), (4, 6)), jnp.ones((3, 8))
      >>> all_alike = block(x, memory)   # every token says the same, so each reads the same
      >>> bool(jnp.allclose(all_alike[0], all_alike[2], atol=1e-6))
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
        """The tokens, one layer further.

        Args:
          x: one vector a token.
          memory: what the encoder made of the other sequence.
          mask: who may read whom in x, beside the self-attention's own mask.
          memory_mask: who may read what of the memory.
          position: where each token stands; from 0 on. Those of the memory stand at 0, 1, 2, …
          rng: what is dropped; None drops nothing.

        Returns:
          One vector a token.
        """
        first, second, third = split(rng, 3)
        said = partial(self.self_attention, mask=mask, query_position=position)
        read = partial(
            self.cross_attention,
            memory=memory,
            mask=memory_mask,
            query_position=position,
            key_position=None if position is None else jnp.arange(memory.shape[-2]),
        )
        x = self.self_residual(x, said, rng=first)
        x = self.cross_residual(x, read, rng=second)
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
        """The next tokens, one layer further, and the cache with them.

        Args:
          x: the next tokens of each sequence, as many as one likes.
          cache: as `MultiHeadAttention.extend`, of the self-attention.
          memory: keys and values, as `cross_attention.project_memory` makes them.
          is_real: False for padding.
          memory_mask: who may read what of the memory.

        Returns:
          One vector a token (of no meaning for padding), and the cache.

        Raises:
          CacheOverflow: there is no room, and we are not under `jit`.
        """
        position = cache.positions(jnp.ones(x.shape[:2], bool) if is_real is None else is_real)
        entered = self.self_residual.enter(x)
        out, longer = self.self_attention.extend(entered, cache, is_real=is_real)
        x = self.self_residual.leave(x, out)
        out = self.cross_attention.read_memory(
            self.cross_residual.enter(x),
            *memory,
            mask=memory_mask,
            query_position=position,
            key_position=jnp.arange(memory[0].shape[-3]),
            query_row=position,
        )
        x = self.cross_residual.leave(x, out)
        return self.feed_forward_residual(x, self.feed_forward), longer
