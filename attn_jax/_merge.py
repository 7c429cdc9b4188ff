"""Attention over parts of the keys, merged into attention over all of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax._base import checks, numerics

type Partial = tuple[Float[Array, "*B T V"], Float[Array, "*B T"]]


def merge_partials(first: Partial, second: Partial) -> Partial:
    """Attention over the union of two disjoint sets of keys, from attention over each set.

    Milakov & Gimelshein (2018), section 3.1, https://arxiv.org/abs/1805.02867. Ring attention and
    attention over chunks of a cache are split over keys in this way.

      logsumexp = log(exp(logsumexp_1) + exp(logsumexp_2))
      out = Σ_i exp(logsumexp_i - logsumexp) out_i

    Args:
      first: output and log-sum-exp, as `attend_with_logsumexp` returns them, or of many heads
        `dot_product_attention_with_logsumexp`.
      second: the same for other keys.

    Returns:
      Output in the first output's dtype, and log-sum-exp. Zeros and −inf where the query is
      fully masked in both parts.

    Raises:
      ValueError: the parts differ in shape.

    Numerics:
      Shares in the dtype of log-sum-exp. Merging is associative up to rounding, and exact where the
      query is fully masked in one part.

    Cost:
      O(T V).

    Example:
      >>> query, key = jnp.ones((1, 2)), jnp.arange(8.0).reshape(4, 2)
      >>> attend = attn_jax.attend_with_logsumexp
      >>> parts = (attend(query, key[part], key[part]) for part in (slice(1), slice(1, 4)))
      >>> out, _ = attn_jax.merge_partials(*parts)
      >>> bool(jnp.allclose(out, attend(query, key, key)[0]))
      True
    """
    (out_1, logsumexp_1), (out_2, logsumexp_2) = jax.tree.map(jnp.asarray, (first, second))
    checks.check_shapes(
        out_1=(out_1, "*B T V"),
        logsumexp_1=(logsumexp_1, "*B T"),
        out_2=(out_2, "*B T V"),
        logsumexp_2=(logsumexp_2, "*B T"),
    )
    parts = jnp.stack([logsumexp_1, logsumexp_2], axis=-1)
    shares, logsumexp = numerics.masked_softmax(parts, None)
    outs = jnp.stack([out_1, out_2], axis=-2).astype(shares.dtype)
    return jnp.einsum("...i,...iV->...V", shares, outs).astype(out_1.dtype), logsumexp
