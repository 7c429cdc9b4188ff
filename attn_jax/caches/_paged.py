"""The paged cache: sequences take pages from one pool as they grow, and can share pages."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from attn_jax._base.describe import is_deleted
from attn_jax.caches import _pages, _storage
from attn_jax.caches._cache import (
    Cache,
    CacheOverflow,
    Held,
    check_room,
    check_sizes,
    first_known_true,
    lengths_after,
    slot_positions,
    slots_before_heads,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paged(Cache):
    """The class of caches that `paged` makes: keys and values are stored in a pool of pages.

    `table` [B M] has the page numbers of each batch example in order, then −1.

    Example:
      >>> cache = attn_jax.caches.paged(2, 8, 1, 1, page=2, pages=5)
      >>> ones = jnp.ones((2, 3, 1, 1))
      >>> cache, _ = cache.append(ones, ones, jnp.array([[True] * 3, [False] * 3]))
      >>> cache = cache.share(0, jnp.array([False, True]), 3)
      >>> cache.references.tolist(), int(cache.free)
      ([2, 2, 0, 0, 0], 3)
    """

    table: Any

    @property
    def capacity(self) -> int:
        """How many tokens each batch example can hold, as long as there are free pages."""
        return self.table.shape[-1] * self.page

    @property
    def page(self) -> int:
        """How many tokens a page holds."""
        return _storage.shape(self.key)[-2]

    @property
    def references(self) -> Int[Array, " P"]:
        """How many batch examples use each page."""
        return _pages.references(self.table, self._count)

    @property
    def free(self) -> Int[Array, ""]:
        """How many pages no batch example uses."""
        return jnp.sum(self.references == 0, dtype=jnp.int32)

    @property
    def _count(self) -> int:
        return _storage.shape(self.key)[0]

    def rewind(self, lengths: Int[Array, " B"]) -> "Paged":
        """As `Cache.rewind`; pages that are no longer used become free."""
        return super().rewind(lengths)._without_unused_pages()

    def reset(self, examples: Bool[Array, " B"]) -> "Paged":
        """As `Cache.reset`; pages that no other batch example uses become free."""
        return super().reset(examples)._without_unused_pages()

    def share(
        self, source: int, examples: Bool[Array, " B"], length: Int[Array, ""] | int
    ) -> "Paged":
        """Makes batch examples start with the first `length` tokens of another, on the same pages.

        Their former tokens are dropped. A page is copied before two batch examples write to it, so
        later tokens are not shared.

        Args:
          source: the index of the batch example to start from.
          examples: True for each batch example that starts anew.
          length: how many tokens they share with the source.

        Raises:
          ValueError: the source is not an index of a batch example, or holds fewer tokens.
          TypeError: `examples` is not boolean.
        """
        examples = self._per_example("examples", examples, jnp.bool_)
        B, held = examples.size, self.lengths[source]
        if not 0 <= source < B:
            raise ValueError(f"source must be a batch example between 0 and {B - 1}; got {source}")
        length = jnp.asarray(length, jnp.int32)
        refused = examples & ((length < 0) | (length > held))
        if first_known_true(refused) is not None:
            raise ValueError(
                f"length must be between 0 and {held}, the present length of batch example "
                f"{source}; got {length}"
            )
        examples &= ~refused
        cache = dataclasses.replace(
            self,
            table=jnp.where(examples[:, None], self.table[source][None, :], self.table),
            lengths=jnp.where(examples, length, self.lengths),
            overflowed=(self.overflowed & ~examples) | refused,
        )
        return cache._without_unused_pages()

    def _sizes(self) -> dict[str, Any]:
        sizes = {"capacity": self.capacity, "page": self.page, "pages": self._count}
        return sizes if is_deleted(self.table) else {**sizes, "free": self.free}

    def _append(self, key, value, is_real, position) -> tuple["Paged", Held]:
        wanted = lengths_after(self.lengths, is_real)
        check_room(self.lengths, wanted, self.capacity)
        most = jnp.minimum(wanted, self.capacity)
        new = _pages.allocate(self.table, self.lengths, most, page=self.page, P=self._count)
        if first_known_true(new.missing[None] > 0) is not None:
            raise CacheOverflow(
                f"{new.missing} pages are missing, and all {self._count} are in use; make the "
                "cache with more pages, or reset batch examples that have ended"
            )
        is_stored = is_real & (position < new.lengths[:, None])
        cache = dataclasses.replace(
            self,
            key=self._write(self.key, new, is_stored, position, key),
            value=self._write(self.value, new, is_stored, position, value),
            table=new.table,
            lengths=new.lengths,
            overflowed=self.overflowed | (wanted > new.lengths),
        )
        held = Held(
            cache._gather_pages(cache.key, key.dtype),
            cache._gather_pages(cache.value, value.dtype),
            slot_positions(self.capacity, cache.lengths),
            position,
        )
        return cache, held

    def _write(self, store, new: _pages.Allocation, is_stored, position, vectors) -> _storage.Store:
        """A store with each new token on its page; shared pages that change are copied first."""

        def copied(pages):
            return pages.at[new.copy].set(
                pages[jnp.maximum(new.source, 0)], mode="drop", unique_indices=True
            )

        column = jnp.clip(position // self.page, 0, self.table.shape[1] - 1)
        page = jnp.take_along_axis(new.table, column, axis=1)
        outside = self._count + jnp.arange(page.size, dtype=jnp.int32).reshape(page.shape)
        index = (jnp.where(is_stored, page, outside), slice(None), position % self.page)
        return _storage.write(jax.tree.map(copied, store), index, vectors)

    def _gather_pages(self, store: _storage.Store, dtype: DTypeLike) -> Float[Array, "B S K W"]:
        """Returns the pages of each batch example in order; page 0 where the table has `NONE`."""
        B, M = self.table.shape
        _, K, page, W = _storage.shape(store)
        pages = jax.tree.map(lambda leaf: leaf[jnp.maximum(self.table, 0)], store)
        vectors = _storage.decode(pages, dtype)  # [B M K page W]
        return slots_before_heads(vectors.swapaxes(1, 2).reshape(B, K, M * page, W))

    def _gather(self, source: Int[Array, " B"]) -> "Paged":
        """Copies page tables, not pages."""
        own = {name: getattr(self, name)[source] for name in ("table", "lengths", "overflowed")}
        return dataclasses.replace(self, **own)

    def _without_unused_pages(self) -> "Paged":
        """Returns the cache without the pages past each sequence's length."""
        count = _pages.pages_for(self.lengths, self.page)
        return dataclasses.replace(self, table=_pages.truncated(self.table, count))


