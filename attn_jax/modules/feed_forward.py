"""The feed-forward network of a Transformer: each token by itself, plain or gated."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Key

from attn_jax._base import checks
from attn_jax.modules._linear import gather, spread
from attn_jax.modules._parameters import GLOROT_UNIFORM, Parameters
from attn_jax.modules.dropout import dropout

type Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


def _gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.gelu(x, approximate=False)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": _gelu,
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
}


class FeedForward(nnx.Module):
    """Two products with an activation between them; gated, a third one multiplies what it leaves.

    Vaswani et al. (2017), section 3.3, https://arxiv.org/abs/1706.03762; gated: Shazeer, "GLU
    Variants Improve Transformer" (2020), eq. 5 and 6, https://arxiv.org/abs/2002.05202.

      out = activation(x w_up + b_up) w_down + b_down
      out = (activation(x w_gate + b_gate) * (x w_up + b_up)) w_down + b_down     gated

    Args:
      model_dim: width of a token's vector before and after.
      hidden_dim: width between the products.
      activation: "relu", "gelu" (exact), "gelu_tanh" (GPT-2's approximation) or "silu".
      gated: whether there is a gate; with "silu" it is SwiGLU, with "gelu_tanh" Gemma's GeGLU.
      use_bias: whether each product has a bias.
      dropout_rate: the probability with which a hidden unit is dropped where a call brings an
        `rng`.
      kernel_init: of the matrices.
      dtype: in which a call computes; by default that of its input.
      param_dtype: in which the parameters are kept.
      rngs: where the parameters come from.

    Returns:
      A module, called with any number of batch axes.

    Raises:
      ValueError: the activation is unknown, a size is below 1, or the rate is out of range.

    Numerics:
      Computed in `dtype`, or that of x, to which parameters are rounded.

    Cost:
      2 model_dim hidden_dim parameters, 3 where it is gated, and the biases.

    Example:
      >>> from attn_jax.modules import FeedForward
      >>> options = {"activation": "silu", "gated": True, "use_bias": False}
      >>> swiglu = FeedForward(2, 2, **options, rngs=nnx.Rngs(0))
      >>> swiglu.w_gate[...] = swiglu.w_up[...] = swiglu.w_down[...] = jnp.eye(2)
      >>> print(np.asarray(swiglu(jnp.array([1.0, 2.0]))).round(4))   # x² σ(x)
      [0.7311 3.5232]
    """

    def __init__(
        self,
        model_dim: int,
        hidden_dim: int,
        *,
        activation: Activation = "relu",
        gated: bool = False,
        use_bias: bool = True,
        dropout_rate: float = 0.0,
        kernel_init: nnx.Initializer = GLOROT_UNIFORM,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        _check(model_dim, hidden_dim, activation)
        checks.check_rate("dropout_rate", dropout_rate)
        self.activation, self.dropout_rate, self.dtype = activation, dropout_rate, dtype
        new = Parameters(kernel_init, param_dtype, rngs)
        model, hidden = (model_dim, "model"), (hidden_dim, "hidden")
        self.w_gate = new.matrix(model, hidden) if gated else None
        self.w_up = new.matrix(model, hidden)
        self.w_down = new.matrix(hidden, model)
        self.b_gate = new.zeros(hidden) if gated and use_bias else None
        self.b_up = new.zeros(hidden) if use_bias else None
        self.b_down = new.zeros((model_dim, "features")) if use_bias else None

    def __call__(
        self, x: Float[Array, "*B D"], *, rng: Key[Array, ""] | None = None
    ) -> Float[Array, "*B D"]:
        """Each token's vector, transformed; `rng` says which hidden units are dropped."""
        activation = _ACTIVATIONS[self.activation]
        hidden = spread("x", x, self.w_up, self.b_up, self.dtype)
        if self.w_gate is None:
            hidden = activation(hidden)
        else:
            gate = spread("x", x, self.w_gate, self.b_gate, self.dtype)
            hidden = activation(gate) * hidden
        return gather(dropout(hidden, self.dropout_rate, rng), self.w_down, self.b_down)


def _check(model_dim: int, hidden_dim: int, activation: str) -> None:
    for name, size in (("model_dim", model_dim), ("hidden_dim", hidden_dim)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")
    if activation not in _ACTIVATIONS:
        choices = ", ".join(map(repr, _ACTIVATIONS))
        raise ValueError(f"activation={activation!r} is unknown; choose from {choices}")
