"""Masks and score mods of one head, and masks written out."""

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


def one_a_layer(name: str, rule: Any, L: int) -> list[Any]:
    """A rule for each layer: the same, or the ones listed.

    Raises:
      ValueError: the list has another length.
    """
    if not isinstance(rule, list | tuple):
        return [rule] * L
    if len(rule) != L:
        raise ValueError(f"{name} lists {len(rule)} rules for L={L} layers; pass one for each")
    return list(rule)


def of_heads(name: str, rule: Any, N: int) -> list[Any]:
    """The rule of each head: arrays of the library's rules may have an axis of heads in front."""
    if not dataclasses.is_dataclass(rule):
        return [rule]
    rule = jax.tree.map(jnp.asarray, rule)
    led = lead(name, rule, (), N, 1)
    count = max((leaf.shape[0] for leaf in jax.tree.leaves(led)), default=1)

    def of_head(head: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[head % leaf.shape[0], 0], led)

    return [of_head(head) for head in range(count)]


def written_masks(
    mask: Any, sizes: tuple[int, int, int, int], place: np.ndarray
) -> np.ndarray | None:
    """Who may read whom, [1|L 1|N T S], from arrays or rules.

    Raises:
      ValueError: an array has another shape, or a list another length.
      TypeError: an array is not boolean.
    """
    L, N, T, S = sizes
    if mask is None:
        return None
    is_listed = isinstance(mask, list | tuple)
    layers = one_a_layer("mask", mask, L) if is_listed else [mask]
    written = [_written(one, (1 if is_listed else L, N, T, S), place) for one in layers]
    heads = max(one.shape[1] for one in written)
    return np.concatenate([np.broadcast_to(w, (len(w), heads, T, S)) for w in written])


def _written(mask: Any, sizes: tuple[int, int, int, int], place: np.ndarray) -> np.ndarray:
    _, N, T, S = sizes
    if mask is None:
        return np.ones((1, 1, T, S), bool)
    if callable(mask):
        return np.stack([_on_pairs(rule, place, S) for rule in of_heads("mask", mask, N)])[None]
    array = as_heads("mask", mask)
    if array.dtype != np.bool_:
        raise TypeError(
            f"mask must be bool (True = may read) or a rule on positions; got {array.dtype}"
        )
    check_sizes("mask", array, sizes, "query and key")
    return np.broadcast_to(array, (*array.shape[:2], T, S))


def _on_pairs(rule: Callable, place: np.ndarray, S: int) -> np.ndarray:
    pairs = jax.vmap(jax.vmap(rule, (None, 0)), (0, None))
    return np.asarray(pairs(jnp.asarray(place, jnp.int32), jnp.arange(S, dtype=jnp.int32)), bool)


def positions(given: Any, mask: Any, score_mod: Any, T: int, S: int) -> np.ndarray:
    """Where each query stands.

    Raises:
      ValueError: a rule compares positions, and the sizes do not tell them.
    """
    rules = [one for one in _listed(mask) if callable(one)]
    mods = [one for one in _listed(score_mod) if one is not None]
    compares = any(map(masks.is_aligned, rules)) or any(map(score_mods.is_aligned, mods))
    looks_up = any(map(is_table, jax.tree.leaves((rules, mods), is_leaf=is_table)))
    if given is None and T != S and (compares or looks_up):
        raise ValueError(
            f"query_position is needed: a rule compares positions, or looks them up, and T={T} "
            f"queries can be aligned with S={S} keys in more than one way; for queries at the end "
            f"pass query_position=range(S - T, S)"
        )
    place = np.arange(T) if given is None else np.asarray([int(i) for i in given])
    if len(place) != T:
        raise ValueError(f"query_position has {len(place)} entries, query has T={T}")
    return place


def _listed(rule: Any) -> list[Any]:
    return list(rule) if isinstance(rule, list | tuple) else [rule]
