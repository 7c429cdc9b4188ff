"""Batch and heads: attention of one head of one batch example, mapped over all of them."""

import dataclasses
import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from attn_jax import score_mods
from attn_jax._base import sharding, young_jax
from attn_jax._base.axes import Axes, in_front, level, map_levels, without_ones
from attn_jax._base.leading import lead
from attn_jax._base.log import compiles
from attn_jax._base.sharding import axes_of, on_automatic_axes
from attn_jax._base.tables import Table
from attn_jax._engine.call import TableMask, prepare
from attn_jax._engine.dispatch import Implementation
from attn_jax._engine.one_head import compute


def out_spec(query: Array, key: Array, value: Array, *_: Any) -> PartitionSpec:
    """How an output is sharded: a batch axis as in the first array that has it in full."""
    full = batch_of(query, key, value)
    batch = (
        (next(x for x in (query, key, value) if x.shape[n] == size), n)
        for n, size in enumerate(full)
    )
    return axes_of(*batch, (query, -3), (query, -2), (value, -1))


def batch_of(*arrays: Array) -> tuple[int, ...]:
    """The batch axes of arrays [*#B L N H]: an axis of size 1 is shared by all batch examples."""
    return jnp.broadcast_shapes(*(array.shape[:-3] for array in arrays))


def _specs(*operands: Any) -> tuple[PartitionSpec, PartitionSpec]:
    spec = out_spec(*operands)
    return spec, PartitionSpec(*spec[:-1])


