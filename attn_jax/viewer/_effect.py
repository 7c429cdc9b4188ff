"""What a score mod does to a logit, written so that a page can do it too, without any T×S array.

A page runs no Python. So a mod is looked at where it is used: what it adds to these very logits. If
that depends on the distance alone (ALiBi, T5), one number a distance says it; a soft cap is its
formula; anything else is kept whole while it is small.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax.viewer._pack import pack

LARGEST = 2**20  # numbers of a layer that are kept whole
EQUAL = 1e-5


class Effect:
    """One layer's score mod, and what it was seen to add.

    Args:
      rules: `(logit, query_position, key_position) -> logit` on scalars, one a head or one for all;
        None changes nothing.
      place: where each query stands.
    """

    def __init__(self, rules: Sequence[Callable | None], place: np.ndarray) -> None:
        self.rules, self.place = rules, place
        self.is_none = rules[0] is None
        self.by_distance: dict[int, np.ndarray] = {}
        self.whole: dict[int, list[np.ndarray]] = {}
        self.is_distance = True

    @property
    def cap(self) -> float | None:
        """The bound, where the rule is the library's soft cap."""
        caps = [getattr(rule, "cap", None) for rule in self.rules]
        is_cap = getattr(self.rules[0], "name", None) == "soft_cap"
        return float(np.asarray(caps[0])) if is_cap and len(caps) == 1 else None

    def on(self, logits: np.ndarray, head: int, begin: int) -> np.ndarray:
        """What is added to the logits [R S] of the queries from `begin` on."""
        rule = self.rules[head % len(self.rules)]
        if rule is None:
            return np.zeros_like(logits)
        if self.cap is not None:
            return self.cap * np.tanh(logits / self.cap) - logits
        place = jnp.asarray(self.place[begin : begin + len(logits)], jnp.int32)
        keys = jnp.arange(logits.shape[1], dtype=jnp.int32)
        pairs = jax.vmap(jax.vmap(rule, (0, None, 0)), (0, 0, None))
        with np.errstate(invalid="ignore"):
            single = logits.astype(np.float32)
            return np.asarray(pairs(jnp.asarray(single), place, keys), np.float64) - single

    def note(self, effect: np.ndarray, logits: np.ndarray, head: int, begin: int, T: int) -> None:
        """Remembers what was added, by distance, and whole while that is small."""
        if self.is_none or self.cap is not None:
            return
        R, S = effect.shape
        if T * S <= LARGEST:
            self.whole.setdefault(head, []).append(effect)
        found = self.by_distance.setdefault(head, np.full(T + S - 1, np.nan))
        place = np.arange(S)[None, :] - np.arange(begin, begin + R)[:, None] + T - 1
        new = np.isnan(found[place])
        found[place[new]] = effect[new]
        near = np.abs(found[place] - effect) <= EQUAL * (1 + np.abs(logits) + np.abs(effect))
        self.is_distance &= bool(np.all(near | (found[place] == effect)))

    def as_json(self, N: int, T: int, S: int) -> dict[str, Any] | None:
        """How a page does it.

        Raises:
          ValueError: the rule is neither, and there are too many pairs to write it out.
        """
        if self.is_none:
            return None
        if self.cap is not None:
            return {"kind": "cap", "cap": self.cap}
        if self.is_distance:
            values = np.stack([self.by_distance[head] for head in range(N)])
            return {"kind": "distance", "values": pack(values, "f32")}
        if T * S > LARGEST:
            raise ValueError(
                f"score_mod is neither a function of distance nor a soft cap, so it must be "
                f"written out, and T·S = {T * S:,} is more than {LARGEST:,}; view fewer tokens, or "
                f"pass the weights to from_weights"
            )
        values = np.stack([np.concatenate(self.whole[head]) for head in range(N)])
        return {"kind": "whole", "values": pack(values, "f32")}
