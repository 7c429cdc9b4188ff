"""Quantities that are not attention, for the same pairs of tokens: each says something else.

Bach et al., "On Pixel-wise Explanations" and Jain & Wallace, "Attention is not Explanation" (2019),
https://arxiv.org/abs/1902.10186, are why they stand beside the weights and not in their place.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax.viewer._arrays import as_heads, as_numbers


def rollout(weights: Any) -> np.ndarray:
    """How much of each token arrives at each token, through all layers and the ways around them.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3,
    https://arxiv.org/abs/2005.00928; heads are averaged, as they do.

      rollout = Â_L … Â_1,  Â = (mean_n weights[n] + I) / 2, each row divided by its sum

    Args:
      weights: of self-attention, [L N T T] or a list of layers, the first one first.

    Returns:
      Shares [T T] in float64; each row sums to 1.

    Raises:
      ValueError: queries and keys are not the same tokens.
      TypeError: as `AttentionView.from_weights`.

    Cost:
      L products of T×T matrices.

    Example:
      >>> from attn_jax.viewer import rollout
      >>> first, second = [[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]
      >>> rollout(np.array([[first], [second]])).tolist()
      [[1.0, 0.0], [0.625, 0.375]]
    """
    heads = as_heads("weights", weights)
    if heads.shape[2] != heads.shape[3]:
        raise ValueError(
            f"weights must be of self-attention, [L N T T]; got {list(heads.shape)}: rollout "
            f"follows a token through layers"
        )
    arrived = np.eye(heads.shape[2])
    for layer in heads.mean(axis=1):
        step = layer + np.eye(len(layer))
        arrived = (step / step.sum(axis=1, keepdims=True)) @ arrived
    return arrived


def gradient_times_input(
    function: Callable[[jax.Array], jax.Array], inputs: jax.Array
) -> np.ndarray:
    """How much each output would change, to first order, with the length of each input's vector.

    Shrikumar et al., "Not Just a Black Box" (2016), https://arxiv.org/abs/1605.01713.

      out[t, s] = Σ_e ∂function(inputs)[t] / ∂inputs[s, e] · inputs[s, e]

    Args:
      function: from vectors [S E] to one number an output [T], such as the log-probability of each
        word that was said.
      inputs: the vectors, such as embeddings.

    Returns:
      Signed importances [T S]: positive where more of the input makes the output greater.

    Raises:
      ValueError: the inputs are not [S E], or the function does not return [T].

    Cost:
      T backward passes.

    Example:
      >>> from attn_jax.viewer import gradient_times_input
      >>> inputs = jnp.array([[1.0, 2.0], [3.0, 0.0]])
      >>> gradient_times_input(lambda x: (x**2).sum()[None], inputs).tolist()
      [[10.0, 18.0]]
    """
    if jnp.ndim(inputs) != 2:
        raise ValueError(f"inputs must be [S E]; got {list(jnp.shape(inputs))}")
    slopes = jax.jacrev(function)(inputs)
    if slopes.ndim != 3:
        raise ValueError(
            f"function must return one number an output, [T]; its derivative has shape "
            f"{list(slopes.shape)}"
        )
    return np.asarray(jnp.einsum("TSE,SE->TS", slopes, inputs), np.float64)


def leave_one_out(function: Callable[[jax.Array], jax.Array], S: int) -> np.ndarray:
    """How much each output loses when one input may not be read.

    Li et al., "Understanding Neural Networks through Representation Erasure" (2016),
    https://arxiv.org/abs/1612.08220.

      out[t, s] = function(all True)[t] - function(all True but s)[t]

    Args:
      function: from a mask [S], True where an input may be read, to one number an output [T].
      S: how many inputs there are.

    Returns:
      Signed importances [T S]: positive where the output is greater with the input.

    Raises:
      ValueError: S is not an int >= 1, or the function does not return [T].

    Cost:
      S + 1 calls, mapped together.

    Example:
      >>> from attn_jax.viewer import leave_one_out
      >>> values = jnp.array([1.0, -4.0])
      >>> leave_one_out(lambda mask: jnp.where(mask, values, 0).sum()[None], 2).tolist()
      [[1.0, -4.0]]
    """
    if not isinstance(S, int) or S < 1:
        raise ValueError(f"S must be an int >= 1, the number of inputs; got {S!r}")
    whole = function(jnp.ones(S, bool))
    if jnp.ndim(whole) != 1:
        raise ValueError(f"function must return one number an output, [T]; got {jnp.shape(whole)}")
    without = jax.vmap(function)(~jnp.eye(S, dtype=bool))
    return np.asarray(whole[:, None] - without.T, np.float64)


def agreement(measure: Any, weights: Any) -> float | None:
    """Whether a measure puts the keys in the order in which the weights do: Kendall's τ-b.

    In the mean over the rows in which both have an order. What is compared is the size of the
    measure, whatever its sign. Kendall (1938), "A New Measure of Rank Correlation".

      τ = Σ_{i<j} sign(a_i - a_j) sign(b_i - b_j) / √(pairs untied in a · pairs untied in b)

    Args:
      measure: [T S].
      weights: [T S].

    Returns:
      Between −1 (the other way round) and 1 (the same order); None where no row has an order.

    Cost:
      O(T S²).

    Example:
      >>> from attn_jax.viewer import agreement
      >>> agreement(np.array([[-3.0, 2.0, 1.0]]), np.array([[0.5, 0.3, 0.2]]))
      1.0
    """
    found = []
    rows = zip(np.abs(as_numbers("measure", measure)), as_numbers("weights", weights), strict=True)
    for one, other in rows:
        a, b = (np.sign(x[:, None] - x[None, :])[np.triu_indices(x.size, 1)] for x in (one, other))
        untied = np.sqrt(np.sum(a != 0) * np.sum(b != 0))
        if untied > 0:
            found.append(float(np.sum(a * b) / untied))
    return sum(found) / len(found) if found else None