def mesh_axes(query: Array, key: Array, value: Array) -> tuple[tuple[str, ...], ...] | None:
    """The explicit mesh axes over which each axis that `lay_out` maps is sharded, innermost first.

    None where one of the mesh's axes is not explicit: types of arrays tell nothing of the others.
    Query heads that are sharded over more devices than there are key heads are sharded over groups.
    """
    mesh = young_jax.explicit_mesh([query, key, value])
    if mesh is None or not young_jax.is_all_explicit(mesh):
        return None
    *batch, _, heads, _ = map(sharding.names, out_spec(query, key, value))
    N, K = query.shape[-2], key.shape[-2]
    of_keys = 0
    while of_keys < len(heads) and K % _devices(mesh, heads[: of_keys + 1]) == 0:
        of_keys += 1
    of_groups = heads[of_keys:] if _devices(mesh, heads[:of_keys]) == K else ()
    full = (*batch_of(query, key, value), K, N // K)
    each = (*batch, heads[:of_keys], of_groups)
    mapped = [names for names, size in zip(each, full, strict=True) if size != 1]
    return tuple(reversed(mapped))


def _devices(mesh: Any, names: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[name] for name in names)


@functools.partial(jax.jit, static_argnames=("dropout_rate", "implementation"))
def attend_heads(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    value: Float[Array, "*#B S K V"],
    options: dict[str, Any],
    *,
    dropout_rate: float,
    implementation: Implementation | None,
) -> tuple[Float[Array, "*B T N V"], Float[Array, "*B T N"]]:
    """Output and log-sum-exp of every head of every batch example."""
    static = {"dropout_rate": dropout_rate, "implementation": implementation}
    over = mesh_axes(query, key, value)
    return _attend_heads(query, key, value, options, over=over, **static)


@on_automatic_axes(_specs)
def _attend_heads(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    value: Float[Array, "*#B S K V"],
    options: dict[str, Any],
    *,
    over: tuple[tuple[str, ...], ...] | None,
    dropout_rate: float,
    implementation: Implementation | None,
) -> tuple[Float[Array, "*B T N V"], Float[Array, "*B T N"]]:
    compiles("attention of many heads", query=query, key=key, value=value, options=options)

    def head(query, key, value, options: dict) -> Any:
        sink, rng = options.pop("sink"), options.pop("dropout_rng")
        dropout = None if rng is None else (rng, dropout_rate)
        call = prepare(query, key, value, **options, dropout=dropout)
        return compute(call, sink, implementation=implementation)

    operands, inputs, outputs = lay_out(query, key, value, options)
    out, logsumexp = map_levels(head, inputs, outputs, mesh_axes=over)(*operands)
    out = with_heads(out, query, key, value)
    return out, logsumexp.reshape(out.shape[:-1])


@functools.partial(jax.jit, static_argnames=("dropout_rate", "implementation"))
def attend_heads_out(*operands: Any, **static: Any) -> Float[Array, "*B T N V"]:
    """`attend_heads` without log-sum-exp, which a kernel may then leave out."""
    return attend_heads(*operands, **static)[0]


def with_heads(rows: Array, query: Array, key: Array, value: Array) -> Array:
    """The output of each head, as `lay_out` orders it, with axes [*B T N] in front."""
    return rows.reshape(*batch_of(query, key, value), *query.shape[-3:-1], value.shape[-1])


def lay_out(
    query: Float[Array, "*#B T N H"],
    key: Float[Array, "*#B S K H"],
    value: Float[Array, "*#B S K V"],
    options: dict[str, Any],
) -> tuple[tuple, tuple, Axes]:
    """(operands, their axes, the axes of the output), for `map_levels` over a function of one head.

    Operands are query, key, value and options.

    Query heads fall into groups, one for each key/value head: [*B T K G H]. All axes stay where
    they are, so nothing is transposed. An axis of size 1 is shared, and is not mapped where it has
    size 1 everywhere. The output is [*B T K G V].
    """
    B = batch_of(query, key, value)
    T, N, H = query.shape[-3:]
    S, K = key.shape[-3:-1]
    groups = query.reshape(*query.shape[:-2], K, N // K, H)
    operands = groups, key, value, _of_heads((*B, K, N // K), T, S, **options)
    batch, places = len(B), tuple(reversed(range(len(B))))
    of_query, of_key = Axes((batch + 2, batch + 1, *places)), Axes((None, batch + 1, *places))
    of_options = jax.tree.map(lambda _: in_front(batch + 2), operands[3])
    operands, inputs = without_ones(operands, (of_query, of_key, of_key, of_options))
    outputs, sizes = of_query, (N // K, K, *reversed(B))
    for n in reversed(range(len(sizes))):
        if sizes[n] == 1:
            (_, inputs), outputs = level(inputs, n), outputs.without(n)
    return operands, inputs, outputs


def _of_heads(
    full: tuple[int, ...],
    T: int,
    S: int,
    *,
    scale,
    bias,
    rules,
    score_mod,
    sink,
    lengths,
    positions,
    rows,
    dropout_rng,
) -> dict[str, Any]:
    """The options of one head, with axes [*B K G] in front of each array, of full size or 1."""
    *B, K, G = full
    heads = functools.partial(lead, batch=tuple(B), K=K, G=G)
    return {
        "scale": scale.reshape((1,) * len(full)),
        "mask": heads("mask", _all_of(*rules, *_within_lengths(lengths, T, S))),
        "score_mod": heads("score_mod", _with_bias(bias, score_mod)),
        "sink": None if sink is None else sink.reshape((1,) * len(B) + (K, G)),
        "query_position": _lead_with_ones(positions[0], len(full) + 1),
        "key_position": _lead_with_ones(positions[1], len(full) + 1),
        "query_row": _lead_with_ones(rows[0], len(full) + 1),
        "key_row": _lead_with_ones(rows[1], len(full) + 1),
        "dropout_rng": _a_key_each(dropout_rng, full),
    }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Biased(score_mods.ScoreMod):
    """Adds a bias by row and column of the call, then applies `then`, a score mod or None."""

    bias: Any
    then: Any

    @property
    def aligned(self) -> bool:
        return self.then is not None and score_mods.is_aligned(self.then)

    @property
    def is_finite_everywhere(self) -> bool:
        return self.then is None

    def __call__(self, logit, query_position, key_position):
        biased = logit + self.bias(query_position, key_position).astype(logit.dtype)
        return biased if self.then is None else self.then(biased, query_position, key_position)


def _with_bias(bias: Array | None, score_mod: Any) -> Any:
    if bias is None:
        return score_mod
    return _Biased(Table(bias, "pair", ordered=True), score_mod)


def _all_of(*rules: Any) -> Any:
    """The conjunction of all rules; an array is a mask that is written out."""
    written = [
        TableMask(Table(rule, "pair", ordered=True)) if isinstance(rule, Array) else rule
        for rule in rules
        if rule is not None
    ]
    return functools.reduce(operator.and_, written) if written else None


def _within_lengths(lengths: tuple, T: int, S: int) -> list[TableMask]:
    """Masks of the rows and columns that are real, [*B 1 L], whatever their positions."""
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


def _a_key_each(rng: Key[Array, "..."] | None, shape: tuple[int, ...]) -> Key[Array, "..."] | None:
    """A PRNG key for each head of each batch example, by its number; or the keys that are given.

    Keys have axes [*B|1 N|1]: heads or batch examples that share a key drop the same weights.
    """
    if rng is None:
        return None
    if rng.ndim:
        *B, N = rng.shape
        return rng.reshape(*B, *((1, 1) if N == 1 else shape[-2:]))
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return jax.vmap(functools.partial(jax.random.fold_in, rng))(numbers).reshape(shape)


def _int32(counts: Int[Array, "..."]) -> Int[Array, "..."]:
    return counts.astype(jnp.int32)


def _lead_with_ones(position: Int[Array, "*B L"] | None, rank: int) -> Int[Array, "..."] | None:
    """[*B L] or [L] with `rank` axes: ones for heads, groups and a missing batch."""
    if position is None:
        return None
    *B, L = position.shape
    shape = (*B, 1, 1, L)
    return _int32(position).reshape((1,) * (rank - len(shape)) + shape)
