"""Pages that all rows draw from, and a table of them for each row: none keeps room for others."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from attn_jax.caches import _pages, _storage
from attn_jax.caches._cache import (
    Cache,
    CacheOverflow,
    Held,
    by_slot,
    check_room,
    check_sizes,
    first_known,
    in_order,
    longer,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paged(Cache):
    """What `paged` makes: a `Cache` whose `table` [B M] says on which pages each row is.

    Example:
      >>> cache = attn_jax.caches.paged(2, 8, 1, 1, page=2, pages=5)
      >>> rows = jnp.ones((2, 3, 1, 1))
      >>> cache, _ = cache.append(rows, rows, jnp.array([[True] * 3, [False] * 3]))
      >>> cache = cache.share(0, jnp.array([False, True]), 3)
      >>> cache.references.tolist(), int(cache.free)
      ([2, 2, 0, 0, 0], 3)
    """

    table: Any

    @property
    def capacity(self) -> int:
        """How many tokens a row can hold, as long as there are pages."""
        return self.table.shape[-1] * self.page

    @property
    def page(self) -> int:
        """How many tokens a page holds."""
        return _storage.shape(self.key)[-2]

    @property
    def references(self) -> Int[Array, " P"]:
        """How many rows read each page."""
        return _pages.references(self.table, self._count)

    @property
    def free(self) -> Int[Array, ""]:
        """How many pages nobody reads."""
        return jnp.sum(self.references == 0, dtype=jnp.int32)

    @property
    def _count(self) -> int:
        return _storage.shape(self.key)[0]

    def rewind(self, lengths: Int[Array, " B"]) -> "Paged":
        """As `Cache.rewind`; pages that nobody needs any longer are free."""
        return super().rewind(lengths)._without_the_rest()

    def reset(self, rows: Bool[Array, " B"]) -> "Paged":
        """As `Cache.reset`; the pages of these rows are free, but for those that others read."""
        return super().reset(rows)._without_the_rest()

    def share(self, source: int, rows: Bool[Array, " B"], length: Int[Array, ""] | int) -> "Paged":
        """These rows begin anew with the first `length` tokens of another, on the same pages.

        Tokens that come later stay each row's own: a page is copied before two rows write to it.

        Raises:
          ValueError: there is no such row, or it holds fewer tokens.
          TypeError: `rows` is not boolean.
        """
        rows = self._a_row_each("rows", rows, jnp.bool_)
        B, held = rows.size, self.lengths[source]
        if not 0 <= source < B:
            raise ValueError(f"source must be a row between 0 and {B - 1}; got {source}")
        length = jnp.asarray(length, jnp.int32)
        refused = rows & ((length < 0) | (length > held))
        if first_known(refused) is not None:
            raise ValueError(
                f"length must be between 0 and {held}, what row {source} holds; got {length}"
            )
        rows &= ~refused
        cache = dataclasses.replace(
            self,
            table=jnp.where(rows[:, None], self.table[source][None, :], self.table),
            lengths=jnp.where(rows, length, self.lengths),
            overflowed=(self.overflowed & ~rows) | refused,
        )
        return cache._without_the_rest()

    def _append(self, key, value, is_real, position) -> tuple["Paged", Held]:
        wanted = longer(self.lengths, is_real)
        check_room(self.lengths, wanted, self.capacity)
        most = jnp.minimum(wanted, self.capacity)
        grant = _pages.grant(self.table, self.lengths, most, page=self.page, P=self._count)
        if first_known(grant.missing[None] > 0) is not None:
            raise CacheOverflow(
                f"{grant.missing} pages are missing, and all {self._count} are in use; make the "
                "cache with more pages, or reset rows that have ended"
            )
        stays = is_real & (position < grant.lengths[:, None])
        cache = dataclasses.replace(
            self,
            key=self._put(self.key, grant, stays, position, key),
            value=self._put(self.value, grant, stays, position, value),
            table=grant.table,
            lengths=grant.lengths,
            overflowed=self.overflowed | (wanted > grant.lengths),
        )
        held = Held(
            cache._read(cache.key, key.dtype),
            cache._read(cache.value, value.dtype),
            in_order(self.capacity, cache.lengths),
            position,
        )
        return cache, held

    def _put(self, store, grant: _pages.Grant, stays, position, rows) -> _storage.Store:
        """Copies the pages that must be, then puts each token that stays into its page."""

        def copied(pages):
            return pages.at[grant.copy].set(
                pages[jnp.maximum(grant.source, 0)], mode="drop", unique_indices=True
            )

        column = jnp.clip(position // self.page, 0, self.table.shape[1] - 1)
        page = jnp.take_along_axis(grant.table, column, axis=1)
        outside = self._count + jnp.arange(page.size, dtype=jnp.int32).reshape(page.shape)
        index = (jnp.where(stays, page, outside), slice(None), position % self.page)
        return _storage.put(jax.tree.map(copied, store), index, rows)

    def _read(self, store: _storage.Store, dtype: DTypeLike) -> Float[Array, "B S K W"]:
        """The pages of each row side by side; any page stands in for one that is missing."""
        B, M = self.table.shape
        _, K, page, W = _storage.shape(store)
        pages = jax.tree.map(lambda leaf: leaf[jnp.maximum(self.table, 0)], store)
        rows = _storage.decode(pages, dtype)  # [B M K page W]
        return by_slot(rows.swapaxes(1, 2).reshape(B, K, M * page, W))

    def _taken(self, rows: Int[Array, " B"]) -> "Paged":
        """Tables are copied, pages are not."""
        own = {name: getattr(self, name)[rows] for name in ("table", "lengths", "overflowed")}
        return dataclasses.replace(self, **own)

    def _without_the_rest(self) -> "Paged":
        """Without the pages past each row's length."""
        count = _pages.needed(self.lengths, self.page)
        return dataclasses.replace(self, table=_pages.first(self.table, count))


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
    another one, `reorder` copies tables only, `reset` and `rewind` give pages back.

      slot of a position = table[row, position // page], position mod page

    Args:
      B: how many sequences.
      capacity: the most tokens of one sequence, rounded up to whole pages.
      K: key/value heads.
      H: width of a head's keys.
      V: width of a head's values; H by default.
      page: how many tokens a page holds.
      pages: how many there are; as many as all rows need at full length by default.
      dtype: in which keys and values are kept without `int8`; reads are in the dtype of what is
        appended.
      int8: keep them in eight bits, with a float32 scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      As `contiguous`.

    Cost:
      pages · page K (H + V) numbers to keep. A read gathers the pages of all rows side by side,
      B capacity K (H + V) numbers for as long as it lasts: here XLA has no kernel that reads pages
      where they lie.

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
    V = H if V is None else V
    check_sizes(B=B, capacity=capacity, K=K, H=H, V=V, page=page)
    M = -(-capacity // page)
    pages = B * M if pages is None else pages
    check_sizes(pages=pages)
    return Paged(
        _storage.empty(pages, K, page, H, dtype=dtype, int8=int8),
        _storage.empty(pages, K, page, V, dtype=dtype, int8=int8),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
        jnp.full((B, M), _pages.NONE, jnp.int32),
    )
