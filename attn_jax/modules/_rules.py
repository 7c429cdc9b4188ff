"""Stores masks and score mods as attributes of a layer, and combines two masks."""

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
    """An array in a mask or score mod of a layer: state of the layer that is not trained."""


_ADVICE = {
    "mask": "pass it to the call, or wrap an array in attn_jax.masks.from_array",
    "score_mod": "wrap an array in attn_jax.score_mods.dense_bias",
}


def wrap(name: str, rule: Any) -> Any:
    """Wraps a mask or score mod as an attribute: its arrays become `Constant`, functions static.

    Raises:
      TypeError: it is an array, or a `BlockMask`, which is for calls of one shape only.
    """
    if rule is not None and not callable(rule):
        raise TypeError(
            f"{name} of a layer must be a function of positions, such as those of "
            f"attn_jax.{name}s; got {type(rule).__name__}: {_ADVICE[name]}"
        )
    if not is_node(rule):
        return rule
    return nnx.data(jax.tree.map(_as_constant, rule, is_leaf=_is_opaque))


def unwrap(rule: Any) -> Any:
    """Returns the mask or score mod with the value of each variable in it."""
    return jax.tree.map(_value, rule, is_leaf=_is_opaque)


def combined(
    rule: masks.MaskFunction | None,
    mask: Bool[Array, "..."] | masks.MaskFunction | BlockMask | None,
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
) -> Any:
    """Combines the mask of a layer with the mask of a call: a pair must be unmasked in both.

    Raises:
      ValueError: the layer has a mask and the call has a `BlockMask`; or an array is not of shape
        [*B N T S], each axis full or 1.
      TypeError: the array is not boolean.
    """
    if mask is None:
        return rule
    if not callable(mask) and not isinstance(mask, BlockMask):
        _check_array(mask, query, key)
    if rule is None:
        return mask
    if isinstance(mask, BlockMask):
        raise ValueError(
            "mask is a BlockMask, but the layer has a mask of its own: use a layer without a mask, "
            "and make the BlockMask of both, attn_jax.block_mask(rule & layer.mask, T, S)"
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
