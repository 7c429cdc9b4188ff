"""Masks computed from positions alone; they classify a tile by its least and greatest positions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from attn_jax._base import checks
from attn_jax._base.distance import FARTHEST, distance, to_int32
from attn_jax._base.grid import Grid, Kinds
from attn_jax.masks._evaluate import Position
from attn_jax.masks._mask import Mask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _Causal(Mask):
    name = "causal"
    aligned = True

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        return key_position <= query_position

    def tile_kinds(self, grid: Grid) -> Kinds:
        (first_query, last_query), (first_key, last_key) = grid.query_bounds, grid.key_bounds
        return Kinds(first_key <= last_query, last_key <= first_query)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _SlidingWindow(Mask):
    left: int = dataclasses.field(metadata={"static": True})
    right: int = dataclasses.field(metadata={"static": True})
    name = "sliding_window"
    aligned = True

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        gap = distance(query_position, key_position)
        return (-self.left <= gap) & (gap <= self.right)

    def tile_kinds(self, grid: Grid) -> Kinds:
        """Classifies tiles by their distances; `some` is exact where positions have no gaps."""
        least, greatest = _distances(grid)
        some = (-self.left <= greatest) & (least <= self.right)
        return Kinds(some, (-self.left <= least) & (greatest <= self.right))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _Dilated(Mask):
    left: int = dataclasses.field(metadata={"static": True})
    right: int = dataclasses.field(metadata={"static": True})
    dilation: int = dataclasses.field(metadata={"static": True})
    name = "dilated"
    aligned = True

    @property
    def reach(self) -> tuple[int, int]:
        """The least and the greatest distance that is unmasked."""
        return -self.left * self.dilation, self.right * self.dilation

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        gap = distance(query_position, key_position)
        before, after = self.reach
        return (before <= gap) & (gap <= after) & (gap % self.dilation == 0)

    def tile_kinds(self, grid: Grid) -> Kinds:
        """Classifies tiles by the multiples of the dilation among their distances."""
        least, greatest = _distances(grid)
        before, after = self.reach
        last_multiple = jnp.clip(greatest, before, after) // self.dilation * self.dilation
        some = (before <= greatest) & (jnp.maximum(least, before) <= last_multiple)
        every = (before <= least) & (greatest <= after)
        if self.dilation > 1:
            every = every & (least == greatest) & (least % self.dilation == 0)
        return Kinds(some, every)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class _KeyPadding(Mask):
    length: Any
    name = "key_padding"

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        del query_position
        return key_position < self.length

    def tile_kinds(self, grid: Grid) -> Kinds:
        first_key, last_key = grid.key_bounds
        some, every = first_key < self.length, last_key < self.length
        return Kinds(jnp.broadcast_to(some, grid.tiles), jnp.broadcast_to(every, grid.tiles))


def causal() -> Mask:
    """A query may attend to its own position and those before it.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.3,
    https://arxiv.org/abs/1706.03762.

      key_position <= query_position

    Returns:
      The mask. It compares positions, so `attend` requires them where T ≠ S.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.causal(), 4, 4))
      ■···
      ■■··
      ■■■·
      ■■■■
    """
    return _Causal()


def sliding_window(left: int, right: int) -> Mask:
    """A query may attend to itself, `left` positions before it and `right` positions after it.

    Beltagy et al., "Longformer" (2020), section 3.1, https://arxiv.org/abs/2004.05150, whose window
    w is `left = right = w / 2`. Counts the *other* positions, as `local_window_size` of `jax.nn`
    does.

      -left <= key_position - query_position <= right

    Args:
      left: how many positions before its own a query may attend to.
      right: how many positions after its own a query may attend to.

    Returns:
      The mask; with `sliding_window(2, 0)` a query attends to three keys.

    Raises:
      ValueError: a side is negative, above 2³¹ − 2, or not an integer.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.sliding_window(1, 0), 4, 4))
      ■···
      ■■··
      ·■■·
      ··■■
    """
    checks.check_window("window", (left, right))
    return _SlidingWindow(left, right)


def dilated(left: int, right: int, dilation: int) -> Mask:
    """A sliding window with gaps: a query may attend to every `dilation`-th position around it.

    Beltagy et al., "Longformer" (2020), section 3.1 and figure 2c,
    https://arxiv.org/abs/2004.05150. As many keys as `sliding_window(left, right)`, spread
    over a range `dilation` times as long; with `dilation=1` it is that window.

      -left <= (key_position - query_position) / dilation <= right,  if that is an integer

    Args:
      left: how many positions before its own a query may attend to.
      right: how many positions after its own a query may attend to.
      dilation: the distance between two such positions.

    Returns:
      The mask; with `dilated(2, 0, 3)` the query at position 6 attends to keys 0, 3 and 6.

    Raises:
      ValueError: a side is negative, the dilation less than 1, one of them not an integer, or a
        side times the dilation above 2³¹ − 2.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.dilated(1, 0, 2), 4, 4))
      ■···
      ·■··
      ■·■·
      ·■·■
    """
    checks.check_window("window", (left, right))
    if not isinstance(dilation, int) or dilation < 1:
        raise ValueError(f"dilation must be an int >= 1; got {dilation}")
    if max(left, right) * dilation >= FARTHEST:
        raise ValueError(
            f"window times dilation must be below {FARTHEST}, because positions are int32; got "
            f"{max(left, right)} * {dilation}"
        )
    return _Dilated(left, right, dilation)


def prefix(length: int | np.integer | Int[Array, "..."]) -> Mask:
    """A query may attend to the first `length` keys, to its own position, and to those before it.

    Raffel et al., "Exploring the Limits of Transfer Learning" (2019), figure 4 on the right,
    https://arxiv.org/abs/1910.10683: a language model with full attention to its input.

      (key_position < length) | (key_position <= query_position)

    Args:
      length: the length of the prefix, in positions; an array may be traced or mapped.

    Returns:
      The mask, which is `key_padding(length) | causal()`.

    Raises:
      TypeError: the length is not an integer.
      ValueError: the length is negative, or above 2³¹ − 1.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.prefix(2), 4, 4))
      ■■··
      ■■··
      ■■■·
      ■■■■
    """
    return key_padding(length) | causal()


def key_padding(length: int | np.integer | Int[Array, "..."]) -> Mask:
    """Every query may attend to the first `length` keys: the others are padding.

    Bahdanau et al. (2014) mask padded sources in this way in their appendix B.2,
    https://arxiv.org/abs/1409.0473.

      key_position < length

    Args:
      length: how many keys are real; an array may be traced or mapped.

    Returns:
      The mask. It depends on keys alone, so T and S may differ without positions.

    Raises:
      TypeError: the length is not an integer.
      ValueError: the length is negative, or above 2³¹ − 1.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.key_padding(3), 2, 4))
      ■■■·
      ■■■·
    """
    if not jnp.issubdtype(jnp.result_type(length), jnp.integer):
        raise TypeError(f"length must be an integer; got {jnp.result_type(length)} {length}")
    if isinstance(length, int | np.integer):
        if length < 0:
            raise ValueError(f"length must be >= 0; got {length}")
        if length > FARTHEST:
            raise ValueError(f"length must be at most {FARTHEST}; got {length}")
        return _KeyPadding(int(length))
    return _KeyPadding(to_int32("length", length))


def _distances(grid: Grid) -> tuple[Int[Array, "I J"], Int[Array, "I J"]]:
    """Returns the least and greatest distance from a query to a key in each tile."""
    (first_query, last_query), (first_key, last_key) = grid.query_bounds, grid.key_bounds
    return distance(last_query, first_key), distance(first_query, last_key)
