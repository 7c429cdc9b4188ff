"""An attention call, checked and with every default filled in: the input of all kernels.

It is a pytree. Arrays are leaves, those that functions captured included; what the functions
compute is part of the structure. So all calls with the same functions and types share one
compilation.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax import masks, score_mods, scores
from attn_jax._base import checks, concrete, hoist, numerics, tables
from attn_jax._base.grid import Grid, Kinds, TileShape, positions_or_default, rows_of
from attn_jax._base.tables import Table
from attn_jax._block_mask import BlockMask
from attn_jax._dropout import Dropout

_BIAS_ADVICE = "score_mod=attn_jax.score_mods.dense_bias(mask)"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TableMask(masks.Mask):
    """A mask given as an array, by query, by key or by pair, in the order of the call."""

    table: Any

    def __call__(self, query_position, key_position) -> Bool[Array, ""]:
        return self.table(query_position, key_position)

    def tile_kinds(self, grid: Grid) -> Kinds:
        if self.table.over == "pair":
            return grid.evaluate(self)
        cut, axis = (grid.by_query, 1) if self.table.over == "query" else (grid.by_key, 0)
        tiles = cut(self.table.values)
        sides = (jnp.expand_dims(side, axis) for side in (tiles.any(axis=1), tiles.all(axis=1)))
        return Kinds(*(jnp.broadcast_to(side, grid.tiles) for side in sides))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Which pairs of a query and a key are unmasked; nothing here has a derivative.

    `lists` (tile lists) and `tile` are those of a block mask, else None. `in_order`: no positions
    were given, so both sides have positions 0, 1, 2, … `is_wide`: the score is not the dot product;
    it may compute a vector for each pair, as additive scores do, so tiles must be small. (Fields
    have type Any, since JAX makes trees of shapes, axes or None of the same structure.)
    """

    mask: Any
    query_position: Any
    key_position: Any
    lists: Any = None
    tile: TileShape | None = dataclasses.field(default=None, metadata={"static": True})
    in_order: bool = dataclasses.field(default=False, metadata={"static": True})
    is_wide: bool = dataclasses.field(default=False, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """The inputs of logits and output; those of a floating point dtype are differentiated.

    Arrays by query, key or pair are tables.

    `score` is the dot product where it is None, else a function of one query and one key. Positions
    are given where there is a `score_mod`. Matmuls round their operands to `product_dtype`.
    `precision` is the name of JAX's precision in the context of the call, stored because that
    context has ended when gradients are computed.
    """

    query: Any
    key: Any
    value: Any
    query_position: Any
    key_position: Any
    scale: Any
    score: Any
    score_mod: Any
    dropout: Any
    product_dtype: str = dataclasses.field(metadata={"static": True})
    precision: str | None = dataclasses.field(default=None, metadata={"static": True})


class Call(NamedTuple):
    """Attention of one head on one batch example. Tables are in the order of its rows."""

    pairs: Pairs
    operands: Operands

    @property
    def sizes(self) -> tuple[int, int]:
        """T and S."""
        return self.operands.query.values.shape[0], self.operands.key.values.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Work:
    """How much of one head a kernel computes.

    `needed` [I J] is True for each tile that the head needs. Where heads or batch examples need
    different tiles, each of them computes the union, unless `each_head_alone`. A kernel without
    tiles has one tile with all T·S pairs. A kernel whose time can be predicted also gives the shape
    of its tiles, and which of those that are needed are `partial`.
    """

    needed: Any
    pairs_per_tile: int = dataclasses.field(metadata={"static": True})
    each_head_alone: bool = dataclasses.field(default=False, metadata={"static": True})
    tile: TileShape | None = dataclasses.field(default=None, metadata={"static": True})
    partial: Any = None


def prepare(
    query,
    key,
    value,
    *,
    score: scores.Score | None = None,
    mask=None,
    score_mod=None,
    scale=None,
    query_position=None,
    key_position=None,
    query_row=None,
    key_row=None,
    dropout=None,
) -> Call:
    """The call with its options checked, its functions traced and its defaults filled in.

    `dropout` is a PRNG key and a rate, or None.
    """
    (T, H), (S, E) = query.shape, key.shape
    default_scale = 1.0 if score is not None else 1 / math.sqrt(max(H, 1))
    score = None if score is scores.dot else score
    if score is None and E != H:
        raise ValueError(f"key must be as wide as query, H = {H}; got {E}; or pass score=")
    checks.check_scale(scale)
    dtype = numerics.accumulation_dtype(query.dtype)
    positions_and_rows = query_position, key_position, query_row, key_row
    if isinstance(mask, BlockMask):
        positions_and_rows = _of_block_mask(mask, positions_and_rows, T, S)
    i, j, *numbers = positions_and_rows
    _check_alignment(mask, score_mod, i, j, T, S)
    rows = rows_of(T, S, *numbers)
    traced_mod = None if score_mod is None else score_mods.as_pytree(score_mod, dtype)
    rules = concrete.at_run_time((_mask(mask, T, S), traced_mod), beside=query)
    rule, traced_mod = tables.order(rules, rows)
    pairs = _pairs(mask, rule, (i, j), (T, S), is_wide=score is not None)
    operands = Operands(
        query=Table(query, "query"),
        key=Table(key, "key"),
        value=Table(value, "key"),
        query_position=None if traced_mod is None else pairs.query_position,
        key_position=None if traced_mod is None else pairs.key_position,
        scale=numerics.as_scalar(default_scale if scale is None else scale, dtype),
        score=None if score is None else _pair_score(score, H, E, dtype),
        score_mod=traced_mod,
        dropout=None if dropout is None else Dropout.of(dropout[0], dropout[1], rows),
        product_dtype=str(jax.dtypes.canonicalize_dtype(query.dtype)),
        precision=jax.config.jax_default_matmul_precision,
    )
    return Call(pairs, operands)


def _pairs(
    mask: Any, rule: Any, positions: tuple, sizes: tuple[int, int], *, is_wide: bool
) -> Pairs:
    """The mask, the positions (0, 1, 2, … where none are given) and what a block mask brings."""
    (i, j), (T, S) = positions, sizes
    is_block = isinstance(mask, BlockMask)
    return Pairs(
        mask=rule,
        query_position=Table(positions_or_default("query_position", i, T), "query"),
        key_position=Table(positions_or_default("key_position", j, S), "key"),
        lists=mask.lists if is_block else None,
        tile=mask.tile if is_block else None,
        in_order=i is None and j is None,
        is_wide=is_wide,
    )


def _of_block_mask(block: BlockMask, given: tuple, T: int, S: int) -> tuple:
    """The positions and row numbers for which a block mask was made."""
    if (block.query_length, block.key_length) != (T, S):
        raise ValueError(
            f"mask is a BlockMask for T={block.query_length} queries and S={block.key_length} "
            f"keys; got T={T}, S={S}: make one of the rule, attn_jax.block_mask(rule, {T}, {S})"
        )
    if any(numbers is not None for numbers in given):
        raise ValueError(
            "query_position, key_position, query_row and key_row are part of the BlockMask given "
            "as mask: pass them to attn_jax.block_mask instead"
        )
    return block.query_position, block.key_position, block.query_row, block.key_row


def _check_alignment(mask, score_mod, query_position, key_position, T: int, S: int) -> None:
    compares = (callable(mask) and masks.is_aligned(mask)) or (
        score_mod is not None and score_mods.is_aligned(score_mod)
    )
    if compares:
        checks.check_aligned("mask or score_mod", query_position, key_position, T, S)


def _pair_score(score: scores.Score, H: int, E: int, dtype) -> hoist.Hoisted:
    """A score of matrices as a function of one query and one key."""

    def of_pair(query: Float[Array, " H"], key: Float[Array, " E"]) -> Float[Array, ""]:
        return score(query[None], key[None])[0, 0].astype(dtype)

    rows = (jax.ShapeDtypeStruct((width,), dtype) for width in (H, E))
    return hoist.hoist(of_pair, *rows)


def _mask(mask: Any, T: int, S: int) -> Any:
    """Any kind of mask as a pytree that is called with positions."""
    if isinstance(mask, BlockMask):
        return mask.mask
    if mask is None or callable(mask):
        return mask if mask is None else masks.as_pytree(mask)
    checks.check_boolean("mask", mask, additive=_BIAS_ADVICE)
    checks.check_broadcastable("mask", mask, (T, S), "T S")
    return TableMask(Table(mask, "pair", ordered=True))
