"""A Transformer encoder block; with a causal mask, a block of a decoder-only language model."""

from functools import partial
from typing import Any

from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax.caches import Cache
from attn_jax.modules.dropout import split
from attn_jax.modules.feed_forward import FeedForward
from attn_jax.modules.multi_head_attention import HeadsMask, MultiHeadAttention
from attn_jax.modules.residual import Residual


class TransformerEncoderBlock(nnx.Module):
    """A Transformer encoder block: self-attention, then a feed-forward network, both residual.

    Vaswani et al. (2017), section 3.1 and figure 1 on the left, https://arxiv.org/abs/1706.03762.
    With an attention made with `mask=masks.causal()` it is a block of GPT (Radford et al. 2018),
    and `extend` decodes.

      x = residual(x, attention)
      x = residual(x, feed_forward)     see `Residual`

    Args:
      attention: the attention among the tokens, with its heads, mask, positions and dropout.
      feed_forward: the network for each token; any module that is called as `f(x, rng=rng)`.
      rngs: passed to flax's norms.
      options: of both `Residual` layers: placement, norm, norm_eps, dropout_rate, dtype,
        param_dtype.

    Returns:
      A module; call it with any number of batch axes.

    Raises:
      ValueError: as `Residual`.

    Cost:
      The sum of the costs of its two parts.

    Example:
      >>> from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerEncoderBlock
      >>> rngs = nnx.Rngs(0)
      >>> attention = MultiHeadAttention(8, 2, mask=attn_jax.masks.causal(), rngs=rngs)
      >>> block = TransformerEncoderBlock(attention, FeedForward(8, 32, rngs=rngs), rngs=rngs)
      >>> x = jax.random.normal(jax.random.key(0), (5, 8))
      >>> bool(jnp.allclose(block(x)[:3], block(x[:3]), atol=1e-6))   # causal
      True
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        feed_forward: FeedForward,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        residual = partial(Residual, attention.model_dim, rngs=rngs, **options)
        self.attention, self.attention_residual = attention, residual()
        self.feed_forward, self.feed_forward_residual = feed_forward, residual()

    def __call__(
        self,
        x: Float[Array, "*B T D"],
        *,
        mask: HeadsMask | None = None,
        position: Int[Array, "*#B T"] | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "*B T D"]:
        """Applies the block to a whole sequence.

        Args:
          x: one vector for each token.
          mask: another mask, combined with the attention's own.
          position: the position of each token; default 0, 1, 2, …
          rng: the random key of dropout; None turns dropout off.

        Returns:
          One vector for each token.
        """
        first, second = split(rng, 2)
        attention = partial(self.attention, mask=mask, query_position=position)
        x = self.attention_residual(x, attention, rng=first)
        return self.feed_forward_residual(x, self.feed_forward, rng=second)

    def extend(
        self, x: Float[Array, "B T D"], cache: Cache, *, is_real: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Applies the block to the next tokens, and appends them to the cache.

        Args:
          x: the next tokens of each sequence, any number.
          cache: see `MultiHeadAttention.extend`.
          is_real: False for padding.

        Returns:
          One vector for each token (meaningless for padding), and the cache with the tokens.

        Raises:
          CacheOverflow: there is no room, outside of `jit`.
        """
        out, cache = self.attention.extend(self.attention_residual.enter(x), cache, is_real=is_real)
        x = self.attention_residual.leave(x, out)
        return self.feed_forward_residual(x, self.feed_forward), cache
