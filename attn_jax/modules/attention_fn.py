"""`attn_jax.dot_product_attention` with the signature that Flax's layers call."""

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

# Names of jax.lax.Precision, and jax.default_matmul_precision's names for the same.
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

    It has the arguments of `flax.nnx.dot_product_attention`
    (https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html), and differs as
    `dot_product_attention` does: softmax and sums in float32 at least, zeros for a fully masked
    query, positions required for `is_causal` with T ≠ S, other random bits of dropout. It also
    works for Linen's `MultiHeadDotProductAttention(attention_fn=)`.

      softmax(where(mask, query · key / √H + bias, -inf)) @ value

    Args:
      query: N heads; any number of batch axes.
      key: K heads; each is shared by N/K consecutive query heads.
      value: K heads.
      bias: added to the logits; broadcastable to [*B N T S], so leading axes may be missing.
      mask: True, or not zero, where a query may attend to a key; broadcastable like `bias`. Or a
        mask of `attn_jax.masks`, which Flax's layer passes on unchanged: `layer(x, mask=causal())`.
      broadcast_dropout: whether all heads and batch examples drop the same weights, or different
        ones.
      dropout_rng: the random key of dropout.
      dropout_rate: the probability with which a weight is dropped, unless `deterministic`.
      deterministic: whether dropout is off.
      dtype: the dtype to which query, key and value are cast; default their promoted dtype.
      precision: one precision for all matmuls, forward and backward, as
        `jax.default_matmul_precision` around the call.
      module: the module that sows the weights before dropout, as "attention_weights"; None sows
        nothing.
      options: of `dot_product_attention`, such as `is_causal`. Set options that the layer does not
        pass by `functools.partial(flax_attention, score_mod=…)`.

    Returns:
      The attention output in `dtype`, or in the promoted dtype of the arrays.

    Raises:
      NotImplementedError: `precision` has two names, one for each side of a matmul; or a module
        would sow weights together with a sink.
      ValueError: as `dot_product_attention`; or dropout is on without `dropout_rng`.

    Numerics:
      As `dot_product_attention`. Flax's own function computes the softmax in `dtype` if dropout is
      on.

    Cost:
      As `dot_product_attention`; O(B N T S) memory more if weights are sown.

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
        mask = _with_all_axes(jnp.asarray(mask).astype(bool), full)
    options["mask"] = mask
    options["bias"] = None if bias is None else _with_all_axes(jnp.asarray(bias), full)
    if drops:
        options["dropout_rate"] = dropout_rate
        options["dropout_rng"] = _dropout_keys(dropout_rng, len(full) - 3, shared=broadcast_dropout)
    with _precision(precision):
        if module is not None:
            _sow(module, query, key, options)
        return dot_product_attention(query, key, value, **options)


def _precision(precision: Any) -> contextlib.AbstractContextManager:
    """Returns a context in which all matmuls have this precision, forward and backward.

    Raises:
      NotImplementedError: it is two precisions, one for each side of a matmul.
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
        f"precision={precision!r} is not one name for all matmuls; pass one, such as 'highest'"
    )


def _dropout_keys(rng: Any, batch: int, *, shared: bool) -> Key[Array, "..."] | None:
    """Returns a typed key; with axes of size 1 if all heads and batch examples share it."""
    if rng is None:
        return None
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.wrap_key_data(rng)
    return rng.reshape((1,) * (batch + 1)) if shared else rng


def _sow(module: Any, query: Array, key: Array, options: dict[str, Any]) -> None:
    """Sows weights as Flax does: in `nnx.Intermediate`, or Linen's collection "intermediates"."""
    if options.get("sink") is not None:
        raise NotImplementedError("weights cannot be sown with a sink; leave sow_weights False")
    weights = of_heads(attention_weights, query, key, options).astype(query.dtype)
    kind = nnx.Intermediate if isinstance(module, nnx.Module) else "intermediates"
    module.sow(kind, "attention_weights", weights)


def _with_all_axes(pairs: Array, full: tuple[int, ...]) -> Array:
    """Adds missing leading axes of size 1, and broadcasts the last axis to its full size."""
    pairs = pairs.reshape((1,) * (len(full) - pairs.ndim) + pairs.shape)
    return jnp.broadcast_to(pairs, (*pairs.shape[:-1], full[-1])) if pairs.shape[-1] == 1 else pairs
