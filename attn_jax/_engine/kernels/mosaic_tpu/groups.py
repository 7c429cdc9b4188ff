"""Few queries of many heads that share keys, as many queries of one head: a decoding step.

Each step of decoding has one query for each head, and query heads in a group share their keys
(Ainslie et al., "GQA" (2023), https://arxiv.org/abs/2305.13245). Their queries then fill one tile
together, so that the kernel reads the keys once for the group instead of once for each head.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base import tables
from attn_jax._base.axes import Axes
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Operands, Pairs
from attn_jax._engine.kernels.mosaic_tpu.arrays import sizes_of
from attn_jax._engine.kernels.mosaic_tpu.folding import folded

MOST_QUERIES = 128  # the lanes of a tile, which a smaller tile would leave empty


class Merged(NamedTuple):
    """A call in which the queries of a group are those of one head, and the axes of its arrays."""

    call: Call
    axes: tuple[Pairs, Operands]
    sizes: tuple[int, ...]
    level: int | None  # the vmapped axis that was merged

    def separated(self, rows: Array, sizes: tuple[int, ...]) -> Array:
        """Rows [*L G·T W] with the merged axis, one of `sizes`, back among the leading axes."""
        if self.level is None:
            return rows
        *lead, length, width = rows.shape
        group = sizes[self.level]
        rows = rows.reshape(*lead, group, length // group, width)
        return jnp.moveaxis(rows, len(lead), len(lead) - self.level)


def merged(call: Call, axes: tuple[Pairs, Operands], sizes: tuple[int, ...]) -> Merged:
    """The call with a group's queries in one head, where all else is shared by the group."""
    T, _ = sizes_of(call.operands, axes[1])
    level = next((n for n in range(len(sizes)) if _is_group(call, axes, sizes, n, T)), None)
    if level is None:
        return Merged(call, axes, sizes, None)
    (pairs, operands), (pair_axes, own) = call, axes
    rows = folded(operands.query.values, own.query.values)
    rows = jnp.moveaxis(rows, len(sizes) - 1 - level, len(sizes) - 1)
    rows = rows.reshape(*rows.shape[:-3], -1, rows.shape[-1])
    pair_axes, own = jax.tree.map(lambda one: one.without(level), (pair_axes, own))
    leading = Axes(tuple(reversed(range(len(sizes) - 1))))
    at = pair_axes.query_position.values
    position = _repeated(pairs.query_position, at, sizes[level])
    return Merged(
        Call(
            dataclasses.replace(pairs, query_position=position),
            dataclasses.replace(operands, query=Table(rows, "query")),
        ),
        (pair_axes, dataclasses.replace(own, query=Table(leading, "query"))),
        sizes[:level] + sizes[level + 1 :],
        level,
    )


def _is_group(
    call: Call, axes: tuple[Pairs, Operands], sizes: tuple[int, ...], level: int, T: int
) -> bool:
    """Whether queries alone are mapped by a vmapped axis, few enough for one tile."""
    (pairs, operands), (pair_axes, own) = call, axes
    rules = pairs.mask, operands.score_mod
    may_use_distances = pairs.in_order and any(rule is not None for rule in rules)
    others = pair_axes, dataclasses.replace(own, query=None)
    return (
        sizes[level] * T <= MOST_QUERIES
        and own.query.values.at[level] is not None
        and all(one.at[level] is None for one in jax.tree.leaves(others))
        and pairs.lists is None
        and operands.dropout is None
        and not may_use_distances
        and not any(map(_has_queries, jax.tree.leaves(rules, is_leaf=tables.is_table)))
    )


def _has_queries(node: Any) -> bool:
    return tables.is_table(node) and node.over in ("query", "pair")


def _repeated(table: Table, axes: Axes, group: int) -> Table:
    """The entries of all queries, once for each member of a group."""
    (axis,) = axes.core(table.values.ndim)
    return dataclasses.replace(table, values=jnp.concatenate([table.values] * group, axis=axis))
