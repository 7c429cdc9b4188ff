"""The alignment error rate, and how far attention moves from one output to the next.

Och & Ney, "A Systematic Comparison of Various Statistical Alignment Models" (2003), §5,
https://aclanthology.org/J03-1002: sure links must be found, possible links
are allowed.
"""

from collections.abc import Hashable, Set

import numpy as np
from jaxtyping import Float, Num

from experiments.data.toy_grammar import Link


def hard_links(weights: Num[np.ndarray, "T S"]) -> frozenset[Link]:
    """Each target word linked to the source word with the largest weight.

    Example:
      >>> sorted(hard_links(np.array([[0.1, 0.9], [0.8, 0.2]])))
      [(0, 1), (1, 0)]
    """
    return frozenset((t, int(row.argmax())) for t, row in enumerate(weights))


def alignment_error_rate(
    found: Set[Hashable], sure: Set[Hashable], possible: Set[Hashable]
) -> float:
    """AER = 1 − (|A ∩ S| + |A ∩ P|) / (|A| + |S|): 0 finds every sure link and only possible ones.

    For a whole test set, pass the links of all sentences together, as (sentence, link).

    Args:
      found: A, the links to evaluate.
      sure: S.
      possible: P, which contains S.

    Raises:
      ValueError: a sure link is not possible, or there is nothing to count.

    Example:
      >>> alignment_error_rate({(0, 0), (1, 1), (2, 0)}, {(0, 0)}, {(0, 0), (1, 1)})
      0.25
    """
    if not sure <= possible:
        raise ValueError(f"sure={set(sure - possible)} are not possible; P must contain S")
    if not found and not sure:
        raise ValueError("found and sure are both empty; pass at least one link")
    return 1 - (len(found & sure) + len(found & possible)) / (len(found) + len(sure))


def mean_move(weights: Num[np.ndarray, "T S"]) -> float:
    """The mean number of positions that attention moves from one output to the next.

      mean_t (p_{t+1} − p_t),  p_t = Σ_s s · weights[t, s]

    The sum telescopes to (p_T − p_1) / (T − 1); it needs at least two rows.

    Example:
      >>> mean_move(np.eye(4)), mean_move(np.eye(4)[::-1])
      (1.0, -1.0)
    """
    positions = expected_positions(weights)
    return float(np.diff(positions).mean())


def expected_positions(weights: Num[np.ndarray, "T S"]) -> Float[np.ndarray, " T"]:
    """The mean source position of each output: Σ_s s · weights[t, s]."""
    return weights.astype(np.float64) @ np.arange(weights.shape[1])
