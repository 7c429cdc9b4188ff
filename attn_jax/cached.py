"""Attention on a cache: the positions decide who reads whom, and nothing is guessed from shapes."""

import functools
from typing import Any

from jaxtyping import Array, Float

from attn_jax import masks, score_mods
from attn_jax.attend import Scale
from attn_jax.caches import Held
from attn_jax.dispatch import Implementation
from attn_jax.multi_head import dot_product_attention


def cached_attention(
    query: Float[Array, "B T N H"],
    held: Held,
    *,
    mask: masks.MaskFunction | None = None,
    score_mod: score_mods.ScoreModFunction | None = None,
    scale: Scale | None = None,
    sink: Float[Array, " N"] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "B T N V"]:
    """What the tokens that were just appended to a cache read: themselves, and what came before.

    Shazeer, "Fast Transformer Decoding" (2019), section 2.3, https://arxiv.org/abs/1911.02150. One
    token, a chunk or a prompt are the same call. Slots that hold nothing stand later than every
    query, so the causal rule hides them, and whole tiles of them are skipped.

      dot_product_attention(query, held.key, held.value, mask=causal() & mask)

    Args:
      query: of the tokens that were appended, N heads.
      held: what `append` returned beside the cache.
      mask: a rule beside the causal one, and beside the window of a sliding cache.
      score_mod: as `dot_product_attention`.
      scale: as `dot_product_attention`.
      sink: as `dot_product_attention`.
      implementation: as `dot_product_attention`.

    Returns:
      Attention output in the query's dtype; zeros for tokens that are not real.

    Raises:
      ValueError: as `dot_product_attention`.
      TypeError: `mask` is an array, which knows no positions; or as `dot_product_attention`.

    Cost:
      O(B N T S (H + V)) for S slots, less the tiles that hold nothing.

    Example:
      >>> rng = jax.random.key(0)
      >>> query, key, value = jax.random.normal(rng, (3, 1, 6, 2, 4))
      >>> cache, steps = attn_jax.caches.contiguous(1, 6, 2, 4), []
      >>> for t in range(6):
      ...     cache, held = cache.append(key[:, t : t + 1], value[:, t : t + 1])
      ...     steps.append(attn_jax.cached_attention(query[:, t : t + 1], held))
      >>> whole = attn_jax.dot_product_attention(query, key, value, is_causal=True)
      >>> bool(jnp.allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-6))
      True

    See also: `attn_jax.caches` for the kinds of caches.
    """
    if mask is not None and not callable(mask):
        raise TypeError(
            f"mask must be a rule on positions, as those of attn_jax.masks; got "
            f"{type(mask).__name__}: wrap an array in masks.from_array"
        )
    window = None if held.window is None else masks.sliding_window(held.window, 0)
    rules: list[Any] = [rule for rule in (window, mask) if rule is not None]
    return dot_product_attention(
        query,
        held.key,
        held.value,
        mask=functools.reduce(lambda one, other: one & other, rules, masks.causal()),
        score_mod=score_mod,
        scale=scale,
        sink=sink,
        query_position=held.query_position,
        key_position=held.key_position,
        implementation=implementation,
    )
