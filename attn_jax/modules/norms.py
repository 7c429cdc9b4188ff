"""Flax's norms, computed in float32 at least and rounded to the dtype of the input."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from attn_jax._base import numerics
from attn_jax.modules._parameters import Parameters, named

type Norm = nnx.LayerNorm | nnx.RMSNorm
type Kind = Literal["layer", "rms"]


def make_norm(
    kind: Kind,
    dim: int,
    *,
    epsilon: float,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
    axis: str = "features",
    use_bias: bool = True,
) -> Norm:
    """Creates LayerNorm or RMSNorm of vectors of width `dim`.

    Ba et al. (2016), https://arxiv.org/abs/1607.06450; Zhang & Sennrich (2019),
    https://arxiv.org/abs/1910.07467.

    Raises:
      ValueError: the kind is unknown.
    """
    options: dict[str, Any] = {
        "epsilon": epsilon,
        "param_dtype": param_dtype,
        "promote_dtype": promote_to_first,
        # The fast variance, E[x²] - E[x]², is inaccurate if the mean is much greater.
        "use_fast_variance": False,
        "scale_metadata": named(axis),
        "rngs": rngs,
    }
    if kind == "layer":
        return nnx.LayerNorm(dim, use_bias=use_bias, bias_metadata=named(axis), **options)
    if kind == "rms":
        return nnx.RMSNorm(dim, **options)
    raise ValueError(f"norm={kind!r} is unknown; choose 'layer' or 'rms'")


def make_qk_norm(kind: bool | str, head_dim: int, epsilon: float, new: Parameters) -> Norm | None:
    """Creates the norm of each head's queries or keys; None if kind is False.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind is False:
        return None
    kinds: dict[bool | str, Kind] = {True: "rms", "layer": "layer"}
    if kind not in kinds:
        raise ValueError(f"qk_norm={kind!r} is unknown; choose False, True (RMSNorm) or 'layer'")
    options = {"epsilon": epsilon, "param_dtype": new.dtype, "rngs": new.rngs}
    return make_norm(kinds[kind], head_dim, axis="head", use_bias=False, **options)


def normalise(norm: Norm, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Applies a norm in float32 (float64 for float64), and rounds once to x's dtype."""
    wide = x.astype(numerics.accumulation_dtype(x.dtype))
    with jax.numpy_dtype_promotion("standard"):  # flax promotes float64 with float32
        return norm(wide).astype(jnp.result_type(x))


def promote_to_first(
    arrays: Sequence[Array | None], *, dtype: DTypeLike | None = None
) -> tuple[Array | None, ...]:
    """Casts all arrays to `dtype`, or to the dtype of the first; a `promote_dtype` for flax."""
    wide = jnp.result_type(arrays[0]) if dtype is None else dtype
    return tuple(None if array is None else array.astype(wide) for array in arrays)
