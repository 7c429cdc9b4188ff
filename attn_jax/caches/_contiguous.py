"""A slot for each position, up to a capacity."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from attn_jax.caches import _storage
from attn_jax.caches._cache import Cache, Held, by_slot, check_room, check_sizes, in_order, longer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Contiguous(Cache):
    """What `contiguous` makes: a `Cache` that keeps position p of a row in its slot p.

    Example:
      >>> type(attn_jax.caches.contiguous(1, 4, 1, 1)) is attn_jax.caches.Contiguous
      True
    """

    @property
    def capacity(self) -> int:
        """How many tokens a row can hold."""
        return _storage.shape(self.key)[-2]

    def _append(self, key, value, is_real, position) -> tuple["Contiguous", Held]:
        wanted = longer(self.lengths, is_real)
        check_room(self.lengths, wanted, self.capacity)
        stays = is_real & (position < self.capacity)
        cache = dataclasses.replace(
            self,
            key=_storage.put_in_slots(self.key, position, stays, key),
            value=_storage.put_in_slots(self.value, position, stays, value),
            lengths=jnp.minimum(wanted, self.capacity),
            overflowed=self.overflowed | (wanted > self.capacity),
        )
        held = Held(
            by_slot(_storage.decode(cache.key, key.dtype)),
            by_slot(_storage.decode(cache.value, value.dtype)),
            in_order(self.capacity, cache.lengths),
            position,
        )
        return cache, held


def contiguous(
    B: int,
    capacity: int,
    K: int,
    H: int,
    V: int | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    int8: bool = False,
) -> Contiguous:
    """A cache with a slot for each position of each row: the plain kind.

    Shazeer, "Fast Transformer Decoding" (2019), section 2.3, https://arxiv.org/abs/1911.02150.

      slot = position

    Args:
      B: how many sequences.
      capacity: the most tokens of one sequence.
      K: key/value heads.
      H: width of a head's keys.
      V: width of a head's values; H by default.
      dtype: in which keys and values are kept without `int8`; reads are in the dtype of what is
        appended.
      int8: keep them in eight bits, with a float32 scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      With `int8` an entry is off by 1/254 of the greatest of its token and head, at most, and
      gradients do not pass.

    Cost:
      B capacity K (H + V) numbers; with `int8` bytes, and 8 bytes more a token and head. A step
      writes its own tokens only where the cache is donated or carried by a loop.

    Example:
      >>> cache = attn_jax.caches.contiguous(2, 8, 1, 4)
      >>> cache, held = cache.append(*[jnp.ones((2, 3, 1, 4))] * 2)
      >>> out = attn_jax.cached_attention(jnp.ones((2, 3, 2, 4)), held)
      >>> out.shape, cache.capacity, cache.lengths.tolist()
      ((2, 3, 2, 4), 8, [3, 3])
    """
    V = H if V is None else V
    check_sizes(B=B, capacity=capacity, K=K, H=H, V=V)
    return Contiguous(
        _storage.empty(B, K, capacity, H, dtype=dtype, int8=int8),
        _storage.empty(B, K, capacity, V, dtype=dtype, int8=int8),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
    )