def paged(
    batch: int,
    capacity: int,
    num_kv_heads: int,
    head_dim: int,
    value_dim: int | None = None,
    *,
    page: int = 16,
    pages: int | None = None,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Paged:
    """Makes an empty cache with one pool of pages, for sequences of different lengths.

    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention"
    (2023), section 4, https://arxiv.org/abs/2309.06180. `share` lets batch examples start with the
    tokens of another one, `reorder` copies page tables only, `reset` and `rewind` free pages.

      page, slot in it = table[example, position // page], position mod page

    Args:
      batch: how many sequences, B.
      capacity: the most tokens of one sequence, rounded up to whole pages.
      num_kv_heads: how many heads of keys and values, K.
      head_dim: width of a head's keys, H.
      value_dim: width of a head's values, V; default head_dim.
      page: how many tokens a page holds.
      pages: how many pages there are; by default enough for all sequences at full length.
      dtype: dtype of the stored keys and values, unless `int8`. Attention gets them in the dtype of
        what was appended last.
      int8: whether to store them in eight bits, with a float32 scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      As `contiguous`.

    Cost:
      pages · page K (H + V) numbers. `append` also gathers the pages of all sequences in order for
      the attention call, B capacity K (H + V) numbers: XLA has no kernel that attends to pages in
      place.

    Example:
      >>> cache = attn_jax.caches.paged(2, 8, 1, 1, page=2, pages=5)
      >>> numbers = jnp.arange(6.0).reshape(2, 3, 1, 1)
      >>> cache, _ = cache.append(numbers, numbers, jnp.array([[True] * 3, [False] * 3]))
      >>> int(cache.free)                                   # three tokens are two pages
      3
      >>> cache = cache.share(0, jnp.array([False, True]), 3)
      >>> int(cache.free), cache.lengths.tolist()
      (3, [3, 3])
    """
    value_dim = head_dim if value_dim is None else value_dim
    check_sizes(
        batch=batch,
        capacity=capacity,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        page=page,
    )
    pages_each = -(-capacity // page)
    pages = batch * pages_each if pages is None else pages
    check_sizes(pages=pages)
    return Paged(
        _storage.empty(pages, num_kv_heads, page, head_dim, dtype=dtype, int8=int8),
        _storage.empty(pages, num_kv_heads, page, value_dim, dtype=dtype, int8=int8),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
        jnp.full((batch, pages_each), _pages.NONE, jnp.int32),
    )
