"""Soft capping of logits, as in Gemma 2."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attn_jax._base import numerics
from attn_jax.masks import Position
from attn_jax.score_mods._score_mod import Logit, ScoreMod


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _SoftCap(ScoreMod):
    cap: Any
    name = "soft_cap"
    aligned = False

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        del query_position, key_position
        cap = numerics.as_scalar(self.cap, logit.dtype)
        return cap * jnp.tanh(logit / cap)


def soft_cap(cap: float | int | np.floating | Float[Array, "..."]) -> ScoreMod:
    """Bounds logits smoothly between -cap and cap; small logits barely change.

    Gemma Team, "Gemma 2" (2024), section 2, https://arxiv.org/abs/2408.00118, where cap = 50.

      cap * tanh(logit / cap)

    Args:
      cap: the bound; an array may be traced, trained or mapped.

    Returns:
      The score mod, for `attend(score_mod=)`.

    Raises:
      ValueError: the cap is a number, and not finite and positive.

    Numerics:
      In the logit's dtype; the result differs from the logit by at most cap * (logit / cap)³ / 3.

    Example:
      >>> at = jnp.array(0), jnp.array(0)
      >>> cap = attn_jax.score_mods.soft_cap(50.0)
      >>> [round(float(cap(jnp.array(x), *at)), 2) for x in (1.0, 50.0, 1000.0)]
      [1.0, 38.08, 50.0]
    """
    if not isinstance(cap, jax.Array) and not 0 < cap < math.inf:
        raise ValueError(f"cap must be a finite number > 0; got {cap}")
    return _SoftCap(cap)
