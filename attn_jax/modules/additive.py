"""Bahdanau's additive attention as a layer, with the parameters W_a, U_a and v_a."""

from functools import partial
from typing import Any

from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from attn_jax import scores
from attn_jax._attend import attend, attention_weights
from attn_jax.modules._linear import in_dtype
from attn_jax.modules.norms import promote_to_first


class AdditiveAttention(nnx.Module):
    """Bahdanau's additive attention: a network with one hidden layer scores each pair.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    §3.1 and appendix A.1.2, https://arxiv.org/abs/1409.0473. v_a starts at zero, so
    attention starts exactly uniform.

      scores[t, s] = v_a · tanh(query[t] @ W_a + keys[s]),   keys = annotations @ U_a

    Args:
      query_dim: width of a query (decoder state), n in the paper.
      annotation_dim: width of an encoder annotation, 2n in the paper.
      align_dim: width of the hidden layer, n' in the paper.
      kernel_init: initializer of W_a and U_a; default N(0, 0.001²), as in the paper.
      dtype: dtype of the computation; default that of the input.
      rngs: random keys for the parameters.

    Returns:
      A module. `project` computes the keys, once for a sentence. A call computes the contexts.
      `inspect` returns the scores and attention weights of a call.

    Example:
      >>> from attn_jax.modules.additive import AdditiveAttention
      >>> attention = AdditiveAttention(3, 2, 4, rngs=nnx.Rngs(0))
      >>> annotations = jnp.array([[1.0, 0.0], [3.0, 8.0], [9.0, 9.0]])
      >>> keys, mask = attention.project(annotations), jnp.array([True, True, False])
      >>> attention(jnp.ones((1, 3)), keys, annotations, mask).tolist()   # uniform over two tokens
      [[2.0, 4.0]]
    """

    def __init__(
        self,
        query_dim: int,
        annotation_dim: int,
        align_dim: int,
        *,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        kernel_init = kernel_init or nnx.initializers.normal(0.001)
        self.dtype = dtype
        computed: dict[str, Any] = {"dtype": dtype, "promote_dtype": promote_to_first}
        linear = partial(nnx.Linear, use_bias=False, kernel_init=kernel_init, **computed, rngs=rngs)
        self.query_kernel = linear(query_dim, align_dim)
        self.key_kernel = linear(annotation_dim, align_dim)
        self.v = nnx.Param(nnx.initializers.zeros(rngs.params(), (align_dim,)))

    def project(self, annotations: Float[Array, "S E"]) -> Float[Array, "S A"]:
        """Computes the keys U_a h_j; they are the same in every decode step."""
        return self.key_kernel(annotations)

    def __call__(
        self,
        query: Float[Array, "T H"],
        keys: Float[Array, "S A"],
        annotations: Float[Array, "S E"],
        mask: Bool[Array, " S"],
    ) -> Float[Array, "T E"]:
        """Computes the context of each query: the mean of the annotations by attention weights."""
        score = partial(scores.additive, out_kernel=self.v[...])
        annotations = in_dtype(annotations, self.dtype)
        return attend(self.query_kernel(query), keys, annotations, score=score, mask=mask[None])

    def inspect(
        self, query: Float[Array, "T H"], keys: Float[Array, "S A"], mask: Bool[Array, " S"]
    ) -> tuple[Float[Array, "T S"], Float[Array, "T S"]]:
        """Returns the scores before the mask, and the attention weights of a call."""
        score = partial(scores.additive, out_kernel=self.v[...])
        query = self.query_kernel(query)
        return score(query, keys), attention_weights(query, keys, score=score, mask=mask[None])
