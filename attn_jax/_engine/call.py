"""One call of `attend`, checked and with every default filled in: what all backends receive.

It is a pytree: arrays, and arrays that functions captured, are leaves; what the functions do is
part of its structure. So one compiled function serves every call that does the same.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attn_jax import masks, score_mods, scores
from attn_jax._base import checks, concrete, hoist, numerics, tables
from attn_jax._base.grid import Grid, Kinds, positions_or_default, rows_of
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
class Call:
    """Arguments of one read: query [T H], key [S E], value [S V], positions [T] and [S].

    `score` None is the dot product, else it scores one pair of rows. Tables in `mask` and
    `score_mod` are in the order of the call's queries and keys. `in_order` says that no positions
    were given, so that both sides stand at 0, 1, 2, … `precision` is that of JAX's context
    (`jax.default_matmul_precision`) around the call, which is over when gradients are computed.
    """

    query: Any
    key: Any
    value: Any
    score: Any
    mask: Any
    score_mod: Any
    scale: Any
    query_position: Any
    key_position: Any
    dropout: Any
    in_order: bool = dataclasses.field(metadata={"static": True})
    precision: str | None = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Work:
    """How much of one head a backend computes: which tiles [I J] it needs, how many pairs one has.

    Heads and examples walk over their tiles together, so each of them visits what any of them
    needs. A backend that knows no tiles has one, which is the whole problem.
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
    if score is None and E != H:
        raise ValueError(f"key must be as wide as query, H = {H}; got {E}; or pass score=")
    checks.check_scale(scale)
    if mask is not None and not callable(mask) and not isinstance(mask, BlockMask):
        checks.check_boolean("mask", mask, additive=_ADDITIVE)
        checks.check_broadcastable("mask", mask, (T, S), "T S")
    dtype = numerics.accumulation_dtype(query.dtype)
    in_order = query_position is None and key_position is None and not isinstance(mask, BlockMask)
    default_scale = 1.0 if score is not None else 1 / math.sqrt(max(H, 1))
    if isinstance(mask, BlockMask):
        given = (query_position, key_position, query_row, key_row)
        query_position, key_position, query_row, key_row = _block_places(mask, given, T, S)
    _check_alignment(mask, score_mod, query_position, key_position, T, S)
    rows = rows_of(T, S, query_row, key_row)
    i = positions_or_default("query_position", query_position, T)
    j = positions_or_default("key_position", key_position, S)
    call = Call(
        query=query,
        key=key,
        value=value,
        score=None if score is None or score is scores.dot else _pair_score(score, H, E, dtype),
        mask=_mask(mask),
        score_mod=None if score_mod is None else score_mods.as_pytree(score_mod, dtype),
        scale=numerics.as_scalar(default_scale if scale is None else scale, dtype),
        query_position=i,
        key_position=j,
        dropout=None if dropout is None else Dropout.of(dropout[0], dropout[1], rows),
        in_order=in_order,
        precision=jax.config.jax_default_matmul_precision,
    )
    rules = concrete.at_run_time((call.mask, call.score_mod), beside=query)
    ordered = tables.order(rules, rows)
    return dataclasses.replace(call, mask=ordered[0], score_mod=ordered[1])


def _block_places(block: BlockMask, given: tuple, T: int, S: int) -> tuple:
    """The positions and rows that a block mask was made for; it answers for no others."""
    if (block.T, block.S) != (T, S):
        raise ValueError(
            f"mask is a BlockMask for T={block.T} queries and S={block.S} keys; got T={T}, S={S}: "
            f"make one of the rule, attn_jax.block_mask(rule, {T}, {S})"
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


def _mask(mask: Any) -> Any:
    if mask is None or isinstance(mask, BlockMask):
        return mask
    if callable(mask):
        return masks.as_pytree(mask)
    return TableMask(tables.Table(mask, "pair", ordered=True))
