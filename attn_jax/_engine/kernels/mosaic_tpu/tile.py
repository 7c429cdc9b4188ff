"""What the kernels compute on one tile, with keys on its first axis and queries on its second.

A TPU adds and compares along the first axis (sublanes) without moving data, so the maximum, the sum
and the log-sum-exp of each query are rows [1 t], which repeat along the first axis at no cost.
Logits are in units of log 2, since the chip computes powers of two.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, Shaped

from attn_jax._base.grid import TileShape
from attn_jax._engine.kernels.mosaic_tpu.dropout import keeps
from attn_jax._engine.kernels.mosaic_tpu.launch import Input
from attn_jax._engine.kernels.mosaic_tpu.visits import Visit
from attn_jax._engine.rules import RuleCode, rewritten

LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Program:
    """What a call computes, without its arrays; equal for calls that compute the same."""

    tile: TileShape
    sizes: tuple[int, int]
    """T and S before padding."""
    mask: RuleCode | None
    score_mod: RuleCode | None
    is_finite: bool
    """Whether `score_mod` is finite at masked pairs too."""
    product_dtype: str
    precision: Any
    dropout_rate: float | None

    @property
    def padded_sizes(self) -> tuple[int, int]:
        (T, S), (t, s) = self.sizes, self.tile
        return -(-T // t) * t, -(-S // s) * s


class Inputs(NamedTuple):
    """The arrays of a call, as `Input`s, as references in a kernel, or cut to a tile."""

    query: Any
    key: Any
    value: Any
    scale: Any
    positions: Any  # of queries and keys; None for 0, 1, 2, …
    mask: list[Any]
    score_mod: list[Any]
    dropout: Any  # two words of the seed, and row numbers of queries and keys


class Gradient(NamedTuple):
    """The inputs of the backward pass beside those of the call."""

    d_out: Any
    logsumexp: Any  # in units of log 2, +inf for a query that is fully masked
    d_unit: Any


class Here(NamedTuple):
    """A tile: its inputs, the positions of its pairs, and which pairs are unmasked."""

    inputs: Inputs
    query_position: Int[Array, "1 t"]
    key_position: Int[Array, "s 1"]
    unmasked: Bool[Array, "s t"] | None


def loaded[Tree](program: Program, inputs: Tree, refs: Tree, visit: Visit) -> Tree:
    """The inputs of a tile, read from references; `inputs` say which kind each of them is."""

    def load(given: Input, ref: Any) -> Array:
        return _load(program, given.kind, ref, visit)

    return jax.tree.map(load, inputs, refs, is_leaf=lambda node: isinstance(node, Input))


def look(program: Program, inputs: Inputs, visit: Visit, *, is_partial: bool) -> Here:
    """The tile with its positions, and with its unmasked pairs where some may be masked."""
    row, column = _rows(program, visit)
    i, j = (row, column) if inputs.positions is None else inputs.positions
    if not is_partial:
        return Here(inputs, i, j, None)
    (T, S), (t, s) = program.sizes, program.tile
    unmasked = jnp.ones((s, t), bool)
    if program.mask is not None:
        unmasked = _to_tile(rewritten(program.mask.on_tile)((i, j), inputs.mask), program)
    if T % t:
        unmasked = unmasked & (row < T)
    if S % s:
        unmasked = unmasked & (column < S)
    return Here(inputs, i, j, unmasked)


def scores(program: Program, here: Here) -> Float[Array, "s t"]:
    """The products of keys and queries, before the scale."""
    query, key = kept(here.inputs.query, here, 0), kept(here.inputs.key, here, 1)
    return product(program, key, query, 1, 1)


def logits(program: Program, raw: Float[Array, "s t"], here: Here) -> Float[Array, "s t"]:
    """Logits times log2(e), −inf at masked pairs."""
    scale = here.inputs.scale
    if program.score_mod is None:
        logit = raw * (scale * LOG2_E)
    else:
        arguments = raw * scale, here.query_position, here.key_position
        modified = rewritten(program.score_mod.on_tile)(arguments, here.inputs.score_mod)
        logit = _to_tile(modified, program) * LOG2_E
    return logit if here.unmasked is None else jnp.where(here.unmasked, logit, -jnp.inf)


def kept(rows: Float[Array, "L H"], here: Here, axis: int) -> Float[Array, "L H"]:
    """Zeros for queries (axis 0) or keys that are masked in the whole tile: NaN stays out."""
    if here.unmasked is None:
        return rows
    some = jnp.max(here.unmasked.astype(jnp.float32), axis=axis, keepdims=True)
    some = column(some) if axis == 0 else some
    return jnp.where(some > 0, rows, jnp.zeros_like(rows))


def not_dropped(program: Program, here: Here) -> Bool[Array, "s t"] | None:
    """True for the weights that dropout keeps; None where it keeps all."""
    if program.dropout_rate is None:
        return None
    return keeps(here.inputs.dropout, program.dropout_rate)


def after_dropout(
    program: Program, weights: Float[Array, "s t"], keep: Bool[Array, "s t"] | None
) -> Float[Array, "s t"]:
    """Weights, or their cotangents, with those that are dropped set to 0 and the rest scaled."""
    if keep is None or program.dropout_rate is None:
        return weights
    return jnp.where(keep, weights * (1 / (1 - program.dropout_rate)), 0)


def product(
    program: Program, first: Array, second: Array, one: int, other: int
) -> Float[Array, "..."]:
    """The matmul that sums over axis `one` of the first operand and `other` of the second."""
    dtype = jnp.dtype(program.product_dtype)
    return jax.lax.dot_general(
        first.astype(dtype),
        second.astype(dtype),
        (((one,), (other,)), ((), ())),
        precision=program.precision,
        preferred_element_type=jnp.float32,
    )


def column(row: Shaped[Array, "1 L"]) -> Shaped[Array, "L 1"]:
    """A row as a column: the chip transposes eight rows at once."""
    return jnp.transpose(jnp.broadcast_to(row, (8, row.shape[1])))[:, :1]


def first_distance(program: Program, visit: Visit) -> Int[Array, ""]:
    """The place of a tile's first distance in a vector of distances; see `distances`."""
    t, s = program.tile
    _, S = program.padded_sizes
    return pl.multiple_of(visit.row * t - visit.column * s - s + S, 128)


