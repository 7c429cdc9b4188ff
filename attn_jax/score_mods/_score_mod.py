"""The base class of score mods: functions of a logit and two positions, chained with `>>`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from attn_jax._base import concrete, notebook, tables
from attn_jax._base.describe import is_deleted
from attn_jax._base.hoist import Hoisted
from attn_jax._base.leading import core_ranks
from attn_jax._base.value import Rule, describe_part
from attn_jax.masks import Position
from attn_jax.masks._as_pytree import POSITION, hoist_checked, is_node

LOGITS, DISTANCES = (-10.0, 0.0, 1.0, 10.0, 100.0), (0, 1, 2, 4, 8, 16)  # that a notebook shows
NOT_COMPUTED = "Examples are computed outside of jit, for one head, from positions alone."

type Logit = Float[Array, ""]
type ScoreModFunction = Callable[[Logit, Position, Position], Logit]
"""A function of a logit, its query position and its key position that returns a new logit."""


class ScoreMod(Rule):
    """The base class of score mods: callable on a logit and two positions; `a >> b` is b after a.

    Source: the `score_mod` of FlexAttention (Dong et al. 2024, https://arxiv.org/abs/2412.05496,
    section 3).

    Cost:
      O(1) for one pair of positions.

    Example:
      >>> mod = attn_jax.score_mods.alibi(0.5) >> attn_jax.score_mods.soft_cap(4.0)
      >>> print(mod)
      (alibi(slope=0.5) >> soft_cap(cap=4.0))
      >>> round(float(mod(jnp.array(3.0), jnp.array(7), jnp.array(3))), 4)   # 4 tanh((3 - 2) / 4)
      0.9797
    """

    no_truth = (
        "a score mod has no truth value: write a >> b for b after a, and `score_mod is None` to "
        "test whether there is one"
    )

    @property
    def aligned(self) -> bool:
        """Whether the score mod depends on positions, so that their alignment matters."""
        return True

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        if not _is_computable(self):
            return notebook.sentence(repr(self), NOT_COMPUTED)
        logit, steps = jnp.array(LOGITS), jnp.array(DISTANCES)
        query = jnp.full_like(steps, max(DISTANCES))
        across = jax.vmap(self, in_axes=(0, None, None))
        results = jax.vmap(across, in_axes=(None, 0, 0))(logit, query, query - steps)
        if isinstance(results, jax.core.Tracer) or results.ndim != 2:
            return notebook.sentence(repr(self), NOT_COMPUTED)
        rows = zip(DISTANCES, results.tolist(), strict=True)
        shown = ((step, *(f"{x:.4g}" for x in row)) for step, row in rows)
        header = ("keys before the query", *(f"{x:g} becomes" for x in LOGITS))
        return notebook.table(repr(self), shown, header)

    def __rshift__(self, then: ScoreModFunction) -> "ScoreMod":
        return _chain(self, then)

    def __rrshift__(self, first: ScoreModFunction) -> "ScoreMod":
        return _chain(first, self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Chain(ScoreMod):
    """Score mods applied one after another."""

    parts: tuple[Any, ...]

    @property
    def aligned(self) -> bool:
        return any(is_aligned(part) for part in self.parts)

    def __call__(
        self, logit: Logit, query_position: Position, key_position: Position
    ) -> Float[Array, ""]:
        for part in self.parts:
            logit = part(logit, query_position, key_position)
        return logit

    def __repr__(self) -> str:
        return f"({' >> '.join(describe_part(part) for part in self.parts)})"


def is_aligned(score_mod: ScoreModFunction) -> bool:
    """Whether a score mod depends on positions, so that their alignment matters.

    See `masks.is_aligned`.

    Args:
      score_mod: one of this module, or any callable `(logit, query_position, key_position) ->
        logit`.

    Returns:
      `score_mod.aligned` for a score mod of this module; True for any other callable, which might
      depend on positions.

    Cost:
      O(1).

    Example:
      >>> aligned = attn_jax.score_mods.is_aligned
      >>> aligned(attn_jax.score_mods.soft_cap(2.0)), aligned(lambda logit, i, j: logit / 2)
      (False, True)
    """
    return score_mod.aligned if isinstance(score_mod, ScoreMod) else True


def as_pytree(score_mod: ScoreModFunction, dtype: DTypeLike) -> ScoreModFunction:
    """Turns a score mod into an equal one that is a pytree of arrays, and so an argument of `jit`.

    As FlexAttention compiles a score function (Dong et al. 2024, https://arxiv.org/abs/2412.05496,
    section 3): a plain callable is traced once, the arrays that it captured become leaves with
    gradients, and numbers become arrays.

    Args:
      score_mod: one of this module, or any callable `(logit, query_position, key_position) ->
        logit` on scalars.
      dtype: dtype of the logits, and of the arrays that replace plain numbers.

    Returns:
      A callable of a logit and two positions. Results for two functions of equal code have equal
      tree structures, even if the functions were two lambdas.

    Raises:
      TypeError: the score mod is not callable, or does not return a scalar of the logit's dtype.

    Cost:
      One trace of each plain callable.

    Example:
      >>> slope = jnp.float32(0.5)
      >>> def falls(logit, i, j):
      ...     return logit - slope * (i - j)
      >>> jax.tree.leaves(attn_jax.score_mods.as_pytree(falls, "float32"))
      [Array(0.5, dtype=float32)]
    """
    if isinstance(score_mod, Hoisted):
        return score_mod
    if isinstance(score_mod, Chain):
        return Chain(tuple(as_pytree(part, dtype) for part in score_mod.parts))
    if isinstance(score_mod, ScoreMod) and is_node(score_mod):
        return jax.tree.map(lambda leaf: _as_array(leaf, dtype), score_mod)
    logit = jax.ShapeDtypeStruct((), dtype)
    return hoist_checked("score_mod", score_mod, dtype, logit, POSITION, POSITION)


def _is_computable(score_mod: ScoreMod) -> bool:
    """Whether its arrays have values of one head (no tracers), and none is looked up by row."""
    if any(map(tables.is_table, jax.tree.leaves(score_mod, is_leaf=tables.is_table))):
        return False

    def is_of_one_head(leaf: Any, rank: int) -> bool:
        has_values = not isinstance(leaf, jax.core.Tracer) and not is_deleted(leaf)
        return has_values and (rank < 0 or jnp.ndim(leaf) == rank)

    return all(jax.tree.leaves(jax.tree.map(is_of_one_head, score_mod, core_ranks(score_mod))))


def _chain(first: ScoreModFunction, then: ScoreModFunction) -> Chain:
    for part in (first, then):
        if not callable(part):
            raise TypeError(
                f"a score mod chains with score mods and callables (logit, query_position, "
                f"key_position) -> logit; got {type(part).__name__}"
            )
    before = first.parts if isinstance(first, Chain) else (first,)
    after = then.parts if isinstance(then, Chain) else (then,)
    return Chain((*before, *after))


def _as_array(leaf: Any, dtype: DTypeLike) -> Array:
    if isinstance(leaf, jax.Array):
        return leaf
    is_table = isinstance(leaf, np.ndarray) and not jnp.issubdtype(leaf.dtype, jnp.floating)
    return concrete.placed(np.asarray(leaf, jnp.result_type(leaf) if is_table else dtype))
