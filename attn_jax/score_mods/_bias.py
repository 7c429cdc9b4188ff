"""Biases added to logits: one for each bucket of distances, or one for each pair of rows."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attn_jax._base.distance import FARTHEST, distance, to_int32
from attn_jax._base.tables import Table
from attn_jax.masks import Position
from attn_jax.score_mods._score_mod import Logit, ScoreMod


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _RelativeBias(ScoreMod):
    table: Any = dataclasses.field(metadata={"core_rank": 1})
    bidirectional: bool = dataclasses.field(metadata={"static": True})
    max_distance: int = dataclasses.field(metadata={"static": True})
    name = "relative_bias"

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        bucket = relative_bucket(
            distance(query_position, key_position),
            num_buckets=self.table.shape[0],
            bidirectional=self.bidirectional,
            max_distance=self.max_distance,
        )
        return logit + self.table[bucket].astype(logit.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _DenseBias(ScoreMod):
    bias: Any
    name = "dense_bias"
    aligned = False

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        return logit + self.bias(query_position, key_position).astype(logit.dtype)


def relative_bias(
    table: Float[Array | np.ndarray, "... R"], *, bidirectional: bool, max_distance: int = 128
) -> ScoreMod:
    """T5's relative bias: adds a trained number for each bucket of distances to the logit.

    Raffel et al., "Exploring the Limits of Transfer Learning" (2019), section 2.1,
    https://arxiv.org/abs/1910.10683 (T5). T5 uses it without scaling the dot products.

      logit + table[relative_bucket(key_position - query_position)]

    Args:
      table: one number for each bucket, of one head; T5 has 32 buckets. The table may be traced,
        trained or mapped.
      bidirectional: whether keys after the query have their own half of the buckets (T5's encoder),
        or share the bucket of distance 0 (its decoder).
      max_distance: the distance from which on all share the last bucket, in positions.

    Returns:
      The score mod, for `attend(score_mod=)`.

    Raises:
      TypeError: the table is not floating point.
      ValueError: the table or `max_distance` is too small for `relative_bucket`.

    Numerics:
      Added in the logit's dtype.

    Example:
      >>> table = jnp.array([0.0, -1.0, -2.0, -3.0])
      >>> mod = attn_jax.score_mods.relative_bias(table, bidirectional=False, max_distance=8)
      >>> [float(mod(jnp.array(5.0), jnp.array(9), jnp.array(j))) for j in (9, 8, 7, 5, 0)]
      [5.0, 4.0, 3.0, 2.0, 2.0]
    """
    if not jnp.issubdtype(table.dtype, jnp.floating):
        raise TypeError(f"table must be floating point; got {table.dtype}")
    if table.ndim == 0:
        raise ValueError("table must have one entry for each bucket; got a scalar")
    _check_buckets(table.shape[-1], bidirectional, max_distance)
    return _RelativeBias(jnp.asarray(table), bidirectional, max_distance)


def relative_bucket(
    distance: Int[Array, "*B"],
    *,
    num_buckets: int = 32,
    bidirectional: bool,
    max_distance: int = 128,
) -> Int[Array, "*B"]:
    """Returns the bucket of a distance: one bucket for each short distance, wider ones for long.

    Raffel et al. (2019), section 2.1, https://arxiv.org/abs/1910.10683, and their code: half of the
    buckets have one distance each; the others are logarithmic up to `max_distance`.

      n < exact: n;  else exact + ⌊log(n / exact) / log(max_distance / exact) * (buckets - exact)⌋
      where n = max(-distance, 0), buckets = num_buckets; if bidirectional n = |distance|,
      buckets = num_buckets / 2; and exact = buckets / 2

    Args:
      distance: key position minus query position.
      num_buckets: how many buckets there are.
      bidirectional: whether keys after the query have the upper half of the buckets, or share
        bucket 0.
      max_distance: the distance from which on all share the last bucket, in positions.

    Returns:
      The index of the bucket, from 0 to num_buckets - 1, as int32.

    Raises:
      ValueError: fewer than 2 buckets for a direction, or an odd number of them for two directions;
        or `max_distance` is not above the number of buckets with one distance each.

    Numerics:
      The logarithm is computed in float32, as in the paper's code, so that trained T5 weights can
      be used.

    Example:
      >>> distance = jnp.array([0, -1, -7, -8, -20, -1000, 1])
      >>> attn_jax.score_mods.relative_bucket(distance, bidirectional=True).tolist()
      [0, 1, 7, 8, 10, 15, 17]
    """
    _check_buckets(num_buckets, bidirectional, max_distance)
    buckets = num_buckets // 2 if bidirectional else num_buckets
    exact = buckets // 2
    distance = jnp.maximum(to_int32("distance", distance), -FARTHEST)
    n = jnp.abs(distance) if bidirectional else jnp.maximum(-distance, 0)
    growth = jnp.log(jnp.maximum(n, exact).astype(jnp.float32) / exact)
    wide = growth / math.log(max_distance / exact) * (buckets - exact)
    far = jnp.minimum(exact + wide.astype(jnp.int32), buckets - 1)
    bucket = jnp.where(n < exact, n, far)
    return bucket + buckets * (distance > 0).astype(jnp.int32) if bidirectional else bucket


def dense_bias(bias: Float[Array | np.ndarray, "... P Q"]) -> ScoreMod:
    """Adds an array of biases to the logits: one number for each pair of a query and a key.

    Liu et al., "Swin Transformer" (2021), eq. 4, https://arxiv.org/abs/2103.14030, where it is B.
    The array is indexed by row (index in the whole sequence): a call with a part of the rows passes
    `query_row` and `key_row`, see `attend`. Blockwise attention slices the array for each tile.

      logit + bias[query_row, key_row]

    Args:
      bias: one number for each pair of rows; an axis of size 1 is broadcast. The array may be
        traced, trained or mapped.

    Returns:
      The score mod, for `attend(score_mod=)`. It returns NaN past the end of the array.

    Raises:
      TypeError: the bias is not floating point.
      ValueError: the bias has fewer than two axes.

    Numerics:
      Added in the logit's dtype.

    Example:
      >>> mod = attn_jax.score_mods.dense_bias(jnp.array([[0.0, -jnp.inf, 0.0]]))
      >>> x = jnp.zeros((3, 1))
      >>> attn_jax.attention_weights(x, x, score_mod=mod)[2].tolist()
      [0.5, 0.0, 0.5]
    """
    if not jnp.issubdtype(bias.dtype, jnp.floating):
        raise TypeError(f"bias must be floating point; got {bias.dtype}")
    if bias.ndim < 2:
        raise ValueError(
            f"bias must have an axis of queries and one of keys; got shape {bias.shape}; write "
            f"bias[None, :] to use one row for all queries"
        )
    return _DenseBias(Table(jnp.asarray(bias), "pair"))


def _check_buckets(num_buckets: int, bidirectional: bool, max_distance: int) -> None:
    directions = 2 if bidirectional else 1
    if num_buckets % directions or num_buckets < 2 * directions:
        raise ValueError(
            f"num_buckets must be a multiple of {directions}, at least {2 * directions}; got "
            f"{num_buckets}"
        )
    exact = num_buckets // directions // 2
    if max_distance <= exact:
        raise ValueError(
            f"max_distance must be greater than {exact}, the number of buckets with one distance "
            f"each; got {max_distance}"
        )
