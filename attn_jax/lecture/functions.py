"""Four self-attentions of one sequence; each adds one idea to the one before.

Raschka, "Build a Large Language Model (From Scratch)" (2024), chapter 3. The numbers printed there
are tests of this library. For work, use `attn_jax.dot_product_attention`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax import masks, scores
from attn_jax._attend import attend
from attn_jax._base import checks


@jax.jit
def simplified_self_attention(x: Float[Array, "T D"]) -> Float[Array, "T D"]:
    """Self-attention without parameters: the average of all tokens, weighted by their similarity.

    Raschka (2024), section 3.3.1.

      softmax(x xᵀ) x

    Args:
      x: one vector for each token.

    Returns:
      One context vector for each token.

    Raises:
      ValueError: x does not have two axes.

    Numerics:
      Logits and softmax in float32 (float64 for float64).

    Cost:
      O(T² D) time, O(T²) memory.

    Example:
      >>> x = jnp.array([[9.0, 0.0], [0.0, 9.0]])   # orthogonal: each attends to itself
      >>> attn_jax.lecture.simplified_self_attention(x).round(3).tolist()
      [[9.0, 0.0], [0.0, 9.0]]
    """
    checks.check_shapes(x=(x, "T D"))
    return attend(x, x, x, score=scores.dot)


@jax.jit
def self_attention(
    x: Float[Array, "T D"],
    w_query: Float[Array, "D H"],
    w_key: Float[Array, "D H"],
    w_value: Float[Array, "D V"],
) -> Float[Array, "T V"]:
    """Scaled dot-product self-attention with trained projections to query, key and value.

    Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762; Raschka (2024), section 3.4.

      softmax((x w_query)(x w_key)ᵀ / √H) (x w_value)

    Args:
      x: one vector for each token.
      w_query: projects x to the queries.
      w_key: projects x to the keys.
      w_value: projects x to the values.

    Returns:
      One context vector for each token.

    Raises:
      ValueError: the first axis of a weight is not x's width, or w_query and w_key differ in width.

    Numerics:
      As `simplified_self_attention`.

    Cost:
      O(T D (H + V) + T² (H + V)) time, O(T²) memory.

    Example:
      >>> x, eye = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
      >>> print(attn_jax.lecture.self_attention(x, 0 * eye, eye, eye))   # equal logits: the mean
      [[0.5 0.5]
       [0.5 0.5]]
    """
    return attend(*_project(x, w_query, w_key, w_value))


@jax.jit
def causal_self_attention(
    x: Float[Array, "T D"],
    w_query: Float[Array, "D H"],
    w_key: Float[Array, "D H"],
    w_value: Float[Array, "D V"],
) -> Float[Array, "T V"]:
    """`self_attention` with a causal mask: a token attends only to itself and to earlier tokens.

    Vaswani et al. (2017), section 3.2.3, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.5.

      softmax(where(s <= t, (x w_query)(x w_key)ᵀ / √H, -inf)) (x w_value)

    Args:
      x: one vector for each token.
      w_query: projects x to the queries.
      w_key: projects x to the keys.
      w_value: projects x to the values.

    Returns:
      One context vector for each token. Its derivative with respect to a later token is exactly 0.

    Raises:
      ValueError: as `self_attention`.

    Numerics:
      As `simplified_self_attention`.

    Cost:
      As `self_attention`.

    Example:
      >>> x, eye = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
      >>> print(attn_jax.lecture.causal_self_attention(x, 0 * eye, eye, eye))   # a running mean
      [[1.  0. ]
       [0.5 0.5]]
    """
    return attend(*_project(x, w_query, w_key, w_value), mask=masks.causal())


@functools.partial(jax.jit, static_argnames="causal")
def multi_head_self_attention(
    x: Float[Array, "T D"],
    w_query: Float[Array, "D N H"],
    w_key: Float[Array, "D N H"],
    w_value: Float[Array, "D N V"],
    w_out: Float[Array, "N V E"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "T E"]:
    """N self-attentions (heads) in parallel, each with its own projections, then one output matrix.

    Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762; Raschka (2024), section
    3.6.

      Σ_n head_n(x) w_out[n]   where head_n is self-attention with the n-th weights

    Args:
      x: one vector for each token.
      w_query: projects x to the queries of each head.
      w_key: projects x to the keys of each head.
      w_value: projects x to the values of each head.
      w_out: the output matrix; None concatenates the heads instead, so that E = N V.
      causal: whether a token attends only to itself and to earlier tokens.

    Returns:
      One vector for each token.

    Raises:
      ValueError: the shapes of the weights do not match x or each other.

    Numerics:
      As `simplified_self_attention`, in each head.

    Cost:
      O(T D N (H + V) + N T² (H + V)) time, O(N T²) memory.

    Example:
      >>> x = jnp.array([[1.0], [3.0]])
      >>> w = jnp.array([[[0.0], [100.0]]])   # head 0 averages, head 1 selects
      >>> ones = jnp.ones((1, 2, 1))
      >>> attn_jax.lecture.multi_head_self_attention(x, w, ones, ones).tolist()
      [[2.0, 3.0], [2.0, 3.0]]
    """
    checks.check_shapes(
        x=(x, "T D"), w_query=(w_query, "D N H"), w_key=(w_key, "D N H"), w_value=(w_value, "D N V")
    )
    head = causal_self_attention if causal else self_attention
    heads = jax.vmap(head, in_axes=(None, 1, 1, 1), out_axes=1)(x, w_query, w_key, w_value)
    if w_out is None:
        return heads.reshape(x.shape[0], -1)
    checks.check_shapes(heads=(heads, "T N V"), w_out=(w_out, "N V E"))
    return jnp.einsum("TNV,NVE->TE", heads, w_out)


def _project(x, w_query, w_key, w_value) -> tuple[Array, Array, Array]:
    checks.check_shapes(
        x=(x, "T D"), w_query=(w_query, "D H"), w_key=(w_key, "D H"), w_value=(w_value, "D V")
    )
    query = jnp.einsum("TD,DH->TH", x, w_query)
    key = jnp.einsum("TD,DH->TH", x, w_key)
    value = jnp.einsum("TD,DV->TV", x, w_value)
    return query, key, value
