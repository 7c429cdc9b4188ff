"""The residual connection around a sub-layer of a block, with its norm and dropout."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Key

from attn_jax._base import checks
from attn_jax.modules._linear import in_dtype
from attn_jax.modules.dropout import dropout, split
from attn_jax.modules.norms import Kind, make_norm, normalise

type Placement = Literal["pre", "post", "both"]


class Residual(nnx.Module):
    """A residual connection around a sub-layer f, with a norm before it, after the sum, or both.

    "post" normalises after the sum: Vaswani et al. (2017), section 3.1,
    https://arxiv.org/abs/1706.03762. "pre" normalises before the sub-layer, and trains without
    warm-up: Xiong et al., "On Layer Normalization in the Transformer Architecture" (2020),
    https://arxiv.org/abs/2002.04745. "both" normalises before and after the sub-layer: Ding et al.,
    "CogView" (2021), https://arxiv.org/abs/2105.13290, and Gemma 2.

      norm(x + drop(f(x)))               "post"
      x + drop(f(norm(x)))               "pre"
      x + drop(norm_after(f(norm(x))))   "both"

    Args:
      model_dim: width of a token's vector.
      placement: the place of the norm: "pre", "post" or "both".
      norm: flax's LayerNorm, "layer", or RMSNorm, "rms".
      norm_eps: added to the variance in the norm.
      dropout_rate: the probability with which an entry of the sub-layer's output is dropped in
        calls with an `rng`.
      dtype: dtype to which x is cast, and of the sum; default x's dtype.
      param_dtype: dtype of the parameters.
      rngs: passed to flax's norms; their parameters start at ones and zeros.

    Returns:
      A module. `residual(x, f)` computes the formula, with f called as `f(x, rng=rng)`. For an f
      that returns more than one array, use two calls: `residual.leave(x, f(residual.enter(x)))`.

    Raises:
      ValueError: the placement or norm is unknown, or the rate is out of range.

    Numerics:
      Norms in float32 (float64 for float64), rounded once; the sum in `dtype` or x's dtype,
      whatever the dtype of the sub-layer.

    Example:
      >>> from attn_jax.modules import Residual
      >>> x = jnp.array([3.0, -4.0])
      >>> for placement in ("pre", "post"):
      ...     residual = Residual(2, placement=placement, norm="rms", rngs=nnx.Rngs(0))
      ...     print(np.asarray(residual(x, lambda x, rng: -x)).round(3))
      [ 2.151 -2.869]
      [0. 0.]
    """

    def __init__(
        self,
        model_dim: int,
        *,
        placement: Placement = "pre",
        norm: Kind = "layer",
        norm_eps: float = 1e-6,
        dropout_rate: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if placement not in ("pre", "post", "both"):
            raise ValueError(
                f"placement={placement!r} is unknown; choose from 'pre', 'post', 'both'"
            )
        checks.check_rate("dropout_rate", dropout_rate)
        self.placement, self.dropout_rate, self.dtype = placement, dropout_rate, dtype
        options = {"epsilon": norm_eps, "param_dtype": param_dtype, "rngs": rngs}
        self.norm = make_norm(norm, model_dim, **options)
        self.norm_after = make_norm(norm, model_dim, **options) if placement == "both" else None

    def __call__(
        self, x: Float[Array, "*B D"], sublayer: Callable, *, rng: Key[Array, ""] | None = None
    ) -> Float[Array, "*B D"]:
        """Applies the sub-layer, norms and residual connection; `rng` is for dropout in both."""
        inside, outside = split(rng, 2)
        return self.leave(x, sublayer(self.enter(x), rng=inside), rng=outside)

    def enter(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns the input of the sub-layer: x, normalised unless the placement is "post"."""
        x = in_dtype(x, self.dtype)
        return x if self.placement == "post" else normalise(self.norm, x)

    def leave(
        self,
        x: Float[Array, "*B D"],
        out: Float[Array, "*B D"],
        *,
        rng: Key[Array, ""] | None = None,
    ) -> Float[Array, "*B D"]:
        """Returns the result of the block from x and the output of the sub-layer."""
        x = in_dtype(x, self.dtype)
        out = out if self.norm_after is None else normalise(self.norm_after, out)
        x = x + dropout(out.astype(jnp.result_type(x)), self.dropout_rate, rng)
        return normalise(self.norm, x) if self.placement == "post" else x
