"""What the kernels take: the program of a call, and its arrays, folded, padded and cut."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax._base.axes import Axes, level
from attn_jax._base.grid import Kinds, TileShape
from attn_jax._engine.call import Call, Operands, Pairs
from attn_jax._engine.fold import kinds_of_tiles
from attn_jax._engine.kernels.mosaic_tpu import tile as in_kernel
from attn_jax._engine.kernels.mosaic_tpu.folding import folded, padded
from attn_jax._engine.kernels.mosaic_tpu.launch import Input, Kind
from attn_jax._engine.kernels.mosaic_tpu.tile import LOG2_E, Gradient, Inputs, Program
from attn_jax._engine.online_softmax import Residuals
from attn_jax._engine.rules import RuleSplit, split

type Splits = tuple[RuleSplit | None, RuleSplit | None]
"""The mask and the score mod of a call, each cut in two."""

PRECISIONS = {
    None: None,
    "default": jax.lax.Precision.DEFAULT,
    "bfloat16": jax.lax.Precision.DEFAULT,
    "highest": jax.lax.Precision.HIGHEST,
    "float32": jax.lax.Precision.HIGHEST,
}
"""The names of JAX's precisions that a kernel can honour."""


class Prepared(NamedTuple):
    """A call as the kernels take it."""

    program: Program
    inputs: Inputs
    kinds: Kinds
    score_mod_gradient: Callable[[dict[int, Array]], Any]
    """From gradients of parts of the score mod, by number, to those of its arrays."""


def prepare(
    call: Call,
    axes: tuple[Pairs, Operands],
    sizes: tuple[int, ...],
    splits: Splits,
    tile: TileShape,
) -> Prepared:
    """The program and the arrays of a call whose arrays have the vmapped axes `axes`."""
    (pairs, operands), (pair_axes, own) = call, axes
    program = Program(
        tile=tile,
        sizes=sizes_of(operands, own),
        mask=None if splits[0] is None else splits[0].code,
        score_mod=None if splits[1] is None else splits[1].code,
        is_finite=splits[1] is None or splits[1].code.is_finite_everywhere,
        product_dtype=operands.product_dtype,
        precision=PRECISIONS[operands.precision],
        dropout_rate=None if operands.dropout is None else operands.dropout.rate,
    )
    place = functools.partial(_input, program)
    outside = functools.partial(_outside, program, pairs, pair_axes, sizes)
    mask = outside(splits[0], pairs.mask)
    score_mod, pull = jax.vjp(functools.partial(outside, splits[1]), operands.score_mod)
    has_positions = not pairs.in_order and any(rule is not None for rule in splits)
    inputs = Inputs(
        query=place("query rows", operands.query.values, own.query.values),
        key=place("key rows", operands.key.values, own.key.values),
        value=place("key rows", operands.value.values, own.value.values),
        scale=place("scalar", operands.scale, own.scale),
        positions=(
            place("query", pairs.query_position.values, pair_axes.query_position.values),
            place("key", pairs.key_position.values, pair_axes.key_position.values),
        )
        if has_positions
        else None,
        mask=_parts(program, splits[0], mask),
        score_mod=_parts(program, splits[1], score_mod),
        dropout=_dropout(program, operands, own),
    )
    gradient = functools.partial(_score_mod_gradient, score_mod, pull)
    return Prepared(program, inputs, kinds_of_heads(pairs, pair_axes, tile), gradient)


def cotangents(program: Program, residuals: Residuals, axes: Residuals) -> Gradient:
    """The inputs of the backward pass, from the residuals of a call and their axes."""
    out, d_out = (
        folded(table.values, own.values)
        for table, own in ((residuals.out, axes.out), (residuals.d_out, axes.d_out))
    )
    logsumexp = folded(residuals.logsumexp.values, axes.logsumexp.values)
    d_unit = -jnp.sum(d_out.astype(jnp.float32) * out, axis=-1)
    if residuals.d_logsumexp.values is not None:
        d_unit = d_unit + folded(residuals.d_logsumexp.values, axes.d_logsumexp.values)
    # A query that is fully masked has the weights 2 ** -inf.
    shift = jnp.where(logsumexp == -jnp.inf, jnp.inf, logsumexp * LOG2_E)
    rows = d_out.astype(program.product_dtype)
    return Gradient(
        Input("query rows", _padded(program, "query rows", rows)),
        Input("query", _padded(program, "query", shift[..., None, :])),
        Input("query", _padded(program, "query", d_unit[..., None, :])),
    )


