"""A vector for each token of a vocabulary, and the way back from vectors to logits."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from attn_jax._base.sharding import on_automatic_axes
from attn_jax.modules._linear import in_dtype, whole_after
from attn_jax.modules._parameters import Parameters

_UNIT_ROWS = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


class Embedding(nnx.Module):
    """A table with one row a token, read in both directions.

    Press & Wolf, "Using the Output Embedding to Improve Language Models" (2017),
    https://arxiv.org/abs/1608.05859: the same table gives the logits (tied). A model whose output
    is not tied has a second `Embedding` for it.

      embedding(tokens) = table[tokens]        attend(x) = x tableᵀ

    Args:
      vocab_size: how many tokens there are, P.
      model_dim: width of a token's vector, D.
      embedding_init: of the table; by default rows of length about 1.
      dtype: in which vectors and logits are computed; by default vectors come in that of the table,
        logits in that of x.
      param_dtype: in which the table is kept.
      rngs: where the table comes from.

    Returns:
      A module.

    Raises:
      ValueError: a size is below 1. An id outside the vocabulary cannot be refused under `jit`; it
        gives NaN, never another token's row.

    Numerics:
      Vectors are rows, rounded; the table is rounded to the dtype of the logits.

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
        """The vectors of tokens, given by their ids."""
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"tokens must be integers; got {tokens.dtype}")
        return in_dtype(_rows(tokens, self.table[...]), self.dtype)

    def attend(self, x: Float[Array, "*B D"]) -> Float[Array, "*B P"]:
        """How well each token's vector fits each x: logits over the vocabulary."""
        if x.shape[-1] != self.table.shape[1]:
            raise ValueError(f"x must be {self.table.shape[1]} wide; got {list(x.shape)}")
        x = in_dtype(x, self.dtype)
        return jnp.einsum("...D,PD->...P", x, self.table[...].astype(jnp.result_type(x)))


@on_automatic_axes(lambda tokens, table: whole_after(tokens, tokens.ndim))
def _rows(tokens: Int[Array, "*B"], table: Float[Array, "P D"]) -> Float[Array, "*B D"]:
    return table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
