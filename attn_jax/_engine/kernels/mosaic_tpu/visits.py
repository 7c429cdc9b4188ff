"""Lists of the tiles that a kernel visits, in the order in which it visits them.

A grid step reads one entry of a list from scalar memory, so a tile that is empty costs nothing. The
forward pass and the query's gradients visit tiles row by row, the key's gradients column by column,
and the gradient of an array by pair visits each tile once for every head that shares the array.
A list has the vmapped axes of the mask and no others. Lists that are too long for scalar memory are
cut into chunks of rows or columns.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base.grid import Kinds

FIRST, LAST, FULL, PARTIAL = 1, 2, 4, 8
_FLAG_BITS = 4
_COLUMN_BITS = 16
MOST_ENTRIES = 2**16  # two words of 32 bits an entry: half of the scalar memory of a v5e (1 MiB)

type Order = Literal["row", "column", "tile"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visits:
    """The entries of each list, chunk by chunk; `count` says how many of N there are.

    `place` packs row and column of a tile, `flags` the member of a group of heads and four bits:
    FIRST and LAST visit of a row, a column or a tile, and whether the tile is FULL or PARTIAL. The
    leading axes are missing in a list of one head, and the chunks in one chunk.
    """

    place: Int[Array, "*C_L N"]
    flags: Int[Array, "*C_L N"]
    count: Int[Array, "*C_L"]


class Visit(NamedTuple):
    """One grid step, as the kernel sees it."""

    row: Int[Array, ""]
    column: Int[Array, ""]
    flags: Int[Array, ""]

    def has(self, flag: int) -> Bool[Array, ""]:
        return (self.flags & flag) != 0


def unpack(place: Int[Array, ""], flags: Int[Array, ""]) -> Visit:
    """The visit of one entry."""
    return Visit(place >> _COLUMN_BITS, place & (2**_COLUMN_BITS - 1), flags)


def member(flags: Int[Array, ""]) -> Int[Array, ""]:
    """The member of the group of heads whose gradients are added in one visit after another."""
    return flags >> _FLAG_BITS


def visits(kinds: Kinds, order: Order, sizes: tuple[int, ...], grouped: tuple[bool, ...]) -> Visits:
    """The visits of all tiles that are not empty; a row or column without any has one visit.

    `kinds` has one leading axis for each vmapped axis, the outermost first, of its size or 1.
    `sizes` are those of the vmapped axes, and `grouped` says which of them form the group over
    which a sum is taken: all members of a group are visited before the next row, column or tile.
    """
    levels = len(sizes)
    group = [n for n in range(levels) if grouped[n]]
    outer = [n for n in range(levels) if not grouped[n]]
    row, column = levels, levels + 1
    major = {"row": [row], "column": [column], "tile": [row, column]}[order]
    minor = group + [axis for axis in (row, column) if axis not in major]
    some, every = (_in_order(flags, sizes, grouped, outer + major + minor) for flags in kinds)
    lead = some.shape[: len(outer)]
    *_, I, J = kinds.some.shape
    length = math.prod(some.shape[len(outer) + len(major) :])
    listed = some.reshape(*lead, -1, length)
    if order != "tile":
        nothing = ~listed.any(-1, keepdims=True)
        is_first = jax.lax.broadcasted_iota(jnp.int32, listed.shape, listed.ndim - 1) == 0
        listed = listed | (nothing & is_first)
    rows = listed.shape[-2]
    held = min(rows, max(1, MOST_ENTRIES // (length * math.prod(lead))))
    chunks = -(-rows // held)
    entries = held * length

    def of_list(listed: Any, some: Any, every: Any, chunk: Any) -> Visits:
        at, count = _compacted(listed)
        here = chunk * entries + at
        unpacked = _unpacked(here // length, here % length, order, (I, J))
        kind = jnp.where(some[at], jnp.where(every[at], FULL, PARTIAL), 0)
        return _packed(here // length, unpacked, kind, count)

    flat = [_chunked(x.reshape(*lead, rows, length), chunks, held) for x in (listed, some, every)]
    run = of_list
    for _ in lead:
        run = jax.vmap(run, in_axes=(0, 0, 0, None))
    # One chunk after another: all chunks together take four times as long to compile.
    return jax.lax.map(lambda chunk: run(*chunk), (*flat, jnp.arange(chunks, dtype=jnp.int32)))


def _in_order(
    flags: Bool[Array, "*L I J"], sizes: tuple[int, ...], grouped: tuple[bool, ...], axes: list[int]
) -> Bool[Array, "..."]:
    """Flags repeated for every member of a group, with their axes in order."""
    own = flags.shape[:-2]
    lead = [n if whole else held for n, held, whole in zip(sizes, own, grouped, strict=True)]
    return jnp.broadcast_to(flags, (*lead, *flags.shape[-2:])).transpose(axes)


def _chunked(flags: Bool[Array, "*L A B"], chunks: int, held: int) -> Bool[Array, "C *L N"]:
    """Chunks of so many rows (or columns), in front; the last is padded with nothing."""
    *lead, rows, length = flags.shape
    missing = chunks * held - rows
    flags = jnp.pad(flags, [(0, 0)] * len(lead) + [(0, missing), (0, 0)])
    return jnp.moveaxis(flags.reshape(*lead, chunks, held * length), len(lead), 0)


def _compacted(listed: Bool[Array, " N"]) -> tuple[Int[Array, " N"], Int[Array, ""]]:
    """The indices that are listed, the last one repeated at the end, and how many there are."""
    count = jnp.sum(listed, dtype=jnp.int32)
    (at,) = jnp.nonzero(listed, size=listed.size, fill_value=0)
    last = at[jnp.maximum(count - 1, 0)]
    return jnp.where(jnp.arange(listed.size) < count, at, last).astype(jnp.int32), count


def _unpacked(
    major: Int[Array, " N"], minor: Int[Array, " N"], order: Order, tiles: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Row, column and member of a group, from the indices of an entry."""
    rows, columns = tiles
    if order == "row":
        return major, minor % columns, minor // columns
    if order == "column":
        return minor % rows, major, minor // rows
    return major // columns, major % columns, minor


def _packed(
    major: Int[Array, " N"],
    unpacked: tuple[Array, Array, Array],
    kind: Int[Array, " N"],
    count: Int[Array, ""],
) -> Visits:
    row, column, number = unpacked
    step = jnp.arange(major.size)
    changes = major != jnp.roll(major, 1)
    first = (step == 0) | changes
    last = (step == count - 1) | jnp.roll(changes, -1)
    number = number << _FLAG_BITS
    flags = jnp.where(first, FIRST, 0) + jnp.where(last, LAST, 0) + kind + number
    flags = jnp.where(step < count, flags, number)
    return Visits((row << _COLUMN_BITS) | column, flags.astype(jnp.int32), count)
