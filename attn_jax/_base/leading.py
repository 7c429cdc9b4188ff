"""Batch and head axes in front of arrays: each of full size, or 1 where it is shared."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from attn_jax._base.hoist import Hoisted
from attn_jax._base.tables import Table


def core_ranks(node: Any) -> Any:
    """The number of axes of one head for each array of a tree, in a tree of the same structure.

    A table has `core_rank`. A field of a dataclass has it in its metadata, and is else a scalar. An
    array that a function captured belongs to all heads, whatever its rank: -1.
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
    """Arrays [*B|1 N|1 …] as [*B|1 K|1 G|1 …]; arrays without such axes get axes of size 1.

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
