"""Operations on tiles as JAX primitives: what `vmap` does to them, and which axes they share."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from attn_jax import masks
from attn_jax._base import concrete, tables
from attn_jax._base.axes import Axes, Layout, in_front, level
from attn_jax._base.grid import TileShape
from attn_jax._base.sharding import types
from attn_jax._engine.primitive import Primitive

_MOST_KEYS = 2048
# Of logits that one tile may have: half of the 32 MiB that cores share in today's servers; and a
# quarter of that where a mask compares positions, for smaller tiles are left empty by it.
_MOST_BYTES = 16 * 2**20
_MOST_BYTES_IF_CUT = 4 * 2**20


class TileOp(Primitive):
    """An operation of a plan and other operands on which `vmap` leaves every axis where it is.

    An operand that is not mapped is shared, and never repeated. Where no `shape` of tiles is
    given, one is chosen.
    """

    axes: tuple[Axes, ...]
    sizes: tuple[int, ...]
    shape: TileShape | None

    def __init__(self, in_avals: tuple, **params):
        self.in_avals = in_avals
        self.params = params
        self.__dict__.update(params)
        inputs = jax.tree.unflatten(jax.tree.structure(in_avals), self.axes)
        plan, operands = jax.tree.map(_of_one_head, in_avals, inputs)
        T, S = plan.query_position.size, plan.key_position.size
        heads = math.prod(self.sizes)
        self.tile = self.shape or choose(T, S, heads, mask=plan.mask, is_wide=plan.is_wide)
        self.results = self.of_one_head(operands)
        order = _order_of(in_avals[1], inputs[1], len(self.sizes))
        outputs = jax.tree.map(order, self.results, is_leaf=tables.is_table)
        self.layout = Layout(inputs, outputs, self.sizes)
        full = jax.tree.map(self._full, self.results, outputs)
        self.out_aval = types(full, in_avals)
        super().__init__()

    @classmethod
    def of(cls, operands: tuple, inputs: Any, **params) -> "TileOp":
        """The operation on such operands, whose mapped axes are `inputs`."""
        avals = types(operands, jax.tree.map(jax.typeof, operands))
        return cls(avals, **params | {"axes": tuple(jax.tree.leaves(inputs))})

    def of_one_head(self, operands: Any) -> Any:
        """The shapes of the results, from those of the operands."""
        raise NotImplementedError

    def batch(self, axis_data, args, dims):
        if not jax.tree.leaves(dims):
            out = self(*args)
            return out, jax.tree.map(lambda _: None, out)
        inputs = jax.tree.map(Axes.mapped, self.layout.inputs, dims)
        sizes = (*self.sizes, axis_data.size)
        mapped = self.of(args, inputs, **self.params | {"sizes": sizes})
        out_dims, _ = level(mapped.layout.outputs, -1)
        return mapped(*args), out_dims

    def _full(self, leaf, axes):
        return jax.ShapeDtypeStruct(axes.full_shape(leaf.shape, self.sizes), leaf.dtype)


def choose(T: int, S: int, heads: int, *, mask: Any, is_wide: bool) -> TileShape:
    """All pairs while the logits of all heads take 16 MiB at most, or 4 MiB and 2048 keys where the
    mask compares positions (adr/0014); else 512×512 for up to 4 heads, 256×256 for up to 16,
    128×128 for more (adr/0008).

    Where no mask cuts them they take twice as many queries, and where there are fewer queries than
    that more keys instead. Where a pair takes a vector, as additive scores do, 128×128; and where a
    size is a symbol of `jax.export`, which stands for any number.
    """
    if not concrete.are_numbers(T, S, heads):
        return TileShape(*(min(L, 128) if concrete.are_numbers(L) else 128 for L in (T, S)))
    is_cut = mask is not None and masks.is_aligned(mask)
    most = _MOST_BYTES_IF_CUT if is_cut else _MOST_BYTES
    is_long = is_cut and S > _MOST_KEYS  # slots of a cache, of which few may hold anything
    if not is_wide and not is_long and 4 * heads * T * S <= most:
        return TileShape(T, S)
    side = 128 if is_wide or heads > 16 else 256 if heads > 4 else 512
    t = _even_part(T, 2 * side if mask is None else side)
    return TileShape(t, _even_part(S, max(side, min(side * side // max(t, 1), _MOST_KEYS))))


def _even_part(L: int, limit: int) -> int:
    """The size of equal parts of L, none above the limit, that leave little to fill up."""
    parts = max(1, -(-L // limit))
    return L if parts == 1 else -(-L // (16 * parts)) * 16


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
