"""Arrays with one entry for each query, key or pair, which can be cut into tiles.

A mask or score mod looks entries up: `table(i, j)`. The engine orders a table by the call's queries
and keys, using their row numbers in the whole sequence (not their positions). It then cuts the
table into tiles, and gives each pair its entry. One class does all of it, so a mask is written
once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attn_jax._base.describe import in_short
from attn_jax._base.value import Value

type Over = Literal["query", "key", "pair"]
KINDS: tuple[Over, ...] = ("query", "key", "pair")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table(Value):
    """Values by query, by key, or by both; an axis of a pair may have size 1 and is then shared.

    Entry n belongs to the n-th query or key of the call where `ordered`, else to the row number n
    of the whole sequence.
    """

    values: Any
    over: Over = dataclasses.field(metadata={"static": True})
    ordered: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def core_rank(self) -> int:
        """The number of axes of one head's table."""
        return 2 if self.over == "pair" else 1

    def __repr__(self) -> str:
        return in_short(self.values)

    def __call__(self, query_row: Int[Array, ""], key_row: Int[Array, ""]) -> Array:
        """The entry for two rows; a table of one entry returns it for all rows."""
        if self.values.ndim == 0:
            return self.values
        at = {"query": (query_row,), "key": (key_row,)}
        index = at.get(self.over, (query_row, key_row))
        sizes = self.values.shape
        return _look_up(
            self.values,
            tuple(jnp.zeros_like(i) if n == 1 else i for i, n in zip(index, sizes, strict=True)),
        )


def is_table(node: object) -> bool:
    """Whether a node of a tree is a table; one whose values were taken out is not."""
    return isinstance(node, Table) and node.values is not None


class Rows(NamedTuple):
    """T queries and S keys, and their row numbers in the whole sequence; None for 0, 1, 2, …"""

    T: int
    S: int
    query_row: Any = None
    key_row: Any = None

    @property
    def numbers(self) -> tuple[Int[Array, " T"], Int[Array, " S"]]:
        """The rows as arrays."""
        query_row = (
            jnp.arange(self.T, dtype=jnp.int32) if self.query_row is None else self.query_row
        )
        key_row = jnp.arange(self.S, dtype=jnp.int32) if self.key_row is None else self.key_row
        return query_row, key_row


def order[Tree](tree: Tree, rows: Rows) -> Tree:
    """Orders every table of a tree by the call's queries and keys.

    Raises:
      ValueError: no rows are given, and a table has more or fewer entries than the call has.
    """

    def ordered(node):
        if not is_table(node) or node.ordered:
            return node
        values = node.values
        if node.over in ("query", "pair"):
            values = _in_order(values, node, 0, "query", rows.query_row, rows.T)
        if node.over in ("key", "pair"):
            values = _in_order(values, node, values.ndim - 1, "key", rows.key_row, rows.S)
        return Table(values, node.over, ordered=True)

    return jax.tree.map(ordered, tree, is_leaf=is_table)


def on_pairs(rule: Callable, *tiles: Array) -> Array:
    """`rule(*entries)` for each pair of a tile, on scalars; tables in the rule give their entries.

    Each of `tiles` is [t|1 s|1], and so the result is [t s].
    """
    operands = (rule, *(Table(tile, "pair") for tile in tiles))
    pairs = jax.tree.map(_as_pairs, operands, is_leaf=is_table)
    t, s = (next((n for n in map(size, tiles) if n != 1), 1) for size in (_rows, _columns))
    entries = jax.tree.map(_without_ones, pairs, is_leaf=is_table)

    def one(rule, *tables):
        return rule(*(table.values for table in tables))

    over_keys = jax.vmap(one, in_axes=_mapped(pairs, 1), axis_size=s)
    return jax.vmap(over_keys, in_axes=_mapped(pairs, 0), axis_size=t)(*entries)


