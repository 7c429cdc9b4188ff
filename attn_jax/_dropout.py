"""Dropout of attention weights whose random bits depend on a PRNG key and two row numbers alone.

Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011): the random bits of a pair are a
cipher of the row numbers of its query and its key in the whole sequence. So every implementation,
tile size, sharding and chunk of queries drops the same weights. Positions do not matter: they may
restart.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from attn_jax._base import checks, young_jax
from attn_jax._base.tables import Rows, Table


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Seed, rate and row numbers, from which `keeps` computes which weights are kept.

    Row numbers are tables, so that they can be cut into tiles.
    """

    seed: Any  # two words of 32 bits
    query_row: Any
    key_row: Any
    rate: float = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, rng: Key[Array, ""], rate: float, rows: Rows) -> "Dropout":
        query_row, key_row = rows.numbers
        seed = jax.random.bits(rng, (2,), jnp.uint32)
        return cls(seed, Table(query_row, "query"), Table(key_row, "key"), rate)

    def keeps(self) -> Bool[Array, "t s"]:
        """True for a weight that is kept, with probability 1 - rate."""
        pairs = jnp.broadcast_arrays(self.query_row.values[:, None], self.key_row.values[None, :])
        counters = jnp.concatenate([x.astype(jnp.uint32).ravel() for x in pairs])
        bits = young_jax.threefry_2x32(self.seed, counters)[: counters.size // 2]
        threshold = jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return (bits >= threshold).reshape(pairs[0].shape)


def dropout_mask(
    rng: Key[Array, ""],
    rate: float,
    query_row: Int[Array, " T"],
    key_row: Int[Array, " S"],
) -> Bool[Array, "T S"]:
    """The weights that `attend` keeps for this PRNG key, this rate and these row numbers.

    Srivastava et al., "Dropout" (2014), https://jmlr.org/papers/v15/srivastava14a.html; applied to
    attention weights as in Vaswani et al. (2017), section 5.4.

    Args:
      rng: the PRNG key of one head of one batch example.
      rate: the probability with which a weight is dropped.
      query_row: the row number of each query in the whole sequence; `attend` counts from 0 by
        default.
      key_row: the row number of each key.

    Returns:
      True for a weight that is kept. `attend` divides kept weights by 1 - rate.

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
    checks.check_rate("rate", rate)
    return Dropout.of(rng, rate, Rows(query_row.size, key_row.size, query_row, key_row)).keeps()
