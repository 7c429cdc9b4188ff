"""`attn_jax.dot_product_attention` in the shape in which Flax's layers call their attention."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.nnx.nn.dtypes import promote_dtype
from jaxtyping import Array, DTypeLike, Float, Key

from attn_jax.masks import MaskFunction
from attn_jax.multi_head import dot_product_attention

_DEFAULT_PRECISION = (None, jax.lax.Precision.DEFAULT, "default")


def flax_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K V"],
    bias: Float[Array, "..."] | None = None,
    mask: Array | MaskFunction | None = None,
    *,
    broadcast_dropout: bool = True,
    dropout_rng: Key[Array, ""] | None = None,
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
    read nothing, positions where `is_causal` meets T ≠ S. What it cannot honour it refuses.

      softmax(where(mask, query · key / √H + bias, -inf)) @ value

    Args:
      query: N heads; any number of batch axes.
      key: K heads, of which each serves N/K query heads in order.
      value: K heads.
      bias: added to the logits; broadcastable to [*B N T S], and so may lack leading axes.
      mask: True, or not zero, where a query may read a key; broadcastable as `bias`. Or a rule of
        `attn_jax.masks`, which the layer's call hands over as it is: `layer(x, mask=causal())`.
      broadcast_dropout: must be False where weights are dropped: each head of each example has
        bits of its own.
      dropout_rng: which weights are dropped.
      dropout_rate: the probability with which a weight is dropped, unless `deterministic`.
      deterministic: whether nothing is dropped.
      dtype: to which query, key and value are cast; by default what they promote to.
      precision: must be the default.
      module: must be None: weights are not sown.
      options: of `dot_product_attention`, as `is_causal`; those that the layer does not pass come
        by `functools.partial(flax_attention, score_mod=…)`.

    Returns:
      Attention output in `dtype`, or in the dtype to which the arrays promote.

    Raises:
      NotImplementedError: `precision`, `module` or `broadcast_dropout` ask for what is not done
        here.
      ValueError: as `dot_product_attention`; or weights are to be dropped without `dropout_rng`.

    Numerics:
      As `dot_product_attention`. Flax's own takes the softmax in `dtype` where it drops
      weights.

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
    _check_honoured(drops and broadcast_dropout, precision, module)
    query, key, value = promote_dtype((query, key, value), dtype=dtype)
    full = (*query.shape[:-3], query.shape[-2], query.shape[-3], key.shape[-3])
    if mask is not None and not callable(mask):
        mask = _written_out(jnp.asarray(mask).astype(bool), full)
    return dot_product_attention(
        query,
        key,
        value,
        None if bias is None else _written_out(jnp.asarray(bias), full),
        mask,
        dropout_rate=dropout_rate if drops else 0.0,
        dropout_rng=dropout_rng if drops else None,
        **options,
    )


def _check_honoured(broadcast_dropout: bool, precision: Any, module: Any) -> None:
    if broadcast_dropout:
        raise NotImplementedError(
            "broadcast_dropout=True would drop the same weights in every head of every example; "
            "pass broadcast_dropout=False to the layer"
        )
    if precision not in _DEFAULT_PRECISION:
        raise NotImplementedError(
            f"precision={precision!r} would not reach the gradients; leave it None and run the "
            f"whole step under jax.default_matmul_precision"
        )
    if module is not None:
        raise NotImplementedError(
            "sow_weights=True needs all T×S weights, which are not kept; "
            "attn_jax.attention_weights computes those of one head"
        )


def _written_out(pairs: Array, full: tuple[int, ...]) -> Array:
    """The same with ones for the leading axes that it lacks, and its last axis in full."""
    pairs = pairs.reshape((1,) * (len(full) - pairs.ndim) + pairs.shape)
    return jnp.broadcast_to(pairs, (*pairs.shape[:-1], full[-1])) if pairs.shape[-1] == 1 else pairs
