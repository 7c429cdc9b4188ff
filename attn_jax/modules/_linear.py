"""Matmuls with a layer's parameters, with automatic or explicit mesh axes.

With explicit mesh axes, a matmul over a sharded axis must specify the sharding of its result. Here
tensor parallelism shards heads and hidden units, never the model's width (Shoeybi et al.,
"Megatron-LM" 2019, section 3, https://arxiv.org/abs/1909.08053).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from attn_jax._base.sharding import on_automatic_axes


def in_dtype(x: Float[Array, "..."], dtype: DTypeLike | None) -> Float[Array, "..."]:
    """Casts the input of a layer to the layer's dtype; None keeps the input's dtype."""
    return x if dtype is None else x.astype(dtype)


def project_in(
    name: str,
    x: Float[Array, "*B D"],
    w: nnx.Param,
    b: nnx.Param | None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "..."]:
    """Projects from the model's width to heads or hidden units: x @ w + b, in `dtype` or x's dtype.

    Raises:
      ValueError: the width of x is not that of w; the message calls x by `name`.
    """
    if x.shape[-1] != w.shape[0]:
        raise ValueError(f"{name} must be {w.shape[0]} wide; got {list(x.shape)}")
    x = in_dtype(x, dtype)
    return _add_bias(jnp.tensordot(x, w[...].astype(jnp.result_type(x)), axes=1), b)


def project_out(x: Float[Array, "..."], w: nnx.Param, b: nnx.Param | None) -> Float[Array, "*B D"]:
    """Projects from heads or hidden units to the model's width: x @ w + b."""
    return _add_bias(_matmul(x, w[...].astype(x.dtype)), b)


def unsharded_after(x: Array, axes: int) -> PartitionSpec:
    """Returns the sharding of the first `axes` axes of x, followed by one unsharded axis."""
    return PartitionSpec(*jax.typeof(x).sharding.spec[:axes], None)


@on_automatic_axes(lambda x, w: unsharded_after(x, x.ndim - w.ndim + 1))
def _matmul(x: Float[Array, "..."], w: Float[Array, "... D"]) -> Float[Array, "*B D"]:
    return jnp.tensordot(x, w, axes=w.ndim - 1)


def _add_bias(x: Float[Array, "..."], b: nnx.Param | None) -> Float[Array, "..."]:
    if b is None:
        return x
    return x + b[...].astype(x.dtype).reshape((1,) * (x.ndim - b.ndim) + b.shape)
