"""The feed-forward network of a Transformer block: plain or gated, on each token alone."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Key

from attn_jax._base import checks
from attn_jax.modules._linear import project_in, project_out
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
    """A feed-forward network of two matmuls with an activation between them, or a gated one.

    Vaswani et al. (2017), section 3.3, https://arxiv.org/abs/1706.03762; gated: Shazeer, "GLU
    Variants Improve Transformer" (2020), eq. 5 and 6, https://arxiv.org/abs/2002.05202.

      out = activation(x w_up + b_up) w_down + b_down
      out = (activation(x w_gate + b_gate) * (x w_up + b_up)) w_down + b_down     gated

    Args:
      model_dim: width of a token's vector before and after.
      hidden_dim: width of the hidden layer.
      activation: "relu", "gelu" (exact), "gelu_tanh" (GPT-2's approximation) or "silu".
      gated: whether there is a gate: SwiGLU with "silu", Gemma's GeGLU with "gelu_tanh".
      use_bias: whether each matmul has a bias.
      dropout_rate: the probability with which a hidden unit is dropped in calls with an `rng`.
      kernel_init: initializer of the matrices.
      dtype: dtype of the computation; default that of the input.
      param_dtype: dtype of the parameters.
      rngs: random keys for the parameters.

    Returns:
      A module; call it with any number of batch axes.

    Raises:
      ValueError: the activation is unknown, a size is below 1, or the rate is out of range.

    Numerics:
      Parameters are cast to `dtype` (or x's dtype), in which all is computed.

    Cost:
      2 model_dim hidden_dim parameters (3 if gated), and the biases.

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
        """Transforms each token; `rng` is the random key of dropout, None turns it off."""
        activation = _ACTIVATIONS[self.activation]
        hidden = project_in("x", x, self.w_up, self.b_up, self.dtype)
        if self.w_gate is None:
            hidden = activation(hidden)
        else:
            gate = project_in("x", x, self.w_gate, self.b_gate, self.dtype)
            hidden = activation(gate) * hidden
        return project_out(dropout(hidden, self.dropout_rate, rng), self.w_down, self.b_down)


def _check(model_dim: int, hidden_dim: int, activation: str) -> None:
    for name, size in (("model_dim", model_dim), ("hidden_dim", hidden_dim)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}")
    if activation not in _ACTIVATIONS:
        choices = ", ".join(map(repr, _ACTIVATIONS))
        raise ValueError(f"activation={activation!r} is unknown; choose from {choices}")
