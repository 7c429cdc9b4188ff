"""Turns any mask into a pytree of arrays, so that masks of equal code compile once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from attn_jax._base import concrete, tables
from attn_jax._base.hoist import Hoisted, hoist
from attn_jax.masks._evaluate import MaskFunction
from attn_jax.masks._mask import Combined, Mask

POSITION = jax.ShapeDtypeStruct((), jnp.int32)


def as_pytree(mask: MaskFunction) -> MaskFunction:
    """Turns a mask into an equal one that is a pytree of arrays, and so an argument of `jit`.

    As FlexAttention compiles a mask function (Dong et al. 2024, https://arxiv.org/abs/2412.05496,
    section 3): a plain callable is traced once, the arrays that it captured become leaves, and
    numbers become int32 arrays.

    Args:
      mask: a mask of this module, or any callable `(query_position, key_position) -> bool` on
        scalars.

    Returns:
      A callable of two positions. Results for two masks of equal code have equal tree structures,
      even if the masks were two lambdas.

    Raises:
      TypeError: the mask is not callable, or does not return a boolean scalar.

    Cost:
      One trace of each plain callable.

    Example:
      >>> def recent(steps):
      ...     return attn_jax.masks.as_pytree(lambda i, j: i - j < steps)
      >>> jax.tree.structure(recent(jnp.int32(2))) == jax.tree.structure(recent(jnp.int32(5)))
      True
      >>> jax.tree.leaves(recent(jnp.int32(5)))
      [Array(5, dtype=int32)]
    """
    if isinstance(mask, Hoisted | tables.Table):
        return mask
    if isinstance(mask, Combined):
        return dataclasses.replace(mask, parts=tuple(map(as_pytree, mask.parts)))
    if isinstance(mask, Mask) and is_node(mask):
        return jax.tree.map(_as_array, mask)
    return hoist_checked("mask", mask, jnp.bool_, POSITION, POSITION)


def is_node(tree: Any) -> bool:
    """Whether an object is a pytree with children, and not a leaf."""
    return not jax.tree_util.all_leaves([tree])


def hoist_checked(
    name: str, function: Callable, dtype: DTypeLike, *arguments: jax.ShapeDtypeStruct
) -> Hoisted:
    """Calls `hoist` on a function, and checks that it returns one scalar of a dtype.

    Raises:
      TypeError: the function is not callable, or returns something else.
    """
    if not callable(function):
        raise TypeError(f"{name} must be callable on scalars; got {type(function).__name__}")

    @functools.wraps(function)
    def checked(*scalars: Array) -> Array:
        result = function(*scalars)
        if _is_wider(result, dtype):
            return jnp.asarray(result, dtype)
        got = [
            f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(result)
        ]
        if got != [f"{jnp.dtype(dtype)}[]"]:
            raise TypeError(
                f"{name} must return one scalar of dtype {jnp.dtype(dtype)}, as it is called on "
                f"scalars; got {', '.join(got) or result}"
            )
        return result

    return hoist(checked, *arguments)


def _is_wider(result: Any, dtype: DTypeLike) -> bool:
    """Whether a result is a wider float than the dtype, as Python and NumPy numbers are in x64."""
    is_number = isinstance(result, float | np.floating | Array) and jnp.ndim(result) == 0
    return (
        is_number
        and jnp.issubdtype(jnp.result_type(result), jnp.floating)
        and jnp.result_type(result).itemsize > jnp.dtype(dtype).itemsize > 1
    )


def _as_array(leaf: Any) -> Array:
    """Returns integers as int32 arrays, and other leaves in their own dtype."""
    if isinstance(leaf, jax.Array):
        return leaf
    is_integer = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
    return concrete.placed(np.asarray(leaf, jnp.int32 if is_integer else jnp.result_type(leaf)))
