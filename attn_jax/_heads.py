"""Batch and heads of a call: one head of one example, mapped over all of them."""

import dataclasses
import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import score_mods
from attn_jax._call import TableMask
from attn_jax._leading import lead, map_leading
from attn_jax._tables import Table
from attn_jax.attend import attend
from attn_jax.dispatch import Implementation


@functools.partial(jax.jit, static_argnames=("dropout_rate", "implementation"))
def attend_heads(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K V"],
    scale: Float[Array, ""],
    options: dict[str, Any],
    *,
    dropout_rate: float,
    implementation: Implementation | None,
) -> Float[Array, "*B T N V"]:
    """Splits the query heads into groups, one a key/value head, and maps one head over them all."""
    operands = _split_heads(query, key, value, **options)

    def head(operands: dict) -> Float[Array, "T V"]:
        return attend(
            **operands,
            scale=scale,
            dropout_rate=dropout_rate,
            implementation=implementation,
        )

    *B, T, N, _ = query.shape
    out = map_leading(head, len(B) + 2)(operands)
    return jnp.moveaxis(out, -2, len(B)).reshape(*B, T, N, value.shape[-1])


def _split_heads(
    query, key, value, *, bias, rules, score_mod, sink, lengths, positions, dropout_rng
) -> dict[str, Any]:
    """What one head takes, with axes [*B K G] in front of each array, of full size or 1."""
    *B, T, N, H = query.shape
    S, K = key.shape[-3:-1]
    G, batch = N // K, len(B)
    heads = functools.partial(lead, batch=tuple(B), K=K, G=G)
    return {
        "query": jnp.moveaxis(query.reshape(*B, T, K, G, H), batch, -2),
        "key": jnp.moveaxis(key, batch, -2)[..., None, :, :],
        "value": jnp.moveaxis(value, batch, -2)[..., None, :, :],
        "mask": heads("mask", _all_of(*rules, *_within_lengths(lengths, T, S))),
        "score_mod": heads("score_mod", _change(bias, score_mod)),
        "sink": None if sink is None else sink.reshape((1,) * batch + (K, G)),
        "query_position": _lead_with_ones(positions[0], batch + 3),
        "key_position": _lead_with_ones(positions[1], batch + 3),
        "dropout_rng": _a_key_each(dropout_rng, (*B, K, G)),
    }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Biased(score_mods.ScoreMod):
    """Adds a bias by row and column of the call, then does what else is asked for."""

    bias: Any
    then: Any

    @property
    def aligned(self) -> bool:
        return self.then is not None and score_mods.is_aligned(self.then)

    def __call__(self, logit, query_position, key_position):
        biased = logit + self.bias(query_position, key_position).astype(logit.dtype)
        return biased if self.then is None else self.then(biased, query_position, key_position)


def _change(bias: Array | None, score_mod: Any) -> Any:
    if bias is None:
        return score_mod
    return _Biased(Table(bias, "pair", ordered=True), score_mod)


def _all_of(*rules: Any) -> Any:
    """One mask that asks every rule; arrays are written-out rules."""
    written = [
        TableMask(Table(rule, "pair", ordered=True)) if isinstance(rule, Array) else rule
        for rule in rules
        if rule is not None
    ]
    return functools.reduce(operator.and_, written) if written else None


def _within_lengths(lengths: tuple, T: int, S: int) -> list[TableMask]:
    """Which rows and columns of the call are real, [*B 1 L], whatever their positions."""
    query_length, key_length = lengths
    tables = []
    if query_length is not None:
        tables.append(Table(_real(T, query_length), "query", ordered=True))
    if key_length is not None:
        tables.append(Table(_real(S, key_length), "key", ordered=True))
    return [TableMask(table) for table in tables]


def _real(size: int, length: Int[Array, " *B"]) -> Bool[Array, "*B 1 L"]:
    places = jax.lax.broadcasted_iota(
        jnp.int32, (1,) * (length.ndim + 1) + (size,), length.ndim + 1
    )
    return places < _int32(length)[..., None, None]


def _a_key_each(rng: Key[Array, ""] | None, shape: tuple[int, ...]) -> Key[Array, "..."] | None:
    """One key a head of an example, by its number among all."""
    if rng is None:
        return None
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return jax.vmap(functools.partial(jax.random.fold_in, rng))(numbers).reshape(shape)


def _int32(counts: Int[Array, "..."]) -> Int[Array, "..."]:
    return counts.astype(jnp.int32)


def _lead_with_ones(position: Int[Array, "*B L"] | None, rank: int) -> Int[Array, "..."] | None:
    """[*B L] or [L] to rank axes: ones for heads and groups before L, and for a batch not given."""
    if position is None:
        return None
    *B, L = position.shape
    shape = (*B, 1, 1, L)
    return _int32(position).reshape((1,) * (rank - len(shape)) + shape)
