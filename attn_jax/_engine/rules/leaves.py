"""The arrays of a rule: what each has an entry for, and its value for one pair."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from attn_jax._base.axes import Axes
from attn_jax._base.tables import Over, is_table


class Leaf(NamedTuple):
    """One array of a rule; one of a table has one entry for each query, key or pair.

    `type` is that of one head, and for a table that of one pair. `squeezed` are the axes of size 1
    of a table of pairs, which all pairs share.
    """

    label: Over | None
    type: jax.ShapeDtypeStruct
    axes: Axes
    squeezed: tuple[int, ...] = ()


def leaves_of(rule: Any, axes: Any) -> list[Leaf]:
    """The arrays of a rule, in the order of its leaves."""
    nodes = jax.tree.leaves(rule, is_leaf=is_table)
    return [
        _leaf(node, own)
        for node, own in zip(nodes, jax.tree.leaves(axes, is_leaf=is_table), strict=True)
    ]


def with_values(rule: Any) -> list[Array]:
    """The arrays themselves, in the same order."""
    return jax.tree.leaves(rule)


def of_pair(rule: Any, values: Sequence[Array]) -> Callable:
    """The rule with other arrays; a table of one entry gives it to every pair."""
    nodes, tree = jax.tree.flatten(rule, is_leaf=is_table)
    return tree.unflatten(
        dataclasses.replace(node, values=value) if is_table(node) else value
        for node, value in zip(nodes, values, strict=True)
    )


def _leaf(node: Any, axes: Any) -> Leaf:
    if not is_table(node):
        return Leaf(None, jax.ShapeDtypeStruct(axes.core_shape(node.shape), node.dtype), axes)
    entry = jax.ShapeDtypeStruct((), node.values.dtype)
    if node.over != "pair":
        return Leaf(node.over, entry, axes.values)
    T, S = axes.values.core_shape(node.values.shape)
    squeezed = tuple(axis for axis, size in enumerate((T, S)) if size == 1)
    sides: dict[tuple[int, ...], Over] = {(): "pair", (0,): "key", (1,): "query"}
    return Leaf(sides.get(squeezed), entry, axes.values, squeezed)
