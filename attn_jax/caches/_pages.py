"""Which page belongs to whom, and which one is next: all of it counted from the tables of pages.

A table [B M] has the pages of each row in order, `NONE` after them. There is no list of free pages
and no count of readers that could come to disagree with it. Rows that share a page have it in the
same column.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

NONE = -1


class Grant(NamedTuple):
    """What rows get that ask for more tokens.

    Attributes:
      table: with the new pages.
      lengths: how many tokens each row has room for now, of those it asked for.
      source: the page whose copy a row gets.
      copy: the page that becomes that copy; past the last page where there is none.
      missing: how many pages there are too few; below 1 where there are enough.
    """

    table: Int[Array, "B M"]
    lengths: Int[Array, " B"]
    source: Int[Array, " B"]
    copy: Int[Array, " B"]
    missing: Int[Array, ""]


def references(table: Int[Array, "B M"], P: int) -> Int[Array, " P"]:
    """How many rows have each page."""
    page = jnp.where(table == NONE, P, table)
    return jnp.zeros(P, jnp.int32).at[page].add(1, mode="drop")


def needed(lengths: Int[Array, " B"], page: int) -> Int[Array, " B"]:
    """How many pages hold so many tokens."""
    return -(-lengths // page)


def first(table: Int[Array, "B M"], count: Int[Array, " B"]) -> Int[Array, "B M"]:
    """So many pages of each row, and none after them."""
    column = jnp.arange(table.shape[1], dtype=jnp.int32)[None, :]
    return jnp.where(column < count[:, None], table, NONE)


def grant(
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    wanted: Int[Array, " B"],
    *,
    page: int,
    P: int,
) -> Grant:
    """Pages for rows that grow from `lengths` to `wanted` tokens, as far as there are any.

    Free pages go to the rows in order. A last page that is not full is written in place, unless
    another row would see it: then the row gets a copy, which is what its first new page is for.
    """
    B, M = table.shape
    has = needed(lengths, page)
    copies = _is_seen_by_others(table, lengths, wanted, page)
    start = has - copies.astype(jnp.int32)
    column = jnp.arange(M, dtype=jnp.int32)[None, :]
    asked = (column >= start[:, None]) & (column < needed(wanted, page)[:, None])
    rank = jnp.cumsum(asked.reshape(-1), dtype=jnp.int32).reshape(B, M) - 1
    is_free = references(table, P) == 0
    free = jnp.argsort(~is_free, stable=True).astype(jnp.int32)
    count = jnp.sum(is_free, dtype=jnp.int32)
    given = asked & (rank < count)
    longer = jnp.where(given, free[jnp.clip(rank, 0, P - 1)], table)
    room = (start + jnp.sum(given, axis=1, dtype=jnp.int32)) * page
    copied = copies & jnp.any(given, axis=1)
    nowhere = P + jnp.arange(B, dtype=jnp.int32)
    return Grant(
        table=longer,
        lengths=jnp.maximum(lengths, jnp.minimum(wanted, room)),
        source=_last(table, has),
        copy=jnp.where(copied, _last(longer, start + 1), nowhere),
        missing=jnp.sum(asked, dtype=jnp.int32) - count,
    )


def _is_seen_by_others(
    table: Int[Array, "B M"], lengths: Int[Array, " B"], wanted: Int[Array, " B"], page: int
) -> Bool[Array, " B"]:
    """Whether a row is about to write where another one reads, or writes.

    Readers of a page have the same tokens up to the shortest of them. So the longest may write
    behind its own tokens where nobody looks; of several the first, and the others get copies.
    """
    B = lengths.size
    has = needed(lengths, page)
    column = jnp.maximum(has - 1, 0)
    there = jnp.take(table, column, axis=1).T  # [row, other row]: the other's page in this column
    others = (there == _last(table, has)[:, None]) & ~jnp.eye(B, dtype=bool)
    writes = wanted > lengths
    before = jnp.tril(jnp.ones((B, B), bool), -1)
    as_long = lengths[None, :] == lengths[:, None]
    rivals = (lengths[None, :] > lengths[:, None]) | (as_long & writes[None, :] & before)
    return writes & (lengths % page > 0) & jnp.any(others & rivals, axis=1)


def _last(table: Int[Array, "B M"], count: Int[Array, " B"]) -> Int[Array, " B"]:
    """The last of so many pages of each row; of none, the first column."""
    column = jnp.clip(count - 1, 0, table.shape[1] - 1)
    return jnp.take_along_axis(table, column[:, None], axis=1)[:, 0]
