"""Runs a kernel over a list of visits: one `pallas_call` for all heads and batch examples.

The grid has one axis for each vmapped axis along which results are separate, and one for the
visits of a head, whose bound is known at run time only. Each array says by its kind which block of
it belongs to a tile, and by its leading axes which part of it belongs to a head.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from attn_jax._base import young_jax
from attn_jax._base.grid import TileShape
from attn_jax._base.sharding import vary_alike
from attn_jax._engine.kernels.mosaic_tpu.visits import Visit, Visits, member, unpack

type Kind = Literal["query rows", "key rows", "query", "key", "pair", "distance", "scalar", "total"]
"""What the last two axes of an array are: [T H], [S E], [1 T], [1 S], [T S], [1 W] or [1 1].

A scalar is read from scalar memory; a total is a result, which vector memory adds up.
"""

_WHOLE = ("distance", "total")


class Input(NamedTuple):
    """An array with its kind; `None` in a tree of inputs is no input."""

    kind: Kind
    values: Any


class Output(NamedTuple):
    """The kind, the size and the dtype of a result of one head."""

    kind: Kind
    shape: tuple[int, int]
    dtype: Any


class Step(NamedTuple):
    """What a kernel knows of a grid step."""

    visit: Visit
    starts_head: Any  # the first visit of a list


class Launch(NamedTuple):
    """What all kernels of a call have in common."""

    tile: TileShape
    sizes: tuple[int, ...]
    """The sizes of the vmapped axes, the outermost first."""
    interpret: Any
    vmem_limit_bytes: int | None


def launch(
    name: str,
    kernel: Callable,
    how: Launch,
    grouped: tuple[bool, ...],
    visits: Visits,
    inputs: Any,
    outputs: Any,
    scratch: list[Any],
    *,
    keep: bool = False,
) -> Any:
    """Calls `kernel(step, inputs, outputs, scratch)` on references to blocks, for each visit.

    `name` is that of the program in profiles. `inputs` is a tree of `Input` and `outputs` one of
    `Output`. Results have the leading axes of `how.sizes`, of size 1 where heads are `grouped`.
    With `keep`, blocks that are never visited are zeros, else every block must be.
    """
    lead = tuple(1 if g else n for n, g in zip(how.sizes, grouped, strict=True))
    run = functools.partial(_call, name, kernel, how, grouped, inputs, outputs, scratch)
    chunks = visits.place.shape[0]
    if chunks == 1 and not keep:
        return run(jax.tree.map(lambda x: x[0], visits), None)
    zeros = jax.tree.map(
        lambda out: jnp.zeros((*lead, *out.shape), out.dtype), outputs, is_leaf=_is_output
    )
    arrays = [x.values for x in jax.tree.leaves(inputs, is_leaf=_is_input)]
    zeros, _, visits = vary_alike((zeros, arrays, visits))

    def one_chunk(done: Any, chunk: Visits) -> tuple[Any, None]:
        found = run(chunk, done)
        return jax.tree.map(_joined, outputs, done, found, is_leaf=_is_output), None

    if chunks == 1:
        return run(jax.tree.map(lambda x: x[0], visits), zeros)
    return jax.lax.scan(one_chunk, zeros, visits)[0]


def _joined(output: Output, before: Array, found: Array) -> Array:
    """Blocks are written into the array of the chunk before; whole arrays are added to it."""
    return before + found if output.kind in _WHOLE else found


def _call(
    name: str,
    kernel: Callable,
    how: Launch,
    grouped: tuple[bool, ...],
    inputs: Any,
    outputs: Any,
    scratch: list[Any],
    visits: Visits,
    onto: Any,
) -> Any:
    *lists, length = visits.place.shape
    place = _Place(how, grouped, tuple(lists), length)
    arrays, in_tree = jax.tree.flatten(inputs, is_leaf=_is_input)
    results, out_tree = jax.tree.flatten(outputs, is_leaf=_is_output)
    given = jax.tree.leaves(onto)
    aliased = [n for n, result in enumerate(results) if result.kind not in _WHOLE and given]
    values = [x.values for x in arrays] + [given[n] for n in aliased]
    places, flags, *values = vary_alike((visits.place, visits.flags, *values))
    shape_like = young_jax.shapes_like(places)
    untouched = [pl.BlockSpec(memory_space=pl.ANY) for _ in aliased]

    found = pl.pallas_call(
        _body(kernel, place, in_tree, out_tree, len(aliased)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(*place.heads, jnp.maximum(jnp.max(visits.count), 1)),
            in_specs=[*(place.spec(x.kind, x.values.shape) for x in arrays), *untouched],
            out_specs=[place.spec(x.kind, (*place.leading, *x.shape)) for x in results],
            scratch_shapes=scratch,
        ),
        out_shape=[shape_like((*place.leading, *x.shape), x.dtype) for x in results],
        input_output_aliases={2 + len(arrays) + k: n for k, n in enumerate(aliased)},
        interpret=how.interpret,
        name=f"attn_jax_{name}",
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * len(place.heads) + ("arbitrary",),
            vmem_limit_bytes=how.vmem_limit_bytes,
        ),
    )(places.reshape(-1), flags.reshape(-1), *values)
    return jax.tree.unflatten(out_tree, found)


def _body(kernel: Callable, place: "_Place", in_tree: Any, out_tree: Any, untouched: int) -> Any:
    """The program of a grid step; `untouched` results are operands too, and are not read."""
    inputs, results = in_tree.num_leaves, out_tree.num_leaves

    def body(places: Any, flags: Any, *refs: Any) -> None:
        *heads, step = (pl.program_id(n) for n in range(place.rank))
        at = place.entry(heads, step)
        own, rest = refs[:inputs], refs[inputs + untouched :]
        kernel(
            Step(unpack(places[at], flags[at]), step == 0),
            jax.tree.unflatten(in_tree, own),
            jax.tree.unflatten(out_tree, rest[:results]),
            rest[results:],
        )

    return body


class _Place(NamedTuple):
    """Where each block of a grid step is: a grid axis for each vmapped axis that is not grouped.

    No index is divided, since that takes scalar units long.
    """

    how: Launch
    grouped: tuple[bool, ...]
    lists: tuple[int, ...]
    """The leading axes of the lists of visits."""
    length: int
    """The number of entries of a list."""

    @property
    def leading(self) -> tuple[int, ...]:
        """The leading axes of results."""
        return tuple(1 if g else n for n, g in zip(self.how.sizes, self.grouped, strict=True))

    @property
    def heads(self) -> tuple[int, ...]:
        """The grid without its last axis, that of visits."""
        return tuple(n for n, g in zip(self.how.sizes, self.grouped, strict=True) if not g)

    @property
    def rank(self) -> int:
        return len(self.heads) + 1

    def entry(self, heads: list[Any], step: Any) -> Any:
        """The index of an entry among those of all lists."""
        number = 0
        for head, held in zip(heads, self.lists, strict=True):
            number = number * held + (head if held > 1 else 0)
        return number * self.length + step

    def spec(self, kind: Kind, shape: tuple[int, ...]) -> pl.BlockSpec:
        """Which block of an array belongs to a grid step."""
        (block, at), lead = _block(kind, self.how.tile, shape), shape[:-2]

        def index(*grid: Any) -> tuple:
            *heads, step, places, flags = grid
            n = self.entry(heads, step)
            visit = unpack(places[n], flags[n])
            levels = self._levels(heads, member(visit.flags))
            own = (level if size > 1 else 0 for level, size in zip(levels, lead, strict=True))
            return (*own, *at(visit))

        block = (*(None,) * len(lead), *block)
        if kind == "scalar":
            return pl.BlockSpec(block, index, memory_space=pltpu.SMEM)
        return pl.BlockSpec(block, index)

    def _levels(self, heads: list[Any], number: Any) -> list[Any]:
        """The index along each vmapped axis, of a head and of the member of a group."""
        members = [n for n, g in zip(self.how.sizes, self.grouped, strict=True) if g]
        indices = []
        for size in reversed(members[1:]):
            indices.append(number % size)
            number = number // size
        own, of_group = iter(heads), iter([number, *reversed(indices)])
        return [next(of_group) if g else next(own) for g in self.grouped]


def _block(kind: Kind, tile: TileShape, shape: tuple[int, ...]) -> tuple[tuple[int, int], Callable]:
    """The shape of a block of one head, and its place for a visit."""
    t, s = tile
    *_, rows, columns = shape
    return {
        "query rows": ((t, columns), lambda visit: (visit.row, 0)),
        "key rows": ((s, columns), lambda visit: (visit.column, 0)),
        "query": ((1, t), lambda visit: (0, visit.row)),
        "key": ((1, s), lambda visit: (0, visit.column)),
        "pair": ((t, s), lambda visit: (visit.row, visit.column)),
        "distance": ((rows, columns), lambda visit: (0, 0)),
        "scalar": ((1, 1), lambda visit: (0, 0)),
        "total": ((1, 1), lambda visit: (0, 0)),
    }[kind]


def _is_input(node: Any) -> bool:
    return isinstance(node, Input)


def _is_output(node: Any) -> bool:
    return isinstance(node, Output)
