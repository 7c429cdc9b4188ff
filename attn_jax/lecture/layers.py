"""The lecture's self-attentions as Flax NNX layers, which call the functions of the lecture.

For work, use `attn_jax.modules.MultiHeadAttention`: it has batches, cross-attention, masks,
positions and caches.
"""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from attn_jax.lecture.functions import (
    causal_self_attention,
    multi_head_self_attention,
    self_attention,
)

_GLOROT_UNIFORM = nnx.initializers.glorot_uniform()


class SelfAttention(nnx.Module):
    """The lecture's self-attention with one head; for work, use `modules.MultiHeadAttention`.

    The layer takes one sequence; map it over a batch with `jax.vmap`.

    Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762; Raschka (2024), section 3.4.

      attn_jax.lecture.self_attention(x, w_query, w_key, w_value)

    Args:
      model_dim: width of a token's vector, D.
      head_dim: width of queries and keys, H; default model_dim.
      value_dim: width of values and of the result, V; default head_dim.
      kernel_init: initializer of the three matrices.
      dtype: dtype of the computation; default x's dtype.
      param_dtype: dtype of the parameters.
      rngs: random keys for the parameters.

    Returns:
      A module; call it with one sequence.

    Numerics:
      Parameters are cast to `dtype` (or x's dtype); softmax and sums are float32 (float64 for
      float64).

    Cost:
      D (2 H + V) parameters.

    Example:
      >>> from attn_jax.lecture import SelfAttention
      >>> layer = SelfAttention(2, rngs=nnx.Rngs(0))
      >>> layer.w_query[...], layer.w_value[...] = jnp.zeros((2, 2)), jnp.eye(2)
      >>> layer(jnp.array([[2.0, 0.0], [4.0, 6.0]])).tolist()   # equal logits: the mean
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
        """Computes one context vector for each token of one sequence."""
        x = _cast(x, self.dtype)
        return self_attention(x, *_cast_parameters(x, self.w_query, self.w_key, self.w_value))


class CausalSelfAttention(SelfAttention):
    """The lecture's causal self-attention; for work, use `modules.MultiHeadAttention`.

    A token attends only to itself and to earlier tokens.

    Vaswani et al. (2017), section 3.2.3, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.5.

      attn_jax.lecture.causal_self_attention(x, w_query, w_key, w_value)

    Arguments and parameters are those of `SelfAttention`.

    Example:
      >>> from attn_jax.lecture import CausalSelfAttention
      >>> layer = CausalSelfAttention(2, rngs=nnx.Rngs(0))
      >>> layer.w_query[...], layer.w_value[...] = jnp.zeros((2, 2)), jnp.eye(2)
      >>> layer(jnp.array([[2.0, 0.0], [4.0, 6.0]])).tolist()   # a running mean
      [[2.0, 0.0], [3.0, 3.0]]
    """

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T V"]:
        """Computes one context vector for each token of one sequence."""
        x = _cast(x, self.dtype)
        return causal_self_attention(
            x, *_cast_parameters(x, self.w_query, self.w_key, self.w_value)
        )


class MultiHeadSelfAttention(nnx.Module):
    """The lecture's multi-head self-attention; for work, use `modules.MultiHeadAttention`.

    Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.6, whose GPT-2 layer is `MultiHeadSelfAttention(12, 768, causal=True)`.

      multi_head_self_attention(x, w_query, w_key, w_value, w_out, causal=causal) + b_out

    Args:
      num_heads: how many heads, N.
      model_dim: width of a token's vector before and after, D.
      head_dim: width of a head's queries and keys, H; default model_dim / num_heads.
      value_dim: width of a head's values, V; default head_dim.
      causal: whether a token attends only to itself and to earlier tokens.
      use_out_bias: whether the output has a bias.
      kernel_init: initializer of the four matrices; each is drawn with all heads in one axis.
      dtype: dtype of the computation; default x's dtype.
      param_dtype: dtype of the parameters.
      rngs: random keys for the parameters.

    Returns:
      A module; call it with one sequence.

    Raises:
      ValueError: num_heads is below 1; or it does not divide model_dim and head_dim is not given.

    Numerics:
      As `SelfAttention`.

    Cost:
      N D (2 H + 2 V) parameters, and D with the bias.

    Example:
      >>> from attn_jax.lecture import MultiHeadSelfAttention
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

        def matrix(*shape: int, inputs: int) -> nnx.Param:
            flat = kernel_init(rngs.params(), (inputs, math.prod(shape) // inputs), param_dtype)
            return nnx.Param(flat.reshape(shape))

        self.w_query = matrix(model_dim, num_heads, head_dim, inputs=model_dim)
        self.w_key = matrix(model_dim, num_heads, head_dim, inputs=model_dim)
        self.w_value = matrix(model_dim, num_heads, value_dim, inputs=model_dim)
        self.w_out = matrix(num_heads, value_dim, model_dim, inputs=num_heads * value_dim)
        self.b_out = nnx.Param(jnp.zeros(model_dim, param_dtype)) if use_out_bias else None
        self.causal, self.dtype = causal, dtype

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """Applies the layer to one sequence: one vector for each token in and out."""
        x = _cast(x, self.dtype)
        weights = _cast_parameters(x, self.w_query, self.w_key, self.w_value, self.w_out)
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


def _cast(x: Float[Array, "T D"], dtype: DTypeLike | None) -> Float[Array, "T D"]:
    return x if dtype is None else x.astype(dtype)


def _cast_parameters(x: Array, *parameters: nnx.Param) -> list[Array]:
    """Returns the parameters, cast to x's dtype."""
    return [parameter[...].astype(jnp.result_type(x)) for parameter in parameters]