def rules_of(call: Call, axes: tuple[Pairs, Operands]) -> Splits:
    """The mask and the score mod of a call, each cut in two; None where there is none.

    Raises:
      Refused: one cannot be cut.
    """
    (pairs, operands), (pair_axes, own) = call, axes
    mask = score_mod = None
    if pairs.mask is not None:
        mask = split(
            pairs.mask, pair_axes.mask, name="mask", takes_logit=False, in_order=pairs.in_order
        )
    if operands.score_mod is not None:
        score_mod = split(
            operands.score_mod,
            own.score_mod,
            name="score_mod",
            takes_logit=True,
            in_order=pairs.in_order,
        )
    return mask, score_mod


def kinds_of_heads(pairs: Pairs, axes: Pairs, tile: TileShape) -> Kinds:
    """The kinds of tiles, with a leading axis of size 1 where all heads share the mask."""
    levels = len(axes.query_position.values.at)
    if levels == 0:
        return kinds_of_tiles(pairs, tile)
    in_axes, inside = level(axes, levels - 1)
    of_each = functools.partial(kinds_of_heads, axes=inside, tile=tile)
    if not jax.tree.leaves(in_axes):
        return Kinds(*(flags[None] for flags in of_each(pairs)))
    return jax.vmap(of_each, in_axes=(in_axes,))(pairs)


def sizes_of(operands: Operands, own: Operands) -> tuple[int, int]:
    sides = (operands.query, own.query), (operands.key, own.key)
    T, S = (axes.values.core_shape(side.values.shape)[0] for side, axes in sides)
    return T, S


def _outside(
    program: Program,
    pairs: Pairs,
    axes: Pairs,
    sizes: tuple[int, ...],
    cut: RuleSplit | None,
    rule: Any,
) -> list[Array]:
    """The parts of a rule for all heads."""
    if cut is None:
        return []
    positions = pairs.query_position.values, pairs.key_position.values
    position_axes = axes.query_position.values, axes.key_position.values
    distances = in_kernel.distances(program)
    return cut.outside(rule, *positions, position_axes, distances, sizes)


def _parts(program: Program, cut: RuleSplit | None, arrays: list[Array]) -> list[Input]:
    parts = [] if cut is None else cut.code.parts
    return [
        Input(part.kind, _padded(program, part.kind, array))
        for part, array in zip(parts, arrays, strict=True)
    ]


def _input(program: Program, kind: Kind, values: Array, own: Axes) -> Input:
    core = {"query": (1, -1), "key": (1, -1), "scalar": (1, 1)}
    array = folded(values, own)
    if kind in core:
        array = array.reshape(*array.shape[: len(own.at)], *core[kind])
    return Input(kind, _padded(program, kind, array))


def _padded(program: Program, kind: Kind, array: Array) -> Array:
    """The array padded to whole tiles."""
    T, S = program.padded_sizes
    wanted = {
        "query rows": {-2: T},
        "key rows": {-2: S},
        "query": {-1: T},
        "key": {-1: S},
        "pair": {-2: T, -1: S},
    }.get(kind, {})
    for axis, size in wanted.items():
        array = padded(array, axis, size)
    return array


def _dropout(program: Program, operands: Operands, own: Operands) -> list[Input] | None:
    if operands.dropout is None:
        return None
    dropout, axes = operands.dropout, own.dropout
    seed = jax.lax.bitcast_convert_type(folded(dropout.seed, axes.seed), jnp.int32)
    words = [Input("scalar", seed[..., None, n : n + 1]) for n in range(2)]
    rows = ("query", dropout.query_row, axes.query_row), ("key", dropout.key_row, axes.key_row)
    return words + [_input(program, kind, table.values, at.values) for kind, table, at in rows]


def _score_mod_gradient(parts: list[Array], pull: Callable, found: dict[int, Array]) -> Any:
    """The gradients of a score mod's arrays from those of its parts; parts without one have 0."""
    cotangents = [
        found[n].astype(part.dtype)
        if n in found
        else jnp.zeros(part.shape, jax.dtypes.float0 if _is_integer(part) else part.dtype)
        for n, part in enumerate(parts)
    ]
    (gradient,) = pull(cotangents)
    return gradient


def _is_integer(part: Array) -> bool:
    return not jnp.issubdtype(part.dtype, jnp.floating)
