"""The embedding of tokens, which also computes logits over the vocabulary (tied weights)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from attn_jax._base.sharding import on_automatic_axes
from attn_jax.modules._linear import in_dtype, unsharded_after
from attn_jax.modules._parameters import Parameters

_UNIT_ROWS = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


class Embedding(nnx.Module):
    """A table with one vector for each token: embeds token ids, and computes logits by `attend`.

    Press & Wolf, "Using the Output Embedding to Improve Language Models" (2017),
    https://arxiv.org/abs/1608.05859: input and output use the same table (tied). For untied
    weights, make a second `Embedding` for the output.

      embedding(tokens) = table[tokens]        attend(x) = x tableᵀ

    Args:
      vocab_size: how many tokens there are, P.
      model_dim: width of a token's vector, D.
      embedding_init: initializer of the table; by default vectors have a length of about 1.
      dtype: dtype of vectors and logits; by default that of the table for vectors, that of x for
        logits.
      param_dtype: dtype of the table.
      rngs: random keys for the table.

    Returns:
      A module.

    Raises:
      ValueError: a size is below 1. An id outside of the vocabulary raises no error: its vector is
        NaN.

    Numerics:
      Vectors are rounded to `dtype`; for logits, the table is rounded to their dtype.

    Cost:
      P D parameters.

    Example:
      >>> from attn_jax.modules import Embedding
      >>> embedding = Embedding(3, 2, rngs=nnx.Rngs(0))
      >>> embedding.table[...] = jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
      >>> x = embedding(jnp.array([2, 0]))
      >>> x.tolist(), embedding.attend(x).tolist()
      ([[2.0, 2.0], [1.0, 0.0]], [[2.0, 2.0, 8.0], [1.0, 0.0, 2.0]])
    """

    def __init__(
        self,
        vocab_size: int,
        model_dim: int,
        *,
        embedding_init: nnx.Initializer = _UNIT_ROWS,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        for name, size in (("vocab_size", vocab_size), ("model_dim", model_dim)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}")
        self.dtype = dtype
        new = Parameters(embedding_init, param_dtype, rngs)
        self.table = new.matrix((vocab_size, "vocab"), (model_dim, "model"))

    def __call__(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Returns the vector of each token id."""
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"tokens must be integers; got {tokens.dtype}")
        return in_dtype(_look_up(tokens, self.table[...]), self.dtype)

    def attend(self, x: Float[Array, "*B D"]) -> Float[Array, "*B P"]:
        """Returns logits over the vocabulary: the dot products of each x with all vectors."""
        if x.shape[-1] != self.table.shape[1]:
            raise ValueError(f"x must be {self.table.shape[1]} wide; got {list(x.shape)}")
        x = in_dtype(x, self.dtype)
        return jnp.einsum("...D,PD->...P", x, self.table[...].astype(jnp.result_type(x)))


@on_automatic_axes(lambda tokens, table: unsharded_after(tokens, tokens.ndim))
def _look_up(tokens: Int[Array, "*B"], table: Float[Array, "P D"]) -> Float[Array, "*B D"]:
    return table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