def sheared(row: Shaped[Array, "1 W"], tile: TileShape) -> Shaped[Array, "s t"]:
    """The tile with entry [a, b] = row[s + b - a], for a row of s + t distances."""
    t, s = tile
    turned = pltpu.roll(jnp.broadcast_to(row, (s, s + t)), 0, 1, stride=1, stride_axis=0)
    return turned[:, s:]


def sum_by_distance(values: Float[Array, "s t"]) -> Float[Array, "1 W"]:
    """The sums over each diagonal of a tile: the transpose of `sheared`."""
    s, t = values.shape
    wide = jnp.concatenate([jnp.zeros((s, s), values.dtype), values], axis=1)
    row = jax.lax.broadcasted_iota(jnp.int32, (s, s + t), 0)
    step = 1
    while step < s:  # row a is turned back by a places, one bit of a at a time
        wide = jnp.where((row & step) != 0, pltpu.roll(wide, s + t - step, 1), wide)
        step *= 2
    return jnp.sum(wide, axis=0, keepdims=True)


def distances(program: Program) -> Int[Array, " W"]:
    """The distances of a query after a key, for which parts by distance are computed."""
    T, S = program.padded_sizes
    return jnp.arange(-S, T, dtype=jnp.int32)


def _rows(program: Program, visit: Visit) -> tuple[Int[Array, "1 t"], Int[Array, "s 1"]]:
    """The row numbers of queries and keys of a tile."""
    t, s = program.tile
    i = visit.row * t + jax.lax.broadcasted_iota(jnp.int32, (1, t), 1)
    j = visit.column * s + jax.lax.broadcasted_iota(jnp.int32, (s, 1), 0)
    return i, j


def _load(program: Program, kind: str, ref: Any, visit: Visit) -> Array:
    t, s = program.tile
    if kind == "scalar":
        return jnp.full((1, 1), ref[0, 0])
    if kind == "key":
        return column(ref[...])
    if kind == "pair":
        values = ref[...]
        is_float = jnp.issubdtype(values.dtype, jnp.floating)
        return jnp.transpose(values.astype(jnp.float32 if is_float else jnp.int32))
    if kind == "distance":
        return sheared(ref[:, pl.ds(first_distance(program, visit), s + t)], program.tile)
    return ref[...]


def _to_tile(values: Array, program: Program) -> Array:
    t, s = program.tile
    return jnp.broadcast_to(values, (s, t))
