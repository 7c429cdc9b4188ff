"""Dropout of attention weights as a function of a key and two positions, and of nothing else.

Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011): the random bits of a pair are a
cipher of its position, so every backend, tile size, sharding and chunk of queries drops the same.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as extended_random
from jaxtyping import Array, Bool, Int, Key

from attn_jax import _checks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Which weights stay, decided pair by pair; the others are dropped."""

    seed: Any  # two words of 32 bits
    rate: float = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, rng: Key[Array, ""], rate: float) -> "Dropout":
        return cls(jax.random.bits(rng, (2,), jnp.uint32), rate)

    def keeps(
        self, query_position: Int[Array, "t 1"], key_position: Int[Array, "1 s"]
    ) -> Bool[Array, "t s"]:
        """True for a weight that stays, with probability 1 - rate."""
        pairs = jnp.broadcast_arrays(query_position, key_position)
        counters = jnp.concatenate([x.astype(jnp.uint32).ravel() for x in pairs])
        bits = extended_random.threefry_2x32(self.seed, counters)[: counters.size // 2]
        threshold = jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return (bits >= threshold).reshape(pairs[0].shape)


def dropout_mask(
    rng: Key[Array, ""],
    rate: float,
    query_position: Int[Array, " T"],
    key_position: Int[Array, " S"],
) -> Bool[Array, "T S"]:
    """The weights that `attend` keeps when it is given this key, this rate and these positions.

    Srivastava et al., "Dropout" (2014), https://jmlr.org/papers/v15/srivastava14a.html; applied to
    attention weights as in Vaswani et al. (2017), section 5.4.

    Args:
      rng: the key of one head of one example.
      rate: the probability with which a weight is dropped.
      query_position: where each query stands in its sequence, in positions.
      key_position: where each key stands, in positions.

    Returns:
      True for a weight that stays. What stays is divided by 1 - rate.

    Raises:
      ValueError: the rate is not in [0, 1).

    Cost:
      One block of the threefry cipher a pair.

    Example:
      >>> keep = attn_jax.dropout_mask(jax.random.key(0), 0.25, jnp.arange(100), jnp.arange(200))
      >>> print(f"{keep.mean():.2f}")
      0.75
      >>> part = attn_jax.dropout_mask(jax.random.key(0), 0.25, jnp.arange(7, 9), jnp.arange(200))
      >>> bool((part == keep[7:9]).all())
      True
    """
    _checks.check_rate("rate", rate)
    return Dropout.of(rng, rate).keeps(query_position[:, None], key_position[None, :])
