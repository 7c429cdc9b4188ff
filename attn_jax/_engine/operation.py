"""Operations as JAX primitives: what `vmap` does to them, and for which platform they are made."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from attn_jax._base import tables, young_jax
from attn_jax._base.axes import Axes, Layout, in_front, level
from attn_jax._base.grid import TileShape
from attn_jax._base.sharding import types
from attn_jax._engine import tile_shape


class Primitive(young_jax.HiPrim):
    """An operation on trees of arrays; equal to another of the same parameters, trees and types.

    JAX compares the parameters alone, and a tree may hold what an operation does: a mask.
    """

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and _types(self) == _types(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.in_tree))


class Operation(Primitive):
    """An operation on the pairs of a call and other operands, of all heads and examples at once.

    Heads and examples are levels of `vmap`: `layout` tells which axis of each operand and result
    they map, and `sizes` how many there are in each. `vmap` leaves every axis where it is; an
    operand that is not mapped is shared, and never repeated.
    """

    axes: tuple[Axes, ...]
    sizes: tuple[int, ...]

    def __init__(self, in_avals: tuple, **params):
        self.in_avals = in_avals
        self.params = params
        self.__dict__.update(params)
        inputs = jax.tree.unflatten(jax.tree.structure(in_avals), self.axes)
        self.pairs, self.operands = jax.tree.map(_of_one_head, in_avals, inputs)
        self.results = self.of_one_head()
        self.layout = Layout(inputs, self.axes_of_results(inputs), self.sizes)
        full = jax.tree.map(self._full, self.results, self.layout.outputs)
        self.out_aval = types(full, in_avals)
        super().__init__()

    @classmethod
    def of(cls, operands: tuple, inputs: Any, **params) -> "Operation":
        """The operation on such operands, whose mapped axes are `inputs`."""
        avals = types(operands, jax.tree.map(jax.typeof, operands))
        return cls(avals, **params | {"axes": tuple(jax.tree.leaves(inputs))})

    def of_one_head(self) -> Any:
        """The shapes of the results, from those of the operands."""
        raise NotImplementedError

    def axes_of_results(self, inputs: tuple) -> Any:
        """Where results have the mapped axes: as the first operand of their kind has them."""
        order = _order_of(self.in_avals[1], inputs[1], len(self.sizes))
        return jax.tree.map(order, self.results, is_leaf=tables.is_table)

    def on(self, platform: str, *args: Any) -> Any:
        """The results, in operations of JAX that suit a platform."""
        raise NotImplementedError

    def expand(self, *args):
        return young_jax.by_platform(self, *args)

    def tile(self, platform: str) -> TileShape:
        """The shape of tiles: the one that the call brings, else what suits the platform."""
        if self.pairs.tile is not None:
            return self.pairs.tile
        T, S = self.pairs.query_position.values.size, self.pairs.key_position.values.size
        mask, is_wide = self.pairs.mask, self.pairs.is_wide
        heads = math.prod(self.sizes)
        return tile_shape.choose(T, S, heads, mask=mask, is_wide=is_wide, platform=platform)

    def batch(self, axis_data, args, dims):
        if not jax.tree.leaves(dims):
            out = self(*args)
            return out, jax.tree.map(lambda _: None, out)
        inputs = jax.tree.map(Axes.mapped, self.layout.inputs, dims)
        mapped = self.of(args, inputs, **self.one_level_more(axis_data.size))
        out_dims, _ = level(mapped.layout.outputs, len(self.sizes))
        return mapped(*args), out_dims

    def one_level_more(self, size: int) -> dict[str, Any]:
        """The parameters of the operation that `vmap` makes of this one."""
        return self.params | {"sizes": (*self.sizes, size)}

    def _full(self, leaf, axes):
        return jax.ShapeDtypeStruct(axes.full_shape(leaf.shape, self.sizes), leaf.dtype)


def _types(operation) -> tuple:
    # JAX takes trees of two kinds of dataclasses for equal; their hashes differ.
    return operation.in_tree, hash(operation.in_tree), operation.in_avals_flat


def _order_of(operands: Any, axes: Any, levels: int) -> Callable:
    """For a result, the axes that it shall have: in the order of the first operand of its kind."""
    nodes = zip(
        jax.tree.leaves(operands, is_leaf=tables.is_table),
        jax.tree.leaves(axes, is_leaf=tables.is_table),
        strict=True,
    )
    first: dict[str, tuple[Axes, int]] = {}
    for node, own in nodes:
        if tables.is_table(node):
            first.setdefault(node.over, (own.values, node.values.ndim))

    def order(result):
        if not tables.is_table(result) or result.over not in first:
            return jax.tree.map(lambda _: in_front(levels), result)
        own, rank = first[result.over]
        return dataclasses.replace(result, values=own.like(rank, result.values.ndim))

    return order


def _of_one_head(leaf, axes: Axes) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes.core_shape(leaf.shape), leaf.dtype)
