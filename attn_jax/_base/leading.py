"""Batch and head axes of trees of arrays: each of full size, or 1 for what all of them share."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from attn_jax._base.hoist import Hoisted
from attn_jax._base.tables import Table


def core_ranks(node: Any) -> Any:
    """The same tree with the number of axes that one head needs in each array's place.

    Tables know theirs; a field of a dataclass says so in its metadata, and is a scalar where it
    says nothing; what a function captured belongs to all heads alike, whatever its rank: -1.
    """
    if isinstance(node, Table):
        return dataclasses.replace(node, values=node.core_rank)
    if isinstance(node, Hoisted):
        return dataclasses.replace(node, captured=tuple(-1 for _ in node.captured))
    if isinstance(node, tuple):
        return tuple(map(core_ranks, node))
    if not dataclasses.is_dataclass(node):
        return jax.tree.map(lambda _: -1, node)
    ranks = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if field.metadata.get("static"):
            continue
        is_array = isinstance(value, Array)
        ranks[field.name] = field.metadata.get("core_rank", 0) if is_array else core_ranks(value)
    return dataclasses.replace(node, **ranks)


def lead(name: str, tree: Any, batch: tuple[int, ...], K: int, G: int) -> Any:
    """Arrays [*B|1 N|1 …] as [*B|1 K|1 G|1 …], and those without such axes with ones for them.

    Raises:
      ValueError: an array has other axes before those of one head.
    """

    def leading(array: Array, rank: int) -> Array:
        own = array.ndim if rank < 0 else rank
        core = array.shape[array.ndim - own :]
        outer = array.shape[: array.ndim - own]
        if not outer:
            return array.reshape((1,) * (len(batch) + 2) + core)
        full = (*batch, K * G)
        fits = len(outer) == len(full) and all(
            got in (1, size) for got, size in zip(outer, full, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{name} holds an array of shape {list(array.shape)}: before the {own} axes of one "
                f"head it may have none, or batch and heads {list(full)}, each of full size or 1"
            )
        heads = (1, 1) if outer[-1] == 1 else (K, G)
        return array.reshape(*outer[:-1], *heads, *core)

    return jax.tree.map(leading, tree, core_ranks(tree))
