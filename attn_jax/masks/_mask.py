"""The base class of masks: a function of two positions that composes and classifies tiles."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from attn_jax._base import notebook, tables
from attn_jax._base.describe import is_deleted
from attn_jax._base.grid import Grid, Kinds
from attn_jax._base.hoist import Hoisted
from attn_jax._base.value import Rule, describe_part
from attn_jax.masks._evaluate import MaskFunction, Position, as_text, evaluate

PRINTED, SHOWN = 8, 24  # positions that `print`, or a notebook, draws
NOT_DRAWN = "A mask is drawn outside of jit, for one batch example and head."
type Operator = Literal["and", "or", "not"]
_FUNCTIONS: dict[Operator, Callable[..., Array]] = {
    "and": jnp.logical_and,
    "or": jnp.logical_or,
    "not": jnp.logical_not,
}
_SYMBOLS: dict[Operator, str] = {"and": "&", "or": "|"}


class Mask(Rule):
    """The base class of masks: functions of two positions, composable with `&`, `|` and `~`.

    `mask(query_position, key_position)` is True where the query may attend to the key.

    Two masks are equal if their classes and fields are, arrays by dtype, shape and bits. A mask
    without arrays has a hash, so it can be a static argument of `jit`; one with arrays is an
    ordinary argument.

    Source: FlexAttention combines mask functions in the same way (Dong et al. 2024,
    https://arxiv.org/abs/2412.05496, section 3).

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> rule = attn_jax.masks.causal() & ~attn_jax.masks.key_padding(2)
      >>> print(rule)
      (causal() & ~key_padding(length=2))
      ········
      ········
      ··■·····
      ··■■····
      ··■■■···
      ··■■■■··
      ··■■■■■·
      ··■■■■■■
    """

    no_truth = (
        "a mask has no truth value: write a & b, a | b and ~a instead of `and`, `or` and `not`, "
        "and `mask is None` to test whether there is one"
    )

    @property
    def aligned(self) -> bool:
        """Whether the mask compares query and key positions, so that it needs both."""
        return False

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        raise NotImplementedError

    def tile_kinds(self, grid: Grid) -> Kinds:
        """Classifies tiles: which have unmasked pairs, and which have no masked ones.

        Arrays that the mask looks up must be in the order of the call.
        """
        return grid.evaluate(self)

    def __and__(self, other: MaskFunction) -> "Mask":
        return _combine("and", self, other)

    def __rand__(self, other: MaskFunction) -> "Mask":
        return _combine("and", other, self)

    def __or__(self, other: MaskFunction) -> "Mask":
        return _combine("or", self, other)

    def __ror__(self, other: MaskFunction) -> "Mask":
        return _combine("or", other, self)

    def __invert__(self) -> "Mask":
        return _combine("not", self)

    def __str__(self) -> str:
        drawn = _drawn(self, PRINTED, PRINTED)
        return repr(self) if drawn is None else f"{self!r}\n{drawn}"

    def _repr_html_(self) -> str:
        T, S = _shown_sizes(self)
        drawn = _drawn(self, T, S)
        if drawn is None:
            return notebook.sentence(repr(self), NOT_DRAWN)
        legend = f"■ unmasked, · masked; rows are queries 0 to {T - 1}, columns keys 0 to {S - 1}"
        return notebook.drawing(repr(self), drawn.splitlines(), legend)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Combined(Mask):
    """Masks joined by a logical operator; it is stored by name, so that copies are equal."""

    operator: Operator = dataclasses.field(metadata={"static": True})
    parts: tuple[Any, ...]

    @property
    def aligned(self) -> bool:
        return any(is_aligned(part) for part in self.parts)

    def __call__(self, query_position: Position, key_position: Position) -> Bool[Array, ""]:
        results = (part(query_position, key_position) for part in self.parts)
        return _FUNCTIONS[self.operator](*results)

    def tile_kinds(self, grid: Grid) -> Kinds:
        """Combines the tile kinds of the parts; with `&`, `some` may be True of an empty tile."""
        parts = [
            part.tile_kinds(grid) if isinstance(part, Mask) else grid.evaluate(part)
            for part in self.parts
        ]
        if self.operator == "not":
            ((some, every),) = parts
            return Kinds(~every, ~some)
        joined = _FUNCTIONS[self.operator]
        return Kinds(*(joined(*flags) for flags in zip(*parts, strict=True)))

    def __repr__(self) -> str:
        parts = [describe_part(part) for part in self.parts]
        if self.operator == "not":
            return f"~{parts[0]}"
        return f"({f' {_SYMBOLS[self.operator]} '.join(parts)})"


def is_aligned(mask: MaskFunction) -> bool:
    """Whether a mask compares query and key positions, so that their alignment matters.

    If so, `attend` requires positions where T ≠ S: shapes alone do not determine which key has the
    position of a query (flash-attention changed its convention in version 2.1).

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool`.

    Returns:
      `mask.aligned` for a mask of this module; True for any other callable, which might compare.

    Cost:
      O(1).

    Example:
      >>> aligned = attn_jax.masks.is_aligned
      >>> aligned(attn_jax.masks.key_padding(3)), aligned(lambda i, j: j < 3)
      (False, True)
    """
    return mask.aligned if isinstance(mask, Mask) else True


def _combine(operator: Operator, *parts: MaskFunction) -> Combined:
    for part in parts:
        if not callable(part):
            raise TypeError(
                f"a mask combines with masks and callables (query_position, key_position) -> bool; "
                f"got {type(part).__name__}; wrap an array in masks.from_array"
            )
    return Combined(operator, parts)


def _drawn(mask: Mask, T: int, S: int) -> str | None:
    """Draws the pairs of the first positions; None if the mask has no values for one head."""
    if not _is_drawable(mask):
        return None
    queries, keys = (jnp.arange(count, dtype=jnp.int32) for count in (T, S))
    unmasked = evaluate(mask, queries, keys, query_row=queries, key_row=keys)
    # A plain callable in a combination may have captured a traced array.
    return None if isinstance(unmasked, jax.core.Tracer) else as_text(unmasked)


def _shown_sizes(mask: Mask) -> tuple[int, int]:
    """How many queries and keys a notebook shows: those of the arrays that the mask looks up."""
    nodes = jax.tree.leaves(mask, is_leaf=tables.is_table)
    found = [node for node in nodes if tables.is_table(node) and jnp.ndim(node.values) > 0]
    T = max((node.values.shape[0] for node in found if node.over != "key"), default=1)
    S = max((node.values.shape[-1] for node in found if node.over != "query"), default=1)
    T, S = (T if T > 1 else S), (S if S > 1 else T)  # an axis of size 1 is shared
    return (min(SHOWN, T), min(SHOWN, S)) if T > 1 else (SHOWN, SHOWN)


def _is_drawable(mask: Mask) -> bool:
    """Whether all arrays have values (no tracers), in row order, for one head and example."""
    if any(map(is_deleted, jax.tree.leaves(mask))):
        return False
    nodes = jax.tree.leaves(mask, is_leaf=lambda n: isinstance(n, tables.Table | Hoisted))
    for node in nodes:
        is_table = isinstance(node, tables.Table)
        values = node.values if is_table else node
        if isinstance(values, jax.core.Tracer) or (is_table and node.ordered):
            return False
        if np.ndim(values) > (node.core_rank if is_table else 0):
            return False
    return True
