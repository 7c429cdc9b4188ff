"""Attention of new tokens over a cache; masks compare the positions that the cache returns."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax import masks, score_mods
from attn_jax._attend import Scale, attend_with_logsumexp
from attn_jax._base import checks, numerics
from attn_jax._base.axes import map_levels
from attn_jax._base.sharding import on_automatic_axes
from attn_jax._engine.dispatch import Implementation
from attn_jax._heads import lay_out, mesh_axes, out_spec, with_heads
from attn_jax._multi_head import checked_heads, dot_product_attention
from attn_jax.caches import UNUSED, Held


def cached_attention(
    query: Float[Array, "B T N H"],
    held: Held,
    *,
    mask: masks.MaskFunction | None = None,
    score_mod: score_mods.ScoreModFunction | None = None,
    scale: Scale | None = None,
    sink: Float[Array, " N"] | None = None,
    splits: int = 1,
    implementation: Implementation | None = None,
) -> Float[Array, "B T N V"]:
    """Attention of the newest tokens over the cache, including themselves.

    Shazeer, "Fast Transformer Decoding" (2019), section 2.3, https://arxiv.org/abs/1911.02150. The
    call is the same for one token, several, or a prompt. Empty slots have a position later than
    every query, so the causal mask excludes them, and blockwise attention skips empty tiles.

      dot_product_attention(query, held.key, held.value, mask=causal() & mask)

    Args:
      query: queries of the appended tokens, N heads.
      held: the second result of `append`.
      mask: another mask; the causal mask and the window of a sliding cache apply in any case. The
        row of a token is its position in its sequence, as in one call on the whole sequence.
      score_mod: as `dot_product_attention`.
      scale: as `dot_product_attention`.
      sink: as `dot_product_attention`.
      splits: in how many parts of the keys to compute attention in parallel, merged by log-sum-exp:
        so one query on a long cache uses many cores (Dao et al., "Flash-Decoding" (2023),
        https://crfm.stanford.edu/2023/10/12/flashdecoding.html).
      implementation: as `dot_product_attention`.

    Returns:
      The attention output in the query's dtype; zeros for tokens that are not real.

    Raises:
      ValueError: as `dot_product_attention`; or `splits` is below 1.
      TypeError: `mask` is an array, which has no positions; or as `dot_product_attention`.

    Numerics:
      As `dot_product_attention`. With `splits` each part is rounded to the query's dtype before the
      parts are summed in float32, and the sum once more.

    Cost:
      O(B N T S (H + V)) for S slots. Empty slots are computed too up to 16384 pairs of a query and
      a slot; above that, empty tiles are skipped. With `splits` that do not divide S, a copy.

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

    See also: `attn_jax.caches` for the kinds of caches; `merge_partials` to merge two parts.
    """
    checks.check_size("splits", splits)
    options: dict[str, Any] = {
        "mask": _with_causal(mask, held.window),
        "score_mod": score_mod,
        "scale": scale,
        "query_position": held.query_position,
        "key_position": held.key_position,
        "query_row": held.query_position,
        "key_row": held.key_position,
        "implementation": implementation,
    }
    if splits == 1:
        return dot_product_attention(query, held.key, held.value, sink=sink, **options)
    operands, static = checked_heads(query, held.key, held.value, sink=sink, **options)
    return _attend_in_parts(*operands, splits=splits, implementation=static["implementation"])


def _with_causal(mask: masks.MaskFunction | None, window: int | None) -> masks.Mask:
    if mask is not None and not callable(mask):
        raise TypeError(
            f"mask must be a function of positions, such as those of attn_jax.masks; got "
            f"{type(mask).__name__}; wrap an array in masks.from_array"
        )
    rule: masks.Mask = masks.causal()
    if window is not None:
        rule &= masks.sliding_window(window, 0)
    return rule if mask is None else rule & mask


@functools.partial(jax.jit, static_argnames=("splits", "implementation"))
def _attend_in_parts(*operands: Any, **static: Any) -> Float[Array, "B T N V"]:
    return _attend_heads_in_parts(*operands, over=mesh_axes(*operands[:3]), **static)


@on_automatic_axes(out_spec)
def _attend_heads_in_parts(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K V"],
    options: dict[str, Any],
    *,
    over: tuple[tuple[str, ...], ...] | None,
    splits: int,
    implementation: Implementation | None,
) -> Float[Array, "B T N V"]:
    """`attend` on every head of every batch example, with the keys in parts."""

    def head(query, key, value, options: dict) -> Float[Array, "T V"]:
        sink, position = options.pop("sink"), options.pop("key_position")
        del options["key_row"]  # in a cache, the row of a key is its position
        parts = _split(key, splits), _split(value, splits), _split(position, splits, UNUSED)

        def part(key, value, position):
            return attend_with_logsumexp(
                query,
                key,
                value,
                key_position=position,
                key_row=position,
                implementation=implementation,
                **options,
            )

        return _merge(*jax.vmap(part)(*parts), sink)

    operands, inputs, outputs = lay_out(query, key, value, options)
    out = map_levels(head, inputs, outputs, mesh_axes=over)(*operands)
    return with_heads(out, query, key, value)


def _split(array: Array, splits: int, fill: int = 0) -> Array:
    """Turns [S …] into [splits S' …]; the last part is padded with `fill`."""
    size = -(-array.shape[0] // splits)
    missing = splits * size - array.shape[0]
    widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    padded = jnp.pad(array, widths, constant_values=fill) if missing else array
    return padded.reshape(splits, size, *array.shape[1:])


def _merge(
    outs: Float[Array, "I T V"],
    logsumexps: Float[Array, "I T"],
    sink: Float[Array, ""] | None,
) -> Float[Array, "T V"]:
    """Merges the outputs of all parts by their shares of the softmax; a sink is a part of value 0.

    Milakov & Gimelshein (2018), section 3.1, https://arxiv.org/abs/1805.02867, for any number of
    parts.
    """
    parts = logsumexps.T
    if sink is not None:
        parts = jnp.concatenate([parts, jnp.broadcast_to(sink, (parts.shape[0], 1))], axis=1)
    shares, _ = numerics.masked_softmax(parts, None)
    shares = shares[:, : outs.shape[0]]
    return jnp.einsum("TI,ITV->TV", shares, outs.astype(shares.dtype)).astype(outs.dtype)
