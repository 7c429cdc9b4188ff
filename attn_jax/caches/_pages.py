"""Bookkeeping of the paged cache: which pages are free, and which page a token is written to.

A page table [B M] has the page numbers of each batch example in order, then `NONE`. Free pages and
reference counts are computed from the table, so they cannot disagree with it. Batch examples that
share a page have it in the same column.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

NONE = -1


class Allocation(NamedTuple):
    """The pages for batch examples that grow.

    Attributes:
      table: the page table with the new pages.
      lengths: how many tokens each batch example has room for, of those it asked for.
      source: the page to copy, for each batch example.
      copy: the page to copy it to; a number past the last page where nothing is copied.
      missing: how many pages are missing; 0 or less where there are enough.
    """

    table: Int[Array, "B M"]
    lengths: Int[Array, " B"]
    source: Int[Array, " B"]
    copy: Int[Array, " B"]
    missing: Int[Array, ""]


def references(table: Int[Array, "B M"], P: int) -> Int[Array, " P"]:
    """Returns how many batch examples use each of the P pages."""
    page = jnp.where(table == NONE, P, table)
    return jnp.zeros(P, jnp.int32).at[page].add(1, mode="drop")


def pages_for(lengths: Int[Array, " B"], page: int) -> Int[Array, " B"]:
    """Returns how many pages hold so many tokens."""
    return -(-lengths // page)


def truncated(table: Int[Array, "B M"], count: Int[Array, " B"]) -> Int[Array, "B M"]:
    """Returns the table with the first `count` pages of each batch example, and no others."""
    column = jnp.arange(table.shape[1], dtype=jnp.int32)[None, :]
    return jnp.where(column < count[:, None], table, NONE)


def allocate(
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    wanted: Int[Array, " B"],
    *,
    page: int,
    P: int,
) -> Allocation:
    """Allocates pages for batch examples that grow from `lengths` to `wanted` tokens.

    Free pages go to the batch examples in order, as long as there are any. A last page that is not
    full is written in place, unless another batch example shares it; then it is copied to the first
    new page.
    """
    B, M = table.shape
    used = pages_for(lengths, page)
    copies = _needs_copy(table, lengths, wanted, page)
    start = used - copies.astype(jnp.int32)
    column = jnp.arange(M, dtype=jnp.int32)[None, :]
    asked = (column >= start[:, None]) & (column < pages_for(wanted, page)[:, None])
    rank = jnp.cumsum(asked.reshape(-1), dtype=jnp.int32).reshape(B, M) - 1
    is_free = references(table, P) == 0
    free = jnp.argsort(~is_free, stable=True).astype(jnp.int32)
    count = jnp.sum(is_free, dtype=jnp.int32)
    given = asked & (rank < count)
    extended = jnp.where(given, free[jnp.clip(rank, 0, P - 1)], table)
    room = (start + jnp.sum(given, axis=1, dtype=jnp.int32)) * page
    copied = copies & jnp.any(given, axis=1)
    outside = P + jnp.arange(B, dtype=jnp.int32)
    return Allocation(
        table=extended,
        lengths=jnp.maximum(lengths, jnp.minimum(wanted, room)),
        source=_last_page(table, used),
        copy=jnp.where(copied, _last_page(extended, start + 1), outside),
        missing=jnp.sum(asked, dtype=jnp.int32) - count,
    )


def _needs_copy(
    table: Int[Array, "B M"], lengths: Int[Array, " B"], wanted: Int[Array, " B"], page: int
) -> Bool[Array, " B"]:
    """Whether a batch example would write to a page on which another one has or writes tokens.

    Batch examples that share a page have the same tokens up to the shortest length. So the longest
    one may write after its own tokens, where no other attends to. Of several with that length, the
    first may, and the others get copies.
    """
    B = lengths.size
    used = pages_for(lengths, page)
    column = jnp.maximum(used - 1, 0)
    there = jnp.take(table, column, axis=1).T  # [b, other]: the other's page in b's last column
    shares = (there == _last_page(table, used)[:, None]) & ~jnp.eye(B, dtype=bool)
    writes = wanted > lengths
    before = jnp.tril(jnp.ones((B, B), bool), -1)
    as_long = lengths[None, :] == lengths[:, None]
    comes_first = (lengths[None, :] > lengths[:, None]) | (as_long & writes[None, :] & before)
    return writes & (lengths % page > 0) & jnp.any(shares & comes_first, axis=1)


def _last_page(table: Int[Array, "B M"], count: Int[Array, " B"]) -> Int[Array, " B"]:
    """Returns the last of the first `count` pages of each example; page one if `count` is 0."""
    column = jnp.clip(count - 1, 0, table.shape[1] - 1)
    return jnp.take_along_axis(table, column[:, None], axis=1)[:, 0]
