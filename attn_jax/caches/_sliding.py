"""The sliding cache: a ring buffer that holds one window, so memory is constant."""

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
    check_sizes,
    first_known_true,
    lengths_after,
    slots_before_heads,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sliding(Cache):
    """The class of caches that `sliding` makes: position p of a sequence is in slot p mod slots.

    `furthest` [B] is the greatest length of each sequence since it was last empty. Tokens a whole
    ring before it are overwritten, also after `rewind`.

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
        """None: a sequence has no greatest length."""
        return None

    @property
    def chunk(self) -> int:
        """How many tokens have room beside a whole window, and so can be rewound."""
        return self._slots - self.window

    @property
    def _slots(self) -> int:
        return _storage.shape(self.key)[-2]

    def rewind(self, lengths: Int[Array, " B"]) -> "Sliding":
        """As `Cache.rewind`; once tokens were overwritten, by at most `chunk`, or to length 0."""
        lengths = self._per_example("lengths", lengths, jnp.integer).astype(jnp.int32)
        least = self.furthest - self.chunk
        is_gone = (self.furthest > self._slots) & (lengths > 0) & (lengths < least)
        if (example := first_known_true(is_gone)) is not None:
            raise CacheOverflow(
                f"lengths[{example}] must be at least {least[example]}, because batch example "
                f"{example} has been {self.furthest[example]} tokens long and chunk is "
                f"{self.chunk}; got {lengths[example]}; make the cache with a larger chunk"
            )
        cache = super().rewind(jnp.where(is_gone, self.lengths, lengths))
        return dataclasses.replace(
            cache,
            overflowed=cache.overflowed | is_gone,
            furthest=jnp.where(cache.lengths == 0, 0, self.furthest),
        )

    def reset(self, examples: Bool[Array, " B"]) -> "Sliding":
        """As `Cache.reset`."""
        cache = super().reset(examples)
        return dataclasses.replace(cache, furthest=jnp.where(examples, 0, self.furthest))

    def _sizes(self) -> dict[str, Any]:
        return {"window": self.window, "chunk": self.chunk}

    def _append(self, key, value, is_real, position) -> tuple["Sliding", Held]:
        lengths = lengths_after(self.lengths, is_real)
        slot = position % self._slots
        is_stored = is_real & (position >= lengths[:, None] - self._slots)
        cache = dataclasses.replace(
            self,
            key=_storage.write_slots(self.key, slot, is_stored, key),
            value=_storage.write_slots(self.value, slot, is_stored, value),
            lengths=lengths,
            furthest=jnp.maximum(self.furthest, lengths),
        )
        if key.shape[1] <= self.chunk:
            return cache, cache._held(key.dtype, position)
        # The tokens overwrite keys that their first queries need: attend to the ring before the
        # update, and to the tokens beside it.
        ring = self._held(key.dtype, position)
        own = jnp.where(is_real, position, UNUSED)
        held = Held(
            jnp.concatenate([ring.key, _storage.rounded(key, self.key)], axis=1),
            jnp.concatenate([ring.value, _storage.rounded(value, self.value)], axis=1),
            jnp.concatenate([ring.key_position, own], axis=1),
            position,
            self.window,
        )
        return cache, held

    def _held(self, dtype: DTypeLike, query_position: Int[Array, "B T"]) -> Held:
        """Returns the ring; a slot holds the last position below the length that maps to it."""
        last = self.lengths[:, None] - 1
        slot = jnp.arange(self._slots, dtype=jnp.int32)[None, :]
        position = last - (last - slot) % self._slots
        is_there = (position >= 0) & (position >= self.furthest[:, None] - self._slots)
        return Held(
            slots_before_heads(_storage.decode(self.key, dtype)),
            slots_before_heads(_storage.decode(self.value, dtype)),
            jnp.where(is_there, position, UNUSED),
            query_position,
            self.window,
        )


def sliding(
    batch: int,
    window: int,
    num_kv_heads: int,
    head_dim: int,
    value_dim: int | None = None,
    *,
    chunk: int = 1,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Sliding:
    """Makes an empty cache for layers with a sliding window: memory does not grow with the length.

    The rolling buffer of Jiang et al., "Mistral 7B" (2023), section 2,
    https://arxiv.org/abs/2310.06825. The position in each slot follows from the length.
    `cached_attention` applies the window, whatever other mask it gets.

      slot = position mod (window + chunk)

    Args:
      batch: how many sequences, B.
      window: how many *other* positions back a query may attend to, as in
        `masks.sliding_window(window, 0)`.
      num_kv_heads: how many heads of keys and values, K.
      head_dim: width of a head's keys, H.
      value_dim: width of a head's values, V; default head_dim.
      chunk: how many tokens have room beside the window; `rewind` can remove as many. Appending
        more tokens at once works too, but copies the window.
      dtype: dtype of the stored keys and values, unless `int8`. Attention gets them in the dtype of
        what was appended last.
      int8: whether to store them in eight bits, with a float32 scale for each token and head.

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
    value_dim = head_dim if value_dim is None else value_dim
    checks.check_window("window", (window, 0))
    check_sizes(
        batch=batch, num_kv_heads=num_kv_heads, head_dim=head_dim, value_dim=value_dim, chunk=chunk
    )
    slots = window + chunk
    return Sliding(
        _storage.empty(batch, num_kv_heads, slots, head_dim, dtype=dtype, int8=int8),
        _storage.empty(batch, num_kv_heads, slots, value_dim, dtype=dtype, int8=int8),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
        jnp.zeros(batch, jnp.int32),
        window,
    )