def on_unmasked_pairs(
    rule: Any, logits: Array, i: Array, j: Array, unmasked: Bool[Array, "t s"] | None
) -> Array:
    """`rule(logit, i, j)` for all pairs of a tile, evaluated at unmasked pairs only.

    A rule may be infinite, or have an infinite derivative, at a masked pair. So a masked pair is
    computed from the inputs of the first unmasked pair, entries of tables included, and has no
    derivative; the caller masks its result. Where all pairs are masked, the arrays that the rule
    captured have no derivative either. A rule that `is_finite_everywhere` is evaluated as it is.
    """
    if unmasked is None or rule.is_finite_everywhere:
        return on_pairs(rule, logits, i, j)
    pair, some = _first_unmasked_pair(unmasked)

    def unmasked_or_replaced(values: Array) -> Array:
        first = values[tuple(0 if n == 1 else at for n, at in zip(values.shape, pair, strict=True))]
        return jnp.where(unmasked, values, jax.lax.stop_gradient(first))

    def replaced(node):
        if not is_table(node):
            return _derivative_only_where(some, node)
        return Table(unmasked_or_replaced(_as_pairs(node).values), "pair", ordered=True)

    rule = jax.tree.map(replaced, rule, is_leaf=is_table)
    return on_pairs(rule, *map(unmasked_or_replaced, (logits, i, j)))


def on_unmasked_rows(
    score: Callable, query: Array, key: Array, unmasked: Bool[Array, "t s"] | None
) -> Array:
    """`score(query[t], key[s])` for all pairs.

    A fully masked row is replaced by another row, and has no derivative, as in `on_unmasked_pairs`.
    """
    if unmasked is not None and unmasked.size:
        (t, s), some = _first_unmasked_pair(unmasked)
        query = jnp.where(unmasked.any(1)[:, None], query, jax.lax.stop_gradient(query[t]))
        key = jnp.where(unmasked.any(0)[:, None], key, jax.lax.stop_gradient(key[s]))
        score = jax.tree.map(lambda leaf: _derivative_only_where(some, leaf), score)
    over_keys = jax.vmap(score, in_axes=(None, 0))
    return jax.vmap(over_keys, in_axes=(0, None))(query, key)


def _first_unmasked_pair(unmasked: Bool[Array, "t s"]) -> tuple[tuple[Array, ...], Bool[Array, ""]]:
    """Row and column of the first unmasked pair, and whether there is one."""
    pair = jnp.unravel_index(jnp.argmax(unmasked), unmasked.shape)
    return pair, unmasked[pair]


def _derivative_only_where(some: Bool[Array, ""], leaf: Any) -> Any:
    """The same array, whose derivative is exactly 0 unless `some` holds."""
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return leaf
    return jnp.where(some, leaf, jax.lax.stop_gradient(leaf))


def _as_pairs(node: Any) -> Any:
    """A cut table with both axes; the one that it lacked has size 1."""
    if not is_table(node) or node.over == "pair":
        return node
    values = node.values[:, None] if node.over == "query" else node.values[None, :]
    return Table(values, "pair", ordered=True)


def _without_ones(node: Any) -> Any:
    if not is_table(node):
        return node
    shape = [n for n in node.values.shape if n != 1]
    return dataclasses.replace(node, values=node.values.reshape(shape))


def _rows(tile: Array) -> int:
    return tile.shape[0]


def _columns(tile: Array) -> int:
    return tile.shape[1]


def _mapped(pairs: Any, axis: int) -> Any:
    """`in_axes` for one of the two maps of `on_pairs`."""

    def axes(node):
        if not is_table(node):
            return None
        return dataclasses.replace(node, values=0 if node.values.shape[axis] != 1 else None)

    return jax.tree.map(axes, pairs, is_leaf=is_table)


def _in_order(
    values: Array, table: Table, axis: int, side: str, row: Int[Array, " L"] | None, count: int
) -> Array:
    """The entries of the call's queries or keys; an axis that all pairs share stays as it is."""
    size = values.shape[axis]
    if table.over == "pair" and size == 1:
        return values
    if row is not None:
        return _look_up(values, (slice(None),) * axis + (row,))
    if size != count:
        many = "queries" if side == "query" else "keys"
        raise ValueError(
            f"{side}_row is needed: a mask or score_mod looks {many} up in an array of {size} "
            f"entries, and there are {count} {many}; pass {side}_row, the number of each of them "
            f"in that array, or an array of {count} entries"
        )
    return values


def _look_up(values: Array, index: tuple) -> Array:
    """Entries of a table; where it does not reach they are False, NaN or the least integer."""
    if values.dtype == jnp.bool_:
        missing = False
    elif jnp.issubdtype(values.dtype, jnp.integer):
        missing = jnp.iinfo(values.dtype).min
    else:
        missing = jnp.nan
    return values.at[index].get(mode="fill", fill_value=missing, wrap_negative_indices=False)
