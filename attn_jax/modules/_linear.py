"""Products with a layer's parameters, in its dtype or that of what comes in, on any kind of mesh
axes.

On explicit mesh axes a product over a sharded axis must say how its result is sharded: tensor
parallelism splits heads and hidden units, never the model's width (Shoeybi et al., "Megatron-LM"
2019, section 3, https://arxiv.org/abs/1909.08053).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from attn_jax._base.sharding import on_automatic_axes


def in_dtype(x: Float[Array, "..."], dtype: DTypeLike | None) -> Float[Array, "..."]:
    """What comes into a layer, in the dtype in which the layer computes; None leaves it."""
    return x if dtype is None else x.astype(dtype)


def spread(
    name: str,
    x: Float[Array, "*B D"],
    w: nnx.Param,
    b: nnx.Param | None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "..."]:
    """From the model's width to heads or hidden units: x @ w + b, in `dtype` or that of x.

    Raises:
      ValueError: x is not as wide as w takes it; `name` is what the caller knows x by.
    """
    if x.shape[-1] != w.shape[0]:
        raise ValueError(f"{name} must be {w.shape[0]} wide; got {list(x.shape)}")
    x = in_dtype(x, dtype)
    return _plus(jnp.tensordot(x, w[...].astype(jnp.result_type(x)), axes=1), b)


def gather(x: Float[Array, "..."], w: nnx.Param, b: nnx.Param | None) -> Float[Array, "*B D"]:
    """From heads or hidden units back to the model's width: x @ w + b."""
    return _plus(_gather(x, w[...].astype(x.dtype)), b)


def whole_after(x: Array, axes: int) -> PartitionSpec:
    """By explicit mesh axes as the first so many axes of x are, and then one that is whole."""
    return PartitionSpec(*jax.typeof(x).sharding.spec[:axes], None)


@on_automatic_axes(lambda x, w: whole_after(x, x.ndim - w.ndim + 1))
def _gather(x: Float[Array, "..."], w: Float[Array, "... D"]) -> Float[Array, "*B D"]:
    return jnp.tensordot(x, w, axes=w.ndim - 1)


def _plus(x: Float[Array, "..."], b: nnx.Param | None) -> Float[Array, "..."]:
    if b is None:
        return x
    return x + b[...].astype(x.dtype).reshape((1,) * (x.ndim - b.ndim) + b.shape)
