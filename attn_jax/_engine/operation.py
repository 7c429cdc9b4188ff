"""Operations as JAX primitives with a `vmap` rule and a program for each platform."""

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
from attn_jax._engine.call import Operands


class Primitive(young_jax.HiPrim):
    """An operation on trees of arrays; equal to another of the same parameters, trees and types.

    JAX compares parameters alone, but the structure of a tree may hold a function, such as a mask.
    """

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and _types(self) == _types(other)

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.in_tree))


class Operation(Primitive):
    """An operation on the pairs of a call and other arguments, for all heads and batch examples.

    Heads and batch examples are vmapped axes, the innermost first: `layout` says which axis of each
    argument and result is which, and `sizes` gives their sizes. `vmap` leaves every axis where it
    is. An argument that is not mapped is shared, and never repeated. A subclass defines
    `results_of_one_head`, and `on` or `expand`.
    """

    axes: tuple[Axes, ...]
    sizes: tuple[int, ...]

    def __init__(self, in_avals: tuple, **params):
        self.in_avals = in_avals
        self.params = params
        self.__dict__.update(params)
        inputs = jax.tree.unflatten(jax.tree.structure(in_avals), self.axes)
        self.pairs, self.arguments = jax.tree.map(_of_one_head, in_avals, inputs)
        self.results = self.results_of_one_head()
        self.layout = Layout(inputs, self.axes_of_results(inputs), self.sizes)
        full = jax.tree.map(self._full, self.results, self.layout.outputs)
        self.out_aval = types(full, in_avals)
        super().__init__()

    @classmethod
    def of(cls, operands: tuple, inputs: Any, **params) -> Any:
        """The operation on such arguments, whose mapped axes are `inputs`."""
        avals = types(operands, jax.tree.map(jax.typeof, operands))
        return cls(avals, **params | {"axes": tuple(jax.tree.leaves(inputs))})

    def results_of_one_head(self) -> Any:
        """The shapes of the results of one head."""
        raise NotImplementedError

    def axes_of_results(self, inputs: tuple) -> Any:
        """The mapped axes of results, in the order of the first argument of their kind."""
        order = _order_of(self.in_avals[1], inputs[1], len(self.sizes))
        return jax.tree.map(order, self.results, is_leaf=tables.is_table)

    def on(self, target: young_jax.Target, *args: Any) -> Any:
        """The results, computed by operations of JAX that suit a platform and its devices."""
        raise NotImplementedError

    def expand(self, *args):
        return young_jax.by_platform(self, *args)

    def tile(self, platform: str) -> TileShape:
        """The shape of tiles: that of a block mask, else one that suits the platform."""
        if self.pairs.tile is not None:
            return self.pairs.tile
        T, S = self.pairs.query_position.values.size, self.pairs.key_position.values.size
        mask, is_wide = self.pairs.mask, self.pairs.is_wide
        heads = math.prod(self.sizes)
        return tile_shape.choose(
            T,
            S,
            heads,
            mask=mask,
            is_wide=is_wide,
            platform=platform,
            operands=_operands_in(self.arguments),
        )

    def batch(self, axis_data, args, dims):
        if not jax.tree.leaves(dims):
            out = self(*args)
            return out, jax.tree.map(lambda _: None, out)
        inputs = jax.tree.map(Axes.mapped, self.layout.inputs, dims)
        mapped = self.of(args, inputs, **self.params_with_axis(axis_data))
        out_dims, _ = level(mapped.layout.outputs, len(self.sizes))
        return mapped(*args), out_dims

    def params_with_axis(self, axis_data: Any) -> dict[str, Any]:
        """The parameters of the operation with one more vmapped axis, as JAX describes it."""
        return self.params | {"sizes": (*self.sizes, axis_data.size)}

    def _full(self, leaf, axes):
        return jax.ShapeDtypeStruct(axes.full_shape(leaf.shape, self.sizes), leaf.dtype)


def _operands_in(arguments: Any) -> Operands | None:
    """The operands of the call among the arguments of an operation; the first of several."""
    nodes = jax.tree.leaves(arguments, is_leaf=_are_operands)
    return next(filter(_are_operands, nodes), None)


def _are_operands(node: Any) -> bool:
    return isinstance(node, Operands)


def _types(operation) -> tuple:
    # JAX compares trees of two dataclasses as equal, although their hashes differ.
    return operation.in_tree, hash(operation.in_tree), operation.in_avals_flat


def _order_of(operands: Any, axes: Any, levels: int) -> Callable:
    """A function from a result to its axes, in the order of the first argument of its kind."""
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
