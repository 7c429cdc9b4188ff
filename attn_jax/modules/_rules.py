"""Masks and score mods as attributes of a layer, and two masks as one."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from attn_jax import masks
from attn_jax._base import checks
from attn_jax._base.tables import Table
from attn_jax._block_mask import BlockMask
from attn_jax._engine.call import TableMask
from attn_jax._heads import batch_of
from attn_jax.masks._as_pytree import is_node
from attn_jax.masks._mask import Combined


class Constant(nnx.Variable):
    """An array that a mask or score mod of a layer holds: state, but no parameter."""


_ADVICE = {
    "mask": "pass it to the call, or wrap an array in attn_jax.masks.from_array",
    "score_mod": "wrap an array in attn_jax.score_mods.dense_bias",
}


def kept(name: str, rule: Any) -> Any:
    """A rule as an attribute: its arrays are constants of the layer, a function is static.

    Raises:
      TypeError: the rule is an array, or a `BlockMask`, which knows one shape of call alone.
    """
    if rule is not None and not callable(rule):
        raise TypeError(
            f"{name} of a layer must be a rule on positions, as those of attn_jax.{name}s; got "
            f"{type(rule).__name__}: {_ADVICE[name]}"
        )
    if not is_node(rule):
        return rule
    return nnx.data(jax.tree.map(_as_constant, rule, is_leaf=_is_opaque))


def read(rule: Any) -> Any:
    """The rule with the value of each parameter that it holds."""
    return jax.tree.map(_value, rule, is_leaf=_is_opaque)


def both(
    rule: masks.MaskFunction | None,
    mask: Bool[Array, "..."] | masks.MaskFunction | BlockMask | None,
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
) -> Any:
    """A layer's rule and the mask of one call as one mask; both must allow a pair.

    Raises:
      ValueError: the mask is a `BlockMask` beside a rule; or its shape is not [*B N T S], each
        axis full or 1.
      TypeError: it is an array that is not boolean.
    """
    if mask is None:
        return rule
    if not callable(mask) and not isinstance(mask, BlockMask):
        _check_array(mask, query, key)
    if rule is None:
        return mask
    if isinstance(mask, BlockMask):
        raise ValueError(
            "mask is a BlockMask, and the layer has a mask of its own: make it of both together, "
            "attn_jax.block_mask(rule & layer.mask, T, S), for a layer without one"
        )
    if not callable(mask):
        mask = TableMask(Table(mask, "pair", ordered=True))
    return Combined("and", (rule, mask))


def _check_array(mask: Any, query: Array, key: Array) -> None:
    additive = "score_mod=attn_jax.score_mods.dense_bias(mask) to the layer itself"
    checks.check_boolean("mask", mask, additive=additive)
    B, (T, N) = batch_of(query, key), query.shape[-3:-1]
    axes = " ".join(["B"] * len(B) + ["N", "T", "S"])
    checks.check_broadcastable("mask", mask, (*B, N, T, key.shape[-3]), axes)


def _is_opaque(node: Any) -> bool:
    return isinstance(node, nnx.Variable | nnx.Module)


def _as_constant(leaf: Any) -> Any:
    return Constant(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf


def _value(node: Any) -> Any:
    return node[...] if isinstance(node, nnx.Variable) else node
