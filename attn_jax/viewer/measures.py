"""Quantities for the same pairs of tokens that are not attention weights.

Bach et al., "On Pixel-wise Explanations" and Jain & Wallace, "Attention is not Explanation" (2019),
https://arxiv.org/abs/1902.10186, are the reason for showing them in addition to the weights and not
instead of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax.viewer._arrays import as_heads, as_numbers


def rollout(weights: Any) -> np.ndarray:
    """The share of each input token in each output token, through layers and residual connections.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3,
    https://arxiv.org/abs/2005.00928; heads are averaged, as in the paper.

      rollout = Â_L … Â_1,  Â = (mean_n weights[n] + I) / 2, each row divided by its sum

    Args:
      weights: self-attention weights, [L N T T] or a list of layers in order.

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
            f"weights must be of self-attention, [L N T T], for rollout; got {list(heads.shape)}; "
            f"pass layers whose queries and keys are the same tokens"
        )
    shares = np.eye(heads.shape[2])
    for layer in heads.mean(axis=1):
        step = layer + np.eye(len(layer))
        shares = (step / step.sum(axis=1, keepdims=True)) @ shares
    return shares


def gradient_times_input(
    function: Callable[[jax.Array], jax.Array], inputs: jax.Array
) -> np.ndarray:
    """The first-order change of each output as each input vector grows.

    Shrikumar et al., "Not Just a Black Box" (2016), https://arxiv.org/abs/1605.01713.

      out[t, s] = Σ_e ∂function(inputs)[t] / ∂inputs[s, e] · inputs[s, e]

    Args:
      function: from vectors [S E] to one number for each output, [T], such as the log-probability
        of each target token.
      inputs: the vectors, such as embeddings.

    Returns:
      Signed importances [T S]: positive where a longer input vector increases the output.

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
            f"function must return one number for each output, [T]; its derivative has shape "
            f"{list(slopes.shape)}"
        )
    return np.asarray(jnp.einsum("TSE,SE->TS", slopes, inputs), np.float64)


def leave_one_out(function: Callable[[jax.Array], jax.Array], S: int) -> np.ndarray:
    """How much each output decreases when one input is masked.

    Li et al., "Understanding Neural Networks through Representation Erasure" (2016),
    https://arxiv.org/abs/1612.08220.

      out[t, s] = function(all True)[t] - function(all True but s)[t]

    Args:
      function: from a mask [S], False where an input is masked, to one number for each output, [T].
      S: the number of inputs.

    Returns:
      Signed importances [T S]: positive where the input increases the output.

    Raises:
      ValueError: S is not an int >= 1, or the function does not return [T].

    Cost:
      S + 1 evaluations of `function`, S of them under `jax.vmap`.

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
        raise ValueError(
            f"function must return one number for each output, [T]; got {jnp.shape(whole)}"
        )
    without = jax.vmap(function)(~jnp.eye(S, dtype=bool))
    return np.asarray(whole[:, None] - without.T, np.float64)


def agreement(measure: Any, weights: Any) -> float | None:
    """How far a measure and the weights order the keys alike: Kendall's τ-b, averaged over rows.

    The absolute value of the measure is compared. Rows in which all values of one side are equal
    are left out. Kendall (1938), "A New Measure of Rank Correlation".

      τ = Σ_{i<j} sign(a_i - a_j) sign(b_i - b_j) / √(pairs untied in a · pairs untied in b)

    Args:
      measure: [T S].
      weights: [T S].

    Returns:
      From −1 (the reverse order) to 1 (the same order); None if every row is left out.

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
