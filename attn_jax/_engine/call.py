"""One call of attention, checked and with every default filled in: what all kernels receive.

It is a pytree: arrays, and arrays that functions captured, are leaves; what the functions do is
part of its structure. So one compiled function serves every call that does the same.
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

_ADDITIVE = "score_mod=attn_jax.score_mods.dense_bias(mask)"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TableMask(masks.Mask):
    """A mask that is written out, by query, by key or by pair, in the order of the call."""

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
    """Which pairs of a query and a key are read: what decides it has no derivative.

    `lists` and `tile` are those of a block mask. `in_order` says that no positions were given, so
    that both sides stand at 0, 1, 2, … `is_wide` says that a pair takes a vector on its way to a
    number, as additive scores do, so that tiles must be small. (Fields have no types: JAX maps
    trees to trees of shapes or of None.)
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
class Read:
    """What is read of a pair; whatever varies by query, key or pair is a table.

    `score` None is the dot product, else it scores one pair of rows. Positions are there for
    `score_mod`. Products take their operands in `product_dtype`, and JAX's `precision` by its name,
    which is that of the context around the call: it is over when gradients are computed.
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
    """Attention of one head on one example: which pairs are read, and what is read of them.

    Tables are in the order of the call's queries and keys.
    """

    pairs: Pairs
    read: Read

    @property
    def sizes(self) -> tuple[int, int]:
        """T and S."""
        return self.read.query.values.shape[0], self.read.key.values.shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Work:
    """How much of one head a kernel computes: which tiles [I J] it needs, how many pairs one has.

    Heads and examples walk over their tiles together, so each of them visits what any of them
    needs. A kernel that knows no tiles has one, which is the whole problem.
    """

    needed: Any
    pairs: int = dataclasses.field(metadata={"static": True})


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

    `dropout` is a key and a rate, or None.
    """
    (T, H), (S, E) = query.shape, key.shape
    default_scale = 1.0 if score is not None else 1 / math.sqrt(max(H, 1))
    score = None if score is scores.dot else score
    if score is None and E != H:
        raise ValueError(f"key must be as wide as query, H = {H}; got {E}; or pass score=")
    checks.check_scale(scale)
    dtype = numerics.accumulation_dtype(query.dtype)
    places = query_position, key_position, query_row, key_row
    if isinstance(mask, BlockMask):
        places = _block_places(mask, places, T, S)
    i, j, *numbers = places
    _check_alignment(mask, score_mod, i, j, T, S)
    rows = rows_of(T, S, *numbers)
    change = None if score_mod is None else score_mods.as_pytree(score_mod, dtype)
    rules = concrete.at_run_time((_mask(mask, T, S), change), beside=query)
    rule, change = tables.order(rules, rows)
    pairs = _pairs(mask, rule, (i, j), (T, S), is_wide=score is not None)
    read = Read(
        query=Table(query, "query"),
        key=Table(key, "key"),
        value=Table(value, "key"),
        query_position=None if change is None else pairs.query_position,
        key_position=None if change is None else pairs.key_position,
        scale=numerics.as_scalar(default_scale if scale is None else scale, dtype),
        score=None if score is None else _pair_score(score, H, E, dtype),
        score_mod=change,
        dropout=None if dropout is None else Dropout.of(dropout[0], dropout[1], rows),
        product_dtype=str(jax.dtypes.canonicalize_dtype(query.dtype)),
        precision=jax.config.jax_default_matmul_precision,
    )
    return Call(pairs, read)


def _pairs(
    mask: Any, rule: Any, positions: tuple, sizes: tuple[int, int], *, is_wide: bool
) -> Pairs:
    """The rule of a mask, and positions, from 0 on where none are given."""
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


def _block_places(block: BlockMask, given: tuple, T: int, S: int) -> tuple:
    """The positions and rows that a block mask was made for; it answers for no others."""
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
    """The rule of a mask as a pytree; an array is a rule that is written out."""
    if isinstance(mask, BlockMask):
        return mask.mask
    if mask is None or callable(mask):
        return mask if mask is None else masks.as_pytree(mask)
    checks.check_boolean("mask", mask, additive=_ADDITIVE)
    checks.check_broadcastable("mask", mask, (T, S), "T S")
    return TableMask(Table(mask, "pair", ordered=True))
