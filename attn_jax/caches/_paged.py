"""Pages that all rows draw from, and a table of them for each row: none keeps room for others.

Which pages are in use, and by how many rows, is counted from the tables whenever it matters.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Int

from attn_jax import _checks
from attn_jax.caches import _storage
from attn_jax.caches._cache import Cache, CacheOverflow, Held, check_room, is_known
from attn_jax.caches._contiguous import used

_NONE = -1  # no page


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paged(Cache):
    """`key` [P page K H] and `value` [P page K V] are all rows'; `table` [B M] has their pages."""

    table: Any

    @property
    def page(self) -> int:
        """How many tokens a page holds."""
        return jax.tree.leaves(self.key)[0].shape[1]

    @property
    def capacity(self) -> int:
        """How many tokens a row can hold, as long as there are pages."""
        return self.table.shape[1] * self.page

    @property
    def references(self) -> Int[Array, " P"]:
        """How many rows read each page."""
        P = jax.tree.leaves(self.key)[0].shape[0]
        page = jnp.where(self.table == _NONE, P, self.table)
        return jnp.zeros(P, jnp.int32).at[page].add(1, mode="drop")

    @property
    def free(self) -> Int[Array, ""]:
        """How many pages nobody reads."""
        return jnp.sum(self.references == 0)

    def rewind(self, lengths: Int[Array, " B"]) -> "Paged":
        """As `Cache.rewind`; pages that are no longer needed are free."""
        lengths = self._rewound(lengths)
        table = _first(self.table, self._pages(lengths))
        return dataclasses.replace(self, lengths=lengths, table=table)

    def reset(self, rows: Bool[Array, " B"]) -> "Paged":
        """As `Cache.reset`; the pages of these rows are free, but for those that others read."""
        begun = self._begun(rows)
        table = _first(self.table, self._pages(begun["lengths"]))
        return dataclasses.replace(self, **begun, table=table)

    def reorder(self, rows: Int[Array, " B"]) -> "Paged":
        """As `Cache.reorder`: tables are copied, pages are not."""
        own = {name: getattr(self, name)[rows] for name in ("table", "lengths", "overflowed")}
        return dataclasses.replace(self, **own)

    def share(self, source: int, rows: Bool[Array, " B"], length: Int[Array, ""] | int) -> "Paged":
        """These rows begin anew with the first `length` tokens of another, on the same pages.

        A page that several rows read is copied when one of them writes to it.

        Raises:
          ValueError: the source row holds fewer tokens.
        """
        _checks.check_boolean("rows", rows)
        held = self.lengths[source]
        if is_known(held, length) and not 0 <= length <= held:
            raise ValueError(
                f"length must be between 0 and {held}, what row {source} holds; got {length}"
            )
        length = jnp.clip(jnp.asarray(length, jnp.int32), 0, held)
        lengths = jnp.where(rows, length, self.lengths)
        table = jnp.where(rows[:, None], self.table[source][None, :], self.table)
        return dataclasses.replace(
            self,
            table=_first(table, self._pages(lengths)),
            lengths=lengths,
            overflowed=self.overflowed & ~rows,
        )

    def _append(self, key, value, is_real, position) -> tuple["Paged", Held]:
        check_room(self.lengths, is_real, self.capacity, "make it with a larger one")
        wanted = self.lengths + jnp.sum(is_real, axis=1, dtype=jnp.int32)
        plan = self._plan(jnp.minimum(wanted, self.capacity))
        if is_known(plan.missing) and plan.missing > 0:
            raise CacheOverflow(
                f"{plan.missing} pages are missing: all {self.references.size} are in use; make "
                "the cache with more pages, or reset rows that have ended"
            )
        cache = dataclasses.replace(
            self._with_pages(plan)._write(key, value, is_real & plan.served[:, None], position),
            lengths=jnp.where(plan.served, jnp.minimum(wanted, self.capacity), self.lengths),
            overflowed=self.overflowed | ~plan.served | (wanted > self.capacity),
        )
        rows = (cache._read(cache.key, key.dtype), cache._read(cache.value, value.dtype))
        return cache, Held(*rows, used(self.capacity, cache.lengths), position)

    def _pages(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        return -(-lengths // self.page)

    def _plan(self, lengths: Int[Array, " B"]) -> "_Plan":
        """Which pages each row gets to hold so many tokens: new ones, and its last one as a copy.

        A last page that is not full, and that another row reads too, is copied before it is
        written. A row for which there are not enough pages gets none.
        """
        references, P = self.references, self.references.size
        has, needs = self._pages(self.lengths), self._pages(lengths)
        last = _at(self.table, has - 1)
        is_shared = (self.lengths % self.page > 0) & (references[last] > 1)
        copies = is_shared & (lengths > self.lengths)
        column = jnp.arange(self.table.shape[1], dtype=jnp.int32)[None, :]
        first = has - copies.astype(jnp.int32)
        is_new = (column >= first[:, None]) & (column < needs[:, None])
        rank = jnp.cumsum(is_new.reshape(-1), dtype=jnp.int32).reshape(is_new.shape) - 1
        free = jnp.argsort(references > 0, stable=True).astype(jnp.int32)
        available = jnp.sum(references == 0, dtype=jnp.int32)
        served = ~jnp.any(is_new & (rank >= available), axis=1)
        page = free[jnp.clip(rank, 0, P - 1)]
        table = jnp.where(is_new & served[:, None], page, self.table)
        missing = jnp.sum(is_new, dtype=jnp.int32) - available
        return _Plan(table, last, first, copies & served, served, missing)

    def _with_pages(self, plan: "_Plan") -> "Paged":
        """With the tables of a plan, and the pages copied that it asks for."""
        rows = jnp.arange(plan.last.size, dtype=jnp.int32)
        past = jax.tree.leaves(self.key)[0].shape[0] + rows
        target = jnp.where(plan.copies, _at(plan.table, plan.first), past)

        def copied(pages):
            return pages.at[target].set(pages[plan.last], mode="drop", unique_indices=True)

        stores = jax.lax.cond(
            plan.copies.any(),
            lambda stores: jax.tree.map(copied, stores),
            lambda stores: stores,
            (self.key, self.value),
        )
        return dataclasses.replace(self, key=stores[0], value=stores[1], table=plan.table)

    def _write(self, key, value, is_real, position) -> "Paged":
        """Puts each token into its page; one that has none is dropped."""
        column = jnp.clip(position // self.page, 0, self.table.shape[1] - 1)
        page = jnp.take_along_axis(self.table, column, axis=1)
        stays = is_real & (position < self.capacity) & (page != _NONE)
        slot = page * self.page + position % self.page
        end = jax.tree.leaves(self.key)[0].shape[0] * self.page
        past = end + jnp.arange(slot.size, dtype=jnp.int32).reshape(slot.shape)
        slot = jnp.where(stays, slot, past).reshape(-1)

        def put(store, rows):
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), store)
            flat = _storage.put(flat, slot, rows.reshape(-1, *rows.shape[2:]))
            return jax.tree.map(lambda new, old: new.reshape(old.shape), flat, store)

        return dataclasses.replace(self, key=put(self.key, key), value=put(self.value, value))

    def _read(self, store: _storage.Store, dtype: DTypeLike) -> Array:
        """The pages of each row side by side; what stands in for a missing one is not used."""
        pages = jax.tree.map(lambda leaf: leaf[jnp.maximum(self.table, 0)], store)
        rows = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:]), pages)
        return _storage.decode(rows, dtype)


