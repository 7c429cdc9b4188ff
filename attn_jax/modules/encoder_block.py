"""One layer of a Transformer's encoder; with a causal mask, of a language model."""

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
    """Self-attention, then a feed-forward network, each with a norm and a way around it.

    Vaswani et al. (2017), section 3.1 and figure 1 on the left, https://arxiv.org/abs/1706.03762.
    An attention with `mask=masks.causal()` makes it a block of GPT (Radford et al. 2018), and then
    `extend` decodes.

      x = residual(x, attention)
      x = residual(x, feed_forward)     see `Residual`

    Args:
      attention: reads the tokens; it decides heads, masks, positions, dropout of weights.
      feed_forward: transforms each token; any module that is called with `(x, rng=)` will do.
      rngs: what flax's norms ask for.
      options: of both `Residual`: placement, norm, norm_eps, dropout_rate, dtype,
        param_dtype.

    Returns:
      A module, called with any number of batch axes.

    Raises:
      ValueError: as `Residual`.

    Cost:
      That of its two parts.

    Example:
      >>> from attn_jax.modules import FeedForward, MultiHeadAttention, TransformerEncoderBlock
      >>> rngs = nnx.Rngs(0)
      >>> attention = MultiHeadAttention(8, 2, mask=attn_jax.masks.causal(), rngs=rngs)
      >>> block = TransformerEncoderBlock(attention, FeedForward(8, 32, rngs=rngs), rngs=rngs)
      >>> x = jax.random.normal(jax.random.key(0), (5, 8))
      >>> bool(jnp.allclose(block(x)[:3], block(x[:3]), atol=1e-6))   # none reads ahead
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
        """The tokens, one layer further.

        Args:
          x: one vector a token.
          mask: who may read whom, beside the attention's own mask.
          position: where each token stands; from 0 on.
          rng: what is dropped; None drops nothing.

        Returns:
          One vector a token.
        """
        first, second = split(rng, 2)
        attention = partial(self.attention, mask=mask, query_position=position)
        x = self.attention_residual(x, attention, rng=first)
        return self.feed_forward_residual(x, self.feed_forward, rng=second)

    def extend(
        self, x: Float[Array, "B T D"], cache: Cache, *, is_real: Bool[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The next tokens, one layer further, and the cache with them.

        Args:
          x: the next tokens of each sequence, as many as one likes.
          cache: as `MultiHeadAttention.extend`.
          is_real: False for padding.

        Returns:
          One vector a token (of no meaning for padding), and the cache.

        Raises:
          CacheOverflow: there is no room, and we are not under `jit`.
        """
        out, cache = self.attention.extend(self.attention_residual.enter(x), cache, is_real=is_real)
        x = self.attention_residual.leave(x, out)
        return self.feed_forward_residual(x, self.feed_forward), cache
