"""Score functions: they compute the logits of one head from all queries and keys.

Scale, score mod and mask are applied to the result. Scores with parameters take them after the
keys, so `functools.partial(additive, out_kernel=v)` is a score for `attend`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax._base import checks, numerics

type Score = Callable[[Float[Array, "T H"], Float[Array, "S E"]], Float[Array, "T S"]]
"""A function from the queries and keys of one head to its logits."""


def dot(query: Float[Array, "T H"], key: Float[Array, "S H"]) -> Float[Array, "T S"]:
    """The dot product of each query with each key.

    Luong et al., "Effective Approaches to Attention-based NMT" (2015), eq. 8, "dot",
    https://arxiv.org/abs/1508.04025. `attend` without a score multiplies this by 1/√H (Vaswani et
    al. 2017, eq. 1).

      logits[t, s] = query[t] · key[s]

    Args:
      query: one vector for each query.
      key: one vector for each key.

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
    query: Float[Array, "T H"], key: Float[Array, "S E"], kernel: Float[Array, "H E"]
) -> Float[Array, "T S"]:
    """Luong's general score: the dot product of keys with queries after a trained linear map.

    Luong et al. (2015), eq. 8, "general", https://arxiv.org/abs/1508.04025.

      logits[t, s] = query[t] @ kernel · key[s]

    Args:
      query: one vector for each query.
      key: one vector for each key; the width may differ from the query's.
      kernel: the matrix of the linear map, W_a in the paper; with the identity the score is `dot`.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: the shape of the kernel is not the query's width × the key's width.

    Numerics:
      The mapped query is rounded to the query's dtype; sums are in float32.

    Cost:
      O(T H E + T S E): the map is applied to queries, because they are few in decoding.

    Example:
      >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> attn_jax.scores.general(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]), swap).tolist()
      [[10.0]]
    """
    checks.check_shapes(query=(query, "T H"), key=(key, "S E"), kernel=(kernel, "H E"))
    return dot(jnp.einsum("TH,HE->TE", query, kernel.astype(query.dtype)), key)


def additive(
    query: Float[Array, "T A"], key: Float[Array, "S A"], out_kernel: Float[Array, " A"]
) -> Float[Array, "T S"]:
    """Bahdanau's additive score: a network with one hidden layer computes the logit of each pair.

    Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2014),
    appendix A.1.2, https://arxiv.org/abs/1409.0473. Query and key are already projected
    (W_a s and U_a h in the paper), because the projected keys are the same at every decode step.

      logits[t, s] = out_kernel · tanh(query[t] + key[s])

    Args:
      query: the projected decoder states.
      key: the projected encoder annotations.
      out_kernel: the output vector of the network, v_a in the paper. The paper starts from zeros,
        which give uniform attention.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: the three widths differ.

    Numerics:
      tanh in the dtype of the inputs, the sum over A in float32. Without tanh, the query would
      cancel in the softmax over keys (Brody et al. 2021, https://arxiv.org/abs/2105.14491).

    Cost:
      O(T S A) time, and O(T S A) memory for the hidden layer.

    Example:
      >>> query, key = jnp.array([[0.5]]), jnp.array([[-0.5], [100.0]])
      >>> attn_jax.scores.additive(query, key, jnp.array([2.0])).tolist()
      [[0.0, 2.0]]
    """
    checks.check_shapes(query=(query, "T A"), key=(key, "S A"), out_kernel=(out_kernel, "A"))
    hidden = jnp.tanh(query[:, None, :] + key[None, :, :])
    dtype = numerics.accumulation_dtype(query.dtype)
    return jnp.einsum(
        "TSA,A->TS", hidden, out_kernel.astype(hidden.dtype), preferred_element_type=dtype
    )


def concat(
    query: Float[Array, "T H"],
    key: Float[Array, "S E"],
    kernel: Float[Array, "C A"],
    out_kernel: Float[Array, " A"],
) -> Float[Array, "T S"]:
    """Luong's concat score: the additive score of the concatenated query and key.

    Luong et al. (2015), eq. 8, "concat", https://arxiv.org/abs/1508.04025. If `kernel` stacks W_a
    and U_a, it equals `additive`: a product with a concatenation is the sum of two products.

      logits[t, s] = out_kernel · tanh([query[t]; key[s]] @ kernel)

    Args:
      query: the decoder states.
      key: the encoder annotations; the width may differ from the query's.
      kernel: the matrix of the hidden layer, W_a in the paper, with C = H + E rows: the first H
        multiply the query, the others the key.
      out_kernel: the output vector of the network, v_a in the paper.

    Returns:
      Logits in float32, or float64 for float64.

    Raises:
      ValueError: the kernel does not have H + E rows, or out_kernel has another width.

    Numerics:
      As `additive`.

    Cost:
      O(T H A + S E A + T S A): the concatenation is never formed.

    Example:
      >>> query, key, kernel = jnp.array([[1.0]]), jnp.array([[-1.0], [50.0]]), jnp.ones((2, 1))
      >>> attn_jax.scores.concat(query, key, kernel, jnp.array([3.0])).tolist()
      [[0.0, 3.0]]
    """
    sizes = checks.check_shapes(
        query=(query, "T H"), key=(key, "S E"), kernel=(kernel, "C A"), out_kernel=(out_kernel, "A")
    )
    (H,), (E,), (C,) = sizes["H"], sizes["E"], sizes["C"]
    if C != H + E:
        raise ValueError(f"kernel must have H + E = {H} + {E} rows; got {C}")
    w_query, w_key = jnp.split(kernel.astype(query.dtype), [H])
    return additive(
        jnp.einsum("TH,HA->TA", query, w_query), jnp.einsum("SE,EA->SA", key, w_key), out_kernel
    )
