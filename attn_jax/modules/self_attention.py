"""The lecture's self-attentions as layers: parameters here, the mathematics in
`attn_jax.self_attention`."""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from attn_jax._self_attention import (
    causal_self_attention,
    multi_head_self_attention,
    self_attention,
)
from attn_jax.modules._linear import in_dtype

_GLOROT_UNIFORM = nnx.initializers.glorot_uniform()


class SelfAttention(nnx.Module):
    """Self-attention of one sequence with trainable weights; a batch is `jax.vmap`.

    Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762; Raschka (2024), section 3.4.

      attn_jax.self_attention(x, w_query, w_key, w_value)

    Args:
      model_dim: width of a token's vector, D.
      head_dim: width of queries and keys, H; model_dim by default.
      value_dim: width of values and of the result, V; head_dim by default.
      kernel_init: of all three matrices.
      dtype: in which a call computes; by default that of its input.
      param_dtype: in which the parameters are kept.
      rngs: where the parameters come from.

    Returns:
      A module, called with one sequence.

    Numerics:
      Parameters are rounded to `dtype`, or that of x; softmax and sums are float32 (float64 for
      float64).

    Cost:
      D (2 H + V) parameters.

    Example:
      >>> from attn_jax.modules import SelfAttention
      >>> layer = SelfAttention(2, rngs=nnx.Rngs(0))
      >>> layer.w_query[...], layer.w_value[...] = jnp.zeros((2, 2)), jnp.eye(2)
      >>> layer(jnp.array([[2.0, 0.0], [4.0, 6.0]])).tolist()   # no question: the mean of all
      [[3.0, 3.0], [3.0, 3.0]]
    """

    def __init__(
        self,
        model_dim: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        *,
        kernel_init: nnx.Initializer = _GLOROT_UNIFORM,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        head_dim = model_dim if head_dim is None else head_dim
        value_dim = head_dim if value_dim is None else value_dim

        self.dtype = dtype

        def matrix(width: int) -> nnx.Param:
            return nnx.Param(kernel_init(rngs.params(), (model_dim, width), param_dtype))

        self.w_query, self.w_key = matrix(head_dim), matrix(head_dim)
        self.w_value = matrix(value_dim)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T V"]:
        """One context vector a token."""
        x = in_dtype(x, self.dtype)
        return self_attention(x, *_weights(x, self.w_query, self.w_key, self.w_value))


class CausalSelfAttention(SelfAttention):
    """`SelfAttention` in which a token reads only itself and what came before.

    Vaswani et al. (2017), section 3.2.3, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.5.

      attn_jax.causal_self_attention(x, w_query, w_key, w_value)

    Args and parameters are those of `SelfAttention`.

    Example:
      >>> from attn_jax.modules import CausalSelfAttention
      >>> layer = CausalSelfAttention(2, rngs=nnx.Rngs(0))
      >>> layer.w_query[...], layer.w_value[...] = jnp.zeros((2, 2)), jnp.eye(2)
      >>> layer(jnp.array([[2.0, 0.0], [4.0, 6.0]])).tolist()   # a running mean
      [[2.0, 0.0], [3.0, 3.0]]
    """

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T V"]:
        """One context vector a token."""
        x = in_dtype(x, self.dtype)
        return causal_self_attention(x, *_weights(x, self.w_query, self.w_key, self.w_value))


class MultiHeadSelfAttention(nnx.Module):
    """Self-attention in several subspaces at once, joined by one output matrix.

    Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.6, whose GPT-2 layer is `MultiHeadSelfAttention(12, 768, causal=True)`.

      attn_jax.multi_head_self_attention(x, w_query, w_key, w_value, w_out, causal=causal) + b_out

    Args:
      num_heads: how many subspaces, N.
      model_dim: width of a token's vector before and after, D.
      head_dim: width of a head's queries and keys, H; model_dim / num_heads by default.
      value_dim: width of a head's values, V; head_dim by default.
      causal: whether a token reads only itself and what came before.
      use_out_bias: whether the output has a bias.
      kernel_init: of the four matrices, seen as model_dim × all heads.
      dtype: in which a call computes; by default that of its input.
      param_dtype: in which the parameters are kept.
      rngs: where the parameters come from.

    Returns:
      A module, called with one sequence.

    Raises:
      ValueError: num_heads is not positive, or does not divide model_dim while head_dim is left
        out.

    Numerics:
      As `SelfAttention`.

    Cost:
      N D (2 H + 2 V) parameters, and D with the bias.

    Example:
      >>> from attn_jax.modules import MultiHeadSelfAttention
      >>> gpt2 = nnx.eval_shape(lambda: MultiHeadSelfAttention(12, 768, rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(gpt2)))   # Raschka, exercise 3.3
      2360064
    """

    def __init__(
        self,
        num_heads: int,
        model_dim: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        *,
        causal: bool = False,
        use_out_bias: bool = True,
        kernel_init: nnx.Initializer = _GLOROT_UNIFORM,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        head_dim = _head_dim(num_heads, model_dim, head_dim)
        value_dim = head_dim if value_dim is None else value_dim

        def matrix(*shape: int, rows: int) -> nnx.Param:
            flat = kernel_init(rngs.params(), (rows, math.prod(shape) // rows), param_dtype)
            return nnx.Param(flat.reshape(shape))

        self.w_query = matrix(model_dim, num_heads, head_dim, rows=model_dim)
        self.w_key = matrix(model_dim, num_heads, head_dim, rows=model_dim)
        self.w_value = matrix(model_dim, num_heads, value_dim, rows=model_dim)
        self.w_out = matrix(num_heads, value_dim, model_dim, rows=num_heads * value_dim)
        self.b_out = nnx.Param(jnp.zeros(model_dim, param_dtype)) if use_out_bias else None
        self.causal, self.dtype = causal, dtype

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """One vector a token."""
        x = in_dtype(x, self.dtype)
        weights = _weights(x, self.w_query, self.w_key, self.w_value, self.w_out)
        out = multi_head_self_attention(x, *weights, causal=self.causal)
        return out if self.b_out is None else out + self.b_out.astype(out.dtype)[None, :]


def _head_dim(num_heads: int, model_dim: int, head_dim: int | None) -> int:
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1; got {num_heads}")
    if head_dim is not None:
        return head_dim
    if model_dim % num_heads:
        raise ValueError(
            f"num_heads={num_heads} must divide model_dim={model_dim}; "
            f"pass head_dim to choose it freely"
        )
    return model_dim // num_heads


def _weights(x: Array, *parameters: nnx.Param) -> list[Array]:
    """The parameters in the dtype in which x asks to be computed."""
    return [parameter[...].astype(jnp.result_type(x)) for parameter in parameters]
