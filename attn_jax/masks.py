"""Who may read whom: rules on positions, composed with `&`, `|` and `~`.

A mask is a function of one query position and one key position; True means the query may read the
key. The ones below are frozen pytrees, so an array inside (a length) is an ordinary leaf: it can be
traced, mapped and sharded. Any Python callable of two positions serves as well.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax import _checks

type Position = Int[Array, ""]
type MaskFunction = Callable[[Position, Position], Bool[Array, ""]]


class Mask:
    """Base of the masks here: callable on positions, and composable.

    Source: the algebra of FlexAttention's mask functions (Dong et al. 2024,
    https://arxiv.org/abs/2412.05496, section 3).

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> rule = attn_jax.masks.causal() & ~attn_jax.masks.key_padding(2)
      >>> [bool(rule(jnp.array(3), jnp.array(j))) for j in range(4)]
      [False, False, True, True]
    """

    @property
    def aligned(self) -> bool:
        """Whether the rule compares query and key positions, so that their alignment matters."""
        return False

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        raise NotImplementedError

    def __and__(self, other: MaskFunction) -> "Mask":
        return _Combined(jnp.logical_and, (self, other))

    def __or__(self, other: MaskFunction) -> "Mask":
        return _Combined(jnp.logical_or, (self, other))

    def __invert__(self) -> "Mask":
        return _Combined(jnp.logical_not, (self,))


def is_aligned(mask: MaskFunction) -> bool:
    """Whether a rule depends on how queries and keys are aligned.

    It decides when `attend` insists on positions: where T ≠ S, "the same position" has no meaning
    that shapes could give (flash-attention changed its own in version 2.1).

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool`.

    Returns:
      What a mask of this module says of itself; True of any other callable, for it may.

    Cost:
      O(1).

    Example:
      >>> aligned = attn_jax.masks.is_aligned
      >>> aligned(attn_jax.masks.key_padding(3)), aligned(lambda i, j: j < 3)
      (False, True)
    """
    return mask.aligned if isinstance(mask, Mask) else True


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Causal(Mask):
    aligned = True

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        return key_position <= query_position


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _SlidingWindow(Mask):
    left: int = dataclasses.field(metadata={"static": True})
    right: int = dataclasses.field(metadata={"static": True})
    aligned = True

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        distance = key_position - query_position
        return (-self.left <= distance) & (distance <= self.right)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _KeyPadding(Mask):
    length: Position | int

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        del query_position
        return key_position < self.length


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Combined(Mask):
    operator: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    parts: tuple[MaskFunction, ...]

    @property
    def aligned(self) -> bool:
        return any(is_aligned(part) for part in self.parts)

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        return self.operator(*(part(query_position, key_position) for part in self.parts))


def causal() -> Mask:
    """A query may read its own position and those before it.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.3,
    https://arxiv.org/abs/1706.03762.

      key_position <= query_position

    Returns:
      The mask. It compares positions, so `attend` asks for them where T ≠ S.

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
    """A query may read itself, `left` positions before it and `right` positions after it.

    Beltagy et al., "Longformer" (2020), section 3.1, https://arxiv.org/abs/2004.05150, whose window
    w is `left = right = w / 2`. Counts the *other* positions, as `local_window_size` of `jax.nn`
    does.

      -left <= key_position - query_position <= right

    Args:
      left: how many positions before the query it may read, in positions.
      right: how many positions after the query it may read, in positions.

    Returns:
      The mask; `sliding_window(2, 0)` lets a query read three keys.

    Raises:
      ValueError: a side is negative or not an integer.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.sliding_window(1, 0), 4, 4))
      ■···
      ■■··
      ·■■·
      ··■■
    """
    _checks.check_window("window", (left, right))
    return _SlidingWindow(left, right)


def key_padding(length: Int[Array, ""] | int) -> Mask:
    """Every query may read the first `length` keys: the rest is padding.

    Bahdanau et al. (2014) mask padded sources so in their appendix B.2,
    https://arxiv.org/abs/1409.0473.

      key_position < length

    Args:
      length: how many keys are real; an array may be traced or mapped.

    Returns:
      The mask. It looks at keys alone, so T and S may differ without positions.

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> print(attn_jax.masks.draw(attn_jax.masks.key_padding(3), 2, 4))
      ■■■·
      ■■■·
    """
    return _KeyPadding(length)


def evaluate(
    mask: MaskFunction, query_position: Int[Array, " T"], key_position: Int[Array, " S"]
) -> Bool[Array, "T S"]:
    """Writes a rule out as a boolean array: one entry for each pair of positions.

    The definition that FlexAttention's dense fallback uses too (https://arxiv.org/abs/2412.05496,
    section 3).

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      query_position: where each query stands in its sequence, in positions.
      key_position: where each key stands, in positions.

    Returns:
      True where the query may read the key.

    Cost:
      O(T S) time and memory: for looking and for the reference backend, not for long sequences.

    Example:
      >>> evaluate = attn_jax.masks.evaluate
      >>> evaluate(attn_jax.masks.causal(), jnp.array([5]), jnp.arange(4, 8)).tolist()
      [[True, True, False, False]]
    """
    over_keys = jax.vmap(mask, in_axes=(None, 0))
    return jax.vmap(over_keys, in_axes=(0, None))(query_position, key_position)


def draw(mask: MaskFunction, T: int, S: int) -> str:
    """Draws a rule for T queries and S keys that both start at position 0: ■ may read, · may not.

    The picture of Figure 2 in Child et al. (2019), https://arxiv.org/abs/1904.10509, in characters.

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.
      T: how many queries, in positions.
      S: how many keys, in positions.

    Returns:
      T lines of S characters: a query a line, a key a column.

    Cost:
      O(T S).

    Example:
      >>> print(attn_jax.masks.draw(lambda i, j: (i + j) % 2 == 0, 2, 5))
      ■·■·■
      ·■·■·
    """
    readable = evaluate(mask, jnp.arange(T), jnp.arange(S))
    return "\n".join("".join("■" if cell else "·" for cell in row) for row in readable.tolist())
