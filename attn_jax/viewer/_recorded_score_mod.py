"""A score mod in a form that a page can evaluate without Python.

The page cannot run the Python function. So the function is applied to the logits of the view, and
what it adds to each logit is recorded. A score mod whose addition depends on distance alone (ALiBi,
T5) is stored as one number for each distance, a soft cap as its bound, and any other as an array
[T S], up to a size limit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax.viewer._json_arrays import array_to_json

LARGEST = 2**20  # entries T·S up to which a score mod can be stored as an array
EQUAL = 1e-5  # relative difference up to which two additions count as equal


class RecordedScoreMod:
    """The score mod of one layer, and the additions recorded so far.

    Args:
      score_mods: `(logit, query_position, key_position) -> logit` on scalars, one for each head or
        one for all heads; None changes nothing.
      query_position: the position of each query, [T].
    """

    def __init__(self, score_mods: Sequence[Callable | None], query_position: np.ndarray) -> None:
        self.score_mods, self.query_position = score_mods, query_position
        self.is_none = score_mods[0] is None
        self.by_distance: dict[int, np.ndarray] = {}
        self.arrays: dict[int, list[np.ndarray]] = {}
        self.depends_on_distance_only = True

    @property
    def cap(self) -> float | None:
        """The bound of the library's `soft_cap`, or None for any other score mod."""
        caps = [getattr(score_mod, "cap", None) for score_mod in self.score_mods]
        is_cap = getattr(self.score_mods[0], "name", None) == "soft_cap"
        return float(np.asarray(caps[0])) if is_cap and len(caps) == 1 else None

    def added_to(self, logits: np.ndarray, head: int, begin: int) -> np.ndarray:
        """What the score mod adds to the logits [R S] of queries `begin` to `begin + R`."""
        score_mod = self.score_mods[head % len(self.score_mods)]
        if score_mod is None:
            return np.zeros_like(logits)
        if self.cap is not None:
            return self.cap * np.tanh(logits / self.cap) - logits
        queries = jnp.asarray(self.query_position[begin : begin + len(logits)], jnp.int32)
        keys = jnp.arange(logits.shape[1], dtype=jnp.int32)
        on_pairs = jax.vmap(jax.vmap(score_mod, (0, None, 0)), (0, 0, None))
        with np.errstate(invalid="ignore"):
            single = logits.astype(np.float32)
            return np.asarray(on_pairs(jnp.asarray(single), queries, keys), np.float64) - single

    def record(self, added: np.ndarray, logits: np.ndarray, head: int, begin: int, T: int) -> None:
        """Stores what was added by distance, and as an array if T·S is small enough."""
        if self.is_none or self.cap is not None:
            return
        R, S = added.shape
        if T * S <= LARGEST:
            self.arrays.setdefault(head, []).append(added)
        stored = self.by_distance.setdefault(head, np.full(T + S - 1, np.nan))
        distance = np.arange(S)[None, :] - np.arange(begin, begin + R)[:, None] + T - 1
        new = np.isnan(stored[distance])
        stored[distance[new]] = added[new]
        near = np.abs(stored[distance] - added) <= EQUAL * (1 + np.abs(logits) + np.abs(added))
        self.depends_on_distance_only &= bool(np.all(near | (stored[distance] == added)))

    def as_json(self, N: int, T: int, S: int) -> dict[str, Any] | None:
        """The form that the page evaluates; None for no score mod.

        Raises:
          ValueError: the score mod must be stored as an array, and T·S is too large.
        """
        if self.is_none:
            return None
        if self.cap is not None:
            return {"kind": "cap", "cap": self.cap}
        if self.depends_on_distance_only:
            values = np.stack([self.by_distance[head] for head in range(N)])
            return {"kind": "distance", "values": array_to_json(values, "f32")}
        if T * S > LARGEST:
            raise ValueError(
                f"score_mod is neither a function of distance nor a soft cap, so it must be "
                f"stored as an array, and T·S = {T * S:,} is more than {LARGEST:,}; view fewer "
                f"tokens, or pass the weights to from_weights"
            )
        values = np.stack([np.concatenate(self.arrays[head]) for head in range(N)])
        return {"kind": "array", "values": array_to_json(values, "f32")}
