"""How well a query fits a key: the score functions that the mechanisms of the lecture differ in.

A score takes all queries and keys of one head and gives their logits before scale, bias and mask.
The learned ones take their parameters after the keys, so `functools.partial(additive, v=v)` is a
score that `attend` accepts.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax._base import checks, numerics

type Score = Callable[[Float[Array, "T H"], Float[Array, "S E"]], Float[Array, "T S"]]


def dot(query: Float[Array, "T H"], key: Float[Array, "S H"]) -> Float[Array, "T S"]:
    """The dot product of each query with each key.

    Luong et al., "Effective Approaches to Attention-based NMT" (2015), eq. 8, "dot",
    https://arxiv.org/abs/1508.04025. `attend` without a score multiplies this by 1/√H (Vaswani et
    al. 2017, eq. 1).

      logits[t, s] = query[t] · key[s]

    Args:
      query: what is looked for.
      key: what is offered.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: query and key differ in width.

    Numerics:
      Products are summed in float32 (float64 for float64).

    Cost:
      O(T S H).

    Example:
      >>> query, key = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0], [5.0, -1.0]])
      >>> attn_jax.scores.dot(query, key).tolist()
      [[11.0, 3.0]]
    """
    checks.check_shapes(query=(query, "T H"), key=(key, "S H"))
    dtype = numerics.accumulation_dtype(query.dtype)
    return jnp.einsum("TH,SH->TS", query, key, preferred_element_type=dtype)


def general(
    query: Float[Array, "T H"], key: Float[Array, "S E"], w: Float[Array, "H E"]
) -> Float[Array, "T S"]:
    """The dot product after one learned linear map: query and key need not live in one space.

    Luong et al. (2015), eq. 8, "general", https://arxiv.org/abs/1508.04025.

      logits[t, s] = query[t] @ w · key[s]

    Args:
      query: what is looked for.
      key: what is offered, in a width of its own.
      w: the bilinear form; the identity makes this `dot`.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: w does not lead from the query's width to the key's.

    Numerics:
      The mapped query is rounded to the query's dtype, the sums over widths are float32.

    Cost:
      O(T H E + T S E): the map is applied to queries, which are few while decoding.

    Example:
      >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> attn_jax.scores.general(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]), swap).tolist()
      [[10.0]]
    """
    checks.check_shapes(query=(query, "T H"), key=(key, "S E"), w=(w, "H E"))
    return dot(jnp.einsum("TH,HE->TE", query, w.astype(query.dtype)), key)


def additive(
    query: Float[Array, "T A"], key: Float[Array, "S A"], v: Float[Array, " A"]
) -> Float[Array, "T S"]:
    """Bahdanau's alignment model: a small network with one hidden layer scores each pair.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    appendix A.1.2, https://arxiv.org/abs/1409.0473. Query and key come already projected
    (W_a s and U_a h in the paper), because the keys' projection is the same at every decoding step.

      logits[t, s] = v · tanh(query[t] + key[s])

    Args:
      query: the projected decoder states.
      key: the projected annotations.
      v: the output weights of the network; zeros give uniform attention, the paper's first step.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: the three widths differ.

    Numerics:
      tanh in the inputs' dtype, the sum over A in float32. Without tanh the query would cancel in
      the softmax over keys (Brody et al. 2021, https://arxiv.org/abs/2105.14491).

    Cost:
      O(T S A) time, and memory for the hidden layer.

    Example:
      >>> query, key = jnp.array([[0.5]]), jnp.array([[-0.5], [100.0]])
      >>> attn_jax.scores.additive(query, key, jnp.array([2.0])).tolist()
      [[0.0, 2.0]]
    """
    checks.check_shapes(query=(query, "T A"), key=(key, "S A"), v=(v, "A"))
    hidden = jnp.tanh(query[:, None, :] + key[None, :, :])
    dtype = numerics.accumulation_dtype(query.dtype)
    return jnp.einsum("TSA,A->TS", hidden, v.astype(hidden.dtype), preferred_element_type=dtype)


def concat(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    w: Float[Array, "C A"],
    v: Float[Array, " A"],
) -> Float[Array, "T S"]:
    """Luong's concat: the additive score on the concatenated pair.

    Luong et al. (2015), eq. 8, "concat", https://arxiv.org/abs/1508.04025. With W stacked from W_a
    and U_a it is `additive`: the product with a concatenation is the sum of two products.

      logits[t, s] = v · tanh([query[t]; key[s]] @ w)

    Args:
      query: the decoder states.
      key: the annotations, in a width of their own.
      w: the hidden layer: the first H of its C = H + E rows for the query, the others for the key.
      v: the output weights.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: w has not one row for each element of the concatenation, or not v's width.

    Numerics:
      As `additive`.

    Cost:
      O(T H A + S E A + T S A): the concatenation is never formed.

    Example:
      >>> query, key, w = jnp.array([[1.0]]), jnp.array([[-1.0], [50.0]]), jnp.ones((2, 1))
      >>> attn_jax.scores.concat(query, key, w, jnp.array([3.0])).tolist()
      [[0.0, 3.0]]
    """
    sizes = checks.check_shapes(query=(query, "T H"), key=(key, "S E"), w=(w, "C A"), v=(v, "A"))
    (H,), (E,), (C,) = sizes["H"], sizes["E"], sizes["C"]
    if C != H + E:
        raise ValueError(f"w must have H + E = {H} + {E} rows, one for each input; got {C}")
    w_query, w_key = jnp.split(w.astype(query.dtype), [H])
    return additive(jnp.einsum("TH,HA->TA", query, w_query), jnp.einsum("SE,EA->SA", key, w_key), v)