class _Plan(NamedTuple):
    """`table` as it shall be; rows with `copies` get page `last` again at column `first`."""

    table: Int[Array, "B M"]
    last: Int[Array, " B"]
    first: Int[Array, " B"]
    copies: Bool[Array, " B"]
    served: Bool[Array, " B"]
    missing: Int[Array, ""]


def paged(
    B: int,
    capacity: int,
    K: int,
    H: int,
    V: int | None = None,
    *,
    page: int = 16,
    pages: int | None = None,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Paged:
    """A cache whose rows draw pages from one pool: for rows of unlike length, or alike beginnings.

    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention"
    (2023), section 4, https://arxiv.org/abs/2309.06180. `share` lets rows begin with the tokens of
    another one, `reset` and `rewind` give pages back.

      slot of a position = table[row, position // page], position mod page

    Args:
      B: how many sequences.
      capacity: the most tokens of one sequence, rounded up to whole pages.
      K: key/value heads.
      H: width of a head's keys.
      V: width of a head's values; H by default.
      page: how many tokens a page holds.
      pages: how many there are; as many as all rows need at full length by default.
      dtype: in which keys and values are kept; reads are in the dtype of what is appended.
      int8: keep them in eight bits instead, with a scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      As `contiguous`.

    Cost:
      pages · page K (H + V) numbers to keep. A read gathers the pages of all rows side by side:
      B capacity K (H + V) numbers for as long as it lasts.

    Example:
      >>> cache = attn_jax.caches.paged(2, 8, 1, 1, page=2, pages=5)
      >>> rows = jnp.arange(6.0).reshape(2, 3, 1, 1)
      >>> cache, _ = cache.append(rows, rows, jnp.array([[True] * 3, [False] * 3]))
      >>> int(cache.free)                                   # three tokens are two pages
      3
      >>> cache = cache.share(0, jnp.array([False, True]), 3)
      >>> int(cache.free), cache.lengths.tolist()
      (3, [3, 3])
    """
    _checks.check_size("page", page)
    _checks.check_size("capacity", capacity)
    M = -(-capacity // page)
    pages = B * M if pages is None else pages
    kept = {"dtype": dtype, "int8": int8}
    return Paged(
        _storage.empty(pages, page, K, H, **kept),
        _storage.empty(pages, page, K, H if V is None else V, **kept),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
        jnp.full((B, M), _NONE, jnp.int32),
    )


def _first(table: Int[Array, "B M"], pages: Int[Array, " B"]) -> Int[Array, "B M"]:
    """So many pages of each row, and none after them."""
    column = jnp.arange(table.shape[1], dtype=jnp.int32)[None, :]
    return jnp.where(column < pages[:, None], table, _NONE)


def _at(table: Int[Array, "B M"], column: Int[Array, " B"]) -> Int[Array, " B"]:
    """The page of each row in a column; one before the first is the first."""
    return jnp.take_along_axis(table, jnp.maximum(column, 0)[:, None], axis=1)[:, 0]
