"""A ring of slots that holds a window: memory does not grow with the sequence."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Int

from attn_jax._base import checks
from attn_jax.caches import _storage
from attn_jax.caches._cache import (
    UNUSED,
    Cache,
    CacheOverflow,
    Held,
    by_slot,
    check_sizes,
    first_known,
    longer,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sliding(Cache):
    """What `sliding` makes: a `Cache` that keeps position p of a row in slot p mod slots.

    `furthest` [B] is how long each row has been since it began: what stands a whole ring before
    that is overwritten, also where the row has gone back since.

    Example:
      >>> cache = attn_jax.caches.sliding(1, 2, 1, 1, chunk=3)
      >>> cache, _ = cache.append(*[jnp.ones((1, 9, 1, 1))] * 2)
      >>> cache.chunk, cache.capacity, cache.rewind(jnp.array([6])).lengths.tolist()
      (3, None, [6])
    """

    furthest: Any
    window: int = dataclasses.field(metadata={"static": True})

    @property
    def capacity(self) -> None:
        """There is no end to what a row can be given."""
        return None

    @property
    def chunk(self) -> int:
        """How many tokens can be taken, or taken back, beside a whole window."""
        return self._slots - self.window

    @property
    def _slots(self) -> int:
        return _storage.shape(self.key)[-2]

    def rewind(self, lengths: Int[Array, " B"]) -> "Sliding":
        """As `Cache.rewind`; where tokens were overwritten, by `chunk` or to nothing."""
        lengths = self._a_row_each("lengths", lengths, jnp.integer).astype(jnp.int32)
        least = self.furthest - self.chunk
        is_gone = (self.furthest > self._slots) & (lengths > 0) & (lengths < least)
        if (row := first_known(is_gone)) is not None:
            raise CacheOverflow(
                f"lengths[{row}] must be at least {least[row]}, for the row has been "
                f"{self.furthest[row]} tokens long and chunk is {self.chunk}; got {lengths[row]}; "
                "make the cache with a larger chunk"
            )
        cache = super().rewind(jnp.where(is_gone, self.lengths, lengths))
        return dataclasses.replace(
            cache,
            overflowed=cache.overflowed | is_gone,
            furthest=jnp.where(cache.lengths == 0, 0, self.furthest),
        )

    def reset(self, rows: Bool[Array, " B"]) -> "Sliding":
        """As `Cache.reset`."""
        cache = super().reset(rows)
        return dataclasses.replace(cache, furthest=jnp.where(rows, 0, self.furthest))

    def _append(self, key, value, is_real, position) -> tuple["Sliding", Held]:
        lengths = longer(self.lengths, is_real)
        slot = position % self._slots
        stays = is_real & (position >= lengths[:, None] - self._slots)
        cache = dataclasses.replace(
            self,
            key=_storage.put_in_slots(self.key, slot, stays, key),
            value=_storage.put_in_slots(self.value, slot, stays, value),
            lengths=lengths,
            furthest=jnp.maximum(self.furthest, lengths),
        )
        if key.shape[1] <= self.chunk:
            return cache, cache._held(key.dtype, position)
        ring = self._held(key.dtype, position)
        own = jnp.where(is_real, position, UNUSED)
        held = Held(
            jnp.concatenate([ring.key, _storage.as_kept(key, self.key)], axis=1),
            jnp.concatenate([ring.value, _storage.as_kept(value, self.value)], axis=1),
            jnp.concatenate([ring.key_position, own], axis=1),
            position,
            self.window,
        )
        return cache, held

    def _held(self, dtype: DTypeLike, query_position: Int[Array, "B T"]) -> Held:
        """The ring: in each slot the last position before the row's length that falls to it."""
        last = self.lengths[:, None] - 1
        slot = jnp.arange(self._slots, dtype=jnp.int32)[None, :]
        position = last - (last - slot) % self._slots
        is_there = (position >= 0) & (position >= self.furthest[:, None] - self._slots)
        return Held(
            by_slot(_storage.decode(self.key, dtype)),
            by_slot(_storage.decode(self.value, dtype)),
            jnp.where(is_there, position, UNUSED),
            query_position,
            self.window,
        )


def sliding(
    B: int,
    window: int,
    K: int,
    H: int,
    V: int | None = None,
    *,
    chunk: int = 1,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Sliding:
    """A cache for layers whose queries read `window` other positions back: constant memory.

    The rolling buffer of Jiang et al., "Mistral 7B" (2023), section 2,
    https://arxiv.org/abs/2310.06825. What each slot holds follows from the length. Reads are within
    the window whatever mask comes with them.

      slot = position mod (window + chunk)

    Args:
      B: how many sequences.
      window: how many *other* positions back a query reads; `masks.sliding_window(window, 0)`.
      K: key/value heads.
      H: width of a head's keys.
      V: width of a head's values; H by default.
      chunk: how many tokens have room beside the window, and as many can be taken back by `rewind`.
        Longer pieces can be appended all the same, at the cost of a copy.
      dtype: in which keys and values are kept without `int8`; reads are in the dtype of what is
        appended.
      int8: keep them in eight bits, with a float32 scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1, or the window below 0.
      TypeError: the dtype is not floating point.

    Numerics:
      As `contiguous`.

    Cost:
      B (window + chunk) K (H + V) numbers.

    Example:
      >>> cache = attn_jax.caches.sliding(1, 2, 1, 1)
      >>> for token in range(5):
      ...     cache, held = cache.append(*[jnp.full((1, 1, 1, 1), float(token))] * 2)
      >>> held.key_position.tolist(), held.key[0, :, 0, 0].tolist()
      ([[3, 4, 2]], [3.0, 4.0, 2.0])
    """
    V = H if V is None else V
    checks.check_window("window", (window, 0))
    check_sizes(B=B, K=K, H=H, V=V, chunk=chunk)
    return Sliding(
        _storage.empty(B, K, window + chunk, H, dtype=dtype, int8=int8),
        _storage.empty(B, K, window + chunk, V, dtype=dtype, int8=int8),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
        jnp.zeros(B, jnp.int32),
        window,
    )
