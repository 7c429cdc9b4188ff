"""`attn_jax.dot_product_attention` in the shape in which Flax's layers call their attention."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, DTypeLike, Float, Key, UInt32

from attn_jax._attend import attention_weights
from attn_jax._multi_head import dot_product_attention
from attn_jax._multi_head_stats import of_heads
from attn_jax.masks import MaskFunction

# Names of jax.lax.Precision that jax.default_matmul_precision does not know, and its own for them.
_OTHER_NAMES = {"fastest": "default", "bfloat16_3x": "high"}


def flax_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K V"],
    bias: Float[Array, "..."] | None = None,
    mask: Array | MaskFunction | None = None,
    *,
    broadcast_dropout: bool = True,
    dropout_rng: Key[Array, ""] | UInt32[Array, "2"] | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: DTypeLike | None = None,
    precision: Any = None,
    module: Any = None,
    **options: Any,
) -> Float[Array, "*B T N V"]:
    """`dot_product_attention` for `flax.nnx.MultiHeadAttention(attention_fn=)`.

    It takes what `flax.nnx.dot_product_attention` takes, by the same names
    (https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html), and differs as
    `dot_product_attention` does: softmax and sums in float32 at least, zeros for a query that may
    read nothing, positions where `is_causal` meets T ≠ S, other bits of dropout. It serves Linen's
    `MultiHeadDotProductAttention(attention_fn=)` as well.

      softmax(where(mask, query · key / √H + bias, -inf)) @ value

    Args:
      query: N heads; any number of batch axes.
      key: K heads, of which each serves N/K query heads in order.
      value: K heads.
      bias: added to the logits; broadcastable to [*B N T S], and so may lack leading axes.
      mask: True, or not zero, where a query may read a key; broadcastable as `bias`. Or a rule of
        `attn_jax.masks`, which the layer's call hands over as it is: `layer(x, mask=causal())`.
      broadcast_dropout: whether all heads and examples drop the same weights, or each has bits of
        its own.
      dropout_rng: which weights are dropped.
      dropout_rate: the probability with which a weight is dropped, unless `deterministic`.
      deterministic: whether nothing is dropped.
      dtype: to which query, key and value are cast; by default what they promote to.
      precision: of all products, forward and backward, by one name: `jax.default_matmul_precision`
        around the call.
      module: where the weights are sown, as "attention_weights", before dropout; None sows nothing.
      options: of `dot_product_attention`, as `is_causal`; those that the layer does not pass come
        by `functools.partial(flax_attention, score_mod=…)`.

    Returns:
      Attention output in `dtype`, or in the dtype to which the arrays promote.

    Raises:
      NotImplementedError: `precision` has two names, one for each side of a product; or weights are
        to be sown beside a sink.
      ValueError: as `dot_product_attention`; or weights are to be dropped without `dropout_rng`.

    Numerics:
      As `dot_product_attention`. Flax's own takes the softmax in `dtype` where it drops
      weights.

    Cost:
      As `dot_product_attention`; where weights are sown, all [*B N T S] besides.

    Example:
      >>> import functools
      >>> from attn_jax.modules import flax_attention
      >>> def layer(attention_fn):
      ...     sizes = {"num_heads": 2, "in_features": 4, "decode": False}
      ...     return nnx.MultiHeadAttention(**sizes, attention_fn=attention_fn, rngs=nnx.Rngs(0))
      >>> x = jax.random.normal(jax.random.key(0), (1, 3, 4))
      >>> flaxs = layer(nnx.dot_product_attention)(x, is_causal=True)
      >>> bool(jnp.allclose(layer(flax_attention)(x, is_causal=True), flaxs, atol=1e-6))
      True
      >>> capped = functools.partial(flax_attention, score_mod=attn_jax.score_mods.soft_cap(0.01))
      >>> bool(jnp.allclose(layer(capped)(x, is_causal=True), flaxs, atol=1e-6))
      False
    """
    drops = dropout_rate > 0 and not deterministic
    query, key, value = promote_dtype((query, key, value), dtype=dtype)
    full = (*query.shape[:-3], query.shape[-2], query.shape[-3], key.shape[-3])
    if mask is not None and not callable(mask):
        mask = _written_out(jnp.asarray(mask).astype(bool), full)
    options["mask"] = mask
    options["bias"] = None if bias is None else _written_out(jnp.asarray(bias), full)
    if drops:
        options["dropout_rate"] = dropout_rate
        options["dropout_rng"] = _keys(dropout_rng, len(full) - 3, shared=broadcast_dropout)
    with _precision(precision):
        if module is not None:
            _sow(module, query, key, options)
        return dot_product_attention(query, key, value, **options)


def _precision(precision: Any) -> contextlib.AbstractContextManager:
    """The context in which products have this precision, forward and backward.

    Raises:
      NotImplementedError: it names two precisions, one for each side of a product.
    """
    if isinstance(precision, tuple) and len(set(precision)) == 1:
        precision = precision[0]
    if precision is None:
        return contextlib.nullcontext()
    if isinstance(precision, jax.lax.Precision):
        precision = precision.name.lower()
    if isinstance(precision, jax.lax.DotAlgorithmPreset):
        precision = precision.name
    if isinstance(precision, str):
        return jax.default_matmul_precision(_OTHER_NAMES.get(precision, precision))
    raise NotImplementedError(
        f"precision={precision!r} is not one name for all products; pass one, such as 'highest'"
    )


def _keys(rng: Any, batch: int, *, shared: bool) -> Key[Array, "..."] | None:
    """The key, an old one as a new one; where heads and examples share bits, with axes of 1."""
    if rng is None:
        return None
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.wrap_key_data(rng)
    return rng.reshape((1,) * (batch + 1)) if shared else rng


def _sow(module: Any, query: Array, key: Array, options: dict[str, Any]) -> None:
    """As Flax's function: into `nnx.Intermediate`, or Linen's collection "intermediates"."""
    if options.get("sink") is not None:
        raise NotImplementedError("weights are not sown beside a sink; leave sow_weights False")
    weights = of_heads(attention_weights, query, key, options).astype(query.dtype)
    kind = nnx.Intermediate if isinstance(module, nnx.Module) else "intermediates"
    module.sow(kind, "attention_weights", weights)


def _written_out(pairs: Array, full: tuple[int, ...]) -> Array:
    """The same with ones for the leading axes that it lacks, and its last axis in full."""
    pairs = pairs.reshape((1,) * (len(full) - pairs.ndim) + pairs.shape)
    return jnp.broadcast_to(pairs, (*pairs.shape[:-1], full[-1])) if pairs.shape[-1] == 1 else pairs
