"""The contiguous cache: one slot for each position, up to a capacity."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from attn_jax.caches import _storage
from attn_jax.caches._cache import (
    Cache,
    Held,
    check_room,
    check_sizes,
    lengths_after,
    slot_positions,
    slots_before_heads,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Contiguous(Cache):
    """The class of caches that `contiguous` makes: position p of a sequence is in its slot p.

    Example:
      >>> type(attn_jax.caches.contiguous(1, 4, 1, 1)) is attn_jax.caches.Contiguous
      True
    """

    @property
    def capacity(self) -> int:
        """How many tokens each batch example can hold."""
        return _storage.shape(self.key)[-2]

    def _append(self, key, value, is_real, position) -> tuple["Contiguous", Held]:
        wanted = lengths_after(self.lengths, is_real)
        check_room(self.lengths, wanted, self.capacity)
        is_stored = is_real & (position < self.capacity)
        cache = dataclasses.replace(
            self,
            key=_storage.write_slots(self.key, position, is_stored, key),
            value=_storage.write_slots(self.value, position, is_stored, value),
            lengths=jnp.minimum(wanted, self.capacity),
            overflowed=self.overflowed | (wanted > self.capacity),
        )
        held = Held(
            slots_before_heads(_storage.decode(cache.key, key.dtype)),
            slots_before_heads(_storage.decode(cache.value, value.dtype)),
            slot_positions(self.capacity, cache.lengths),
            position,
        )
        return cache, held


def contiguous(
    batch: int,
    capacity: int,
    num_kv_heads: int,
    head_dim: int,
    value_dim: int | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Contiguous:
    """Makes an empty cache with one slot for each position of each sequence: the plain kind.

    Shazeer, "Fast Transformer Decoding" (2019), section 2.3, https://arxiv.org/abs/1911.02150.

      slot = position

    Args:
      batch: how many sequences, B.
      capacity: the most tokens of one sequence.
      num_kv_heads: how many heads of keys and values, K.
      head_dim: width of a head's keys, H.
      value_dim: width of a head's values, V; default head_dim.
      dtype: dtype of the stored keys and values, unless `int8`. Attention gets them in the dtype of
        what was appended last.
      int8: whether to store them in eight bits, with a float32 scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      With `int8`, the error of an entry is at most 1/254 of the greatest entry of its token and
      head, and gradients do not pass.

    Cost:
      B capacity K (H + V) numbers; with `int8` bytes, and 8 bytes more for each token and head. A
      decode step writes only its own tokens if the cache is donated or carried by a loop; otherwise
      it copies the cache.

    Example:
      >>> cache = attn_jax.caches.contiguous(2, 8, 1, 4)
      >>> cache, held = cache.append(*[jnp.ones((2, 3, 1, 4))] * 2)
      >>> out = attn_jax.cached_attention(jnp.ones((2, 3, 2, 4)), held)
      >>> out.shape, cache.capacity, cache.lengths.tolist()
      ((2, 3, 2, 4), 8, [3, 3])
    """
    value_dim = head_dim if value_dim is None else value_dim
    check_sizes(
        batch=batch,
        capacity=capacity,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
    )
    return Contiguous(
        _storage.empty(batch, num_kv_heads, capacity, head_dim, dtype=dtype, int8=int8),
        _storage.empty(batch, num_kv_heads, capacity, value_dim, dtype=dtype, int8=int8),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
    )
