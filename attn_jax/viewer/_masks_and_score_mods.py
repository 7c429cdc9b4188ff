"""Masks as arrays, masks and score mods split into one for each head, and query positions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax import masks, score_mods
from attn_jax._base.leading import lead
from attn_jax._base.tables import is_table
from attn_jax.viewer._arrays import as_heads, check_sizes


def one_per_layer(name: str, rule: Any, L: int) -> list[Any]:
    """A list with one mask or score mod for each layer: the given list, or the given one repeated.

    Raises:
      ValueError: the list does not have L entries.
    """
    if not isinstance(rule, list | tuple):
        return [rule] * L
    if len(rule) != L:
        raise ValueError(
            f"{name} lists {len(rule)} entries for L={L} layers; pass one for each layer"
        )
    return list(rule)


def one_per_head(name: str, rule: Any, N: int) -> list[Any]:
    """A mask or score mod split into one for each head, or a list of one that all heads share.

    The library's masks and score mods hold arrays, which may have a leading head axis.
    """
    if not dataclasses.is_dataclass(rule):
        return [rule]
    rule = jax.tree.map(jnp.asarray, rule)
    with_head_axis = lead(name, rule, (), N, 1)
    count = max((leaf.shape[0] for leaf in jax.tree.leaves(with_head_axis)), default=1)

    def of_head(head: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[head % leaf.shape[0], 0], with_head_axis)

    return [of_head(head) for head in range(count)]


def mask_arrays(
    mask: Any, sizes: tuple[int, int, int, int], query_position: np.ndarray
) -> np.ndarray | None:
    """The mask as an array [1|L 1|N T S], from arrays or functions of positions; None for no mask.

    Raises:
      ValueError: an array does not broadcast to [L N T S], or a list does not have L entries.
      TypeError: an array is not boolean.
    """
    L, N, T, S = sizes
    if mask is None:
        return None
    is_listed = isinstance(mask, list | tuple)
    layers = one_per_layer("mask", mask, L) if is_listed else [mask]
    sizes = (1 if is_listed else L, N, T, S)
    arrays = [_mask_array(one, sizes, query_position) for one in layers]
    heads = max(one.shape[1] for one in arrays)
    return np.concatenate([np.broadcast_to(one, (len(one), heads, T, S)) for one in arrays])


def _mask_array(
    mask: Any, sizes: tuple[int, int, int, int], query_position: np.ndarray
) -> np.ndarray:
    _, N, T, S = sizes
    if mask is None:
        return np.ones((1, 1, T, S), bool)
    if callable(mask):
        heads = one_per_head("mask", mask, N)
        return np.stack([_on_pairs(head, query_position, S) for head in heads])[None]
    array = as_heads("mask", mask)
    if array.dtype != np.bool_:
        raise TypeError(
            f"mask must be bool (True = may attend) or a function of positions; got {array.dtype}; "
            f"pass an additive mask as bias= of from_weights, or add it in score_mod="
        )
    check_sizes("mask", array, sizes, "query and key")
    return np.broadcast_to(array, (*array.shape[:2], T, S))


def _on_pairs(rule: Callable, query_position: np.ndarray, S: int) -> np.ndarray:
    pairs = jax.vmap(jax.vmap(rule, (None, 0)), (0, None))
    queries, keys = jnp.asarray(query_position, jnp.int32), jnp.arange(S, dtype=jnp.int32)
    return np.asarray(pairs(queries, keys), bool)


def query_positions(given: Any, mask: Any, score_mod: Any, T: int, S: int) -> np.ndarray:
    """The position of each query, [T]: as given, or 0 to T - 1.

    Raises:
      ValueError: T ≠ S, a mask or score mod uses positions, and none are given; or there are not T.
    """
    rules = [one for one in _listed(mask) if callable(one)]
    mods = [one for one in _listed(score_mod) if one is not None]
    compares = any(map(masks.is_aligned, rules)) or any(map(score_mods.is_aligned, mods))
    looks_up = any(map(is_table, jax.tree.leaves((rules, mods), is_leaf=is_table)))
    if given is None and T != S and (compares or looks_up):
        raise ValueError(
            f"query_position is needed: mask or score_mod uses positions, and T={T} queries can be "
            f"aligned with S={S} keys in more than one way; for queries at the end pass "
            f"query_position=range(S - T, S)"
        )
    positions = np.arange(T) if given is None else np.asarray([int(i) for i in given])
    if len(positions) != T:
        raise ValueError(
            f"query_position has {len(positions)} entries, query has T={T}; pass one for each query"
        )
    return positions


def _listed(rule: Any) -> list[Any]:
    return list(rule) if isinstance(rule, list | tuple) else [rule]
