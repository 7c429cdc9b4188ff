"""ALiBi: lowers logits in proportion to distance, with a different slope in each head."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attn_jax._base import numerics
from attn_jax._base.distance import distance
from attn_jax.masks import Position
from attn_jax.score_mods._score_mod import Logit, ScoreMod


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _Alibi(ScoreMod):
    slope: Any
    name = "alibi"

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        steps = jnp.abs(distance(query_position, key_position)).astype(logit.dtype)
        return logit - numerics.as_scalar(self.slope, logit.dtype) * steps


def alibi(slope: float | int | np.floating | Float[Array, "..."]) -> ScoreMod:
    """ALiBi: subtracts `slope` times the distance between query and key from the logit.

    Press et al., "Train Short, Test Long" (2021), section 3, https://arxiv.org/abs/2108.12409. The
    paper has only keys before the query, and adds slope * (key_position - query_position), which
    is the same there; here keys after the query are lowered by their distance, too.

      logit - slope * |key_position - query_position|

    Args:
      slope: one head's slope, see `alibi_slopes`; an array may be traced, trained or mapped.

    Returns:
      The score mod, for `attend(score_mod=)`.

    Raises:
      ValueError: the slope is a number that is not finite.

    Numerics:
      In the logit's dtype; distances are exact up to 2²⁴ in float32.

    Example:
      >>> x = jnp.zeros((3, 1))
      >>> options = {"mask": attn_jax.masks.causal(), "score_mod": attn_jax.score_mods.alibi(1.0)}
      >>> print(np.asarray(attn_jax.attention_weights(x, x, **options)).round(2))
      [[1.   0.   0.  ]
       [0.27 0.73 0.  ]
       [0.09 0.24 0.67]]
    """
    if not isinstance(slope, jax.Array) and not math.isfinite(slope):
        raise ValueError(f"slope must be a finite number; got {slope}")
    return _Alibi(slope)


def alibi_slopes(num_heads: int) -> Float[Array, " N"]:
    """Returns the slopes of the ALiBi paper: one for each head.

    Press et al. (2021), section 3, https://arxiv.org/abs/2108.12409. If `num_heads` is not a power
    of two, as in their code: the slopes for c heads, the greatest power of two below it, then every
    second slope for 2c heads.

      slopes[n] = 2 ** (-8 * (n + 1) / num_heads)     for a power of two

    Args:
      num_heads: how many heads, N.

    Returns:
      One slope for each head, float32. Give each head its slope by `jax.vmap`, or by
      `alibi(slopes[None])` in `dot_product_attention`.

    Raises:
      ValueError: the number of heads is not an integer >= 1.

    Numerics:
      Computed in float64, rounded once.

    Example:
      >>> attn_jax.score_mods.alibi_slopes(4).tolist()
      [0.25, 0.0625, 0.015625, 0.00390625]
      >>> attn_jax.score_mods.alibi_slopes(3).tolist()
      [0.0625, 0.00390625, 0.25]
    """
    if not isinstance(num_heads, int) or num_heads < 1:
        raise ValueError(f"num_heads must be an int >= 1; got {num_heads!r}")
    power = 2 ** (num_heads.bit_length() - 1)
    more = _powers(2 * power)[::2][: num_heads - power]
    return jnp.asarray(np.concatenate([_powers(power), more]), jnp.float32)


def _powers(count: int) -> np.ndarray:
    return 2.0 ** (-8 * np.arange(1, count + 1) / count)
