"""A slot for each position, up to a capacity."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Int

from attn_jax.caches import _storage
from attn_jax.caches._cache import UNUSED, Cache, Held, check_room


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Contiguous(Cache):
    @property
    def capacity(self) -> int:
        """How many tokens a row can hold."""
        return jax.tree.leaves(self.key)[0].shape[1]

    def _append(self, key, value, is_real, position) -> tuple["Contiguous", Held]:
        C = self.capacity
        check_room(self.lengths, is_real, C, "make it with a larger one")
        slot = jnp.where(is_real, position, C + position)  # past the end: dropped
        put = jax.vmap(_storage.put)
        wanted = self.lengths + jnp.sum(is_real, axis=1, dtype=jnp.int32)
        cache = dataclasses.replace(
            self,
            key=put(self.key, slot, key),
            value=put(self.value, slot, value),
            lengths=jnp.minimum(wanted, C),
            overflowed=self.overflowed | (wanted > C),
        )
        held = Held(
            _storage.decode(cache.key, key.dtype),
            _storage.decode(cache.value, value.dtype),
            used(C, cache.lengths),
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
      dtype: in which keys and values are kept; reads are in the dtype of what is appended.
      int8: keep them in eight bits instead, with a scale for each token and head.

    Returns:
      An empty `Cache`.

    Raises:
      ValueError: a size is below 1.
      TypeError: the dtype is not floating point.

    Numerics:
      With `int8` an entry is off by 1/254 of the greatest of its row at most.

    Cost:
      B capacity K (H + V) numbers; with `int8` bytes, and 8 bytes more a token and head.

    Example:
      >>> cache = attn_jax.caches.contiguous(2, 8, 1, 4)
      >>> cache, held = cache.append(*[jnp.ones((2, 3, 1, 4))] * 2)
      >>> out = attn_jax.cached_attention(jnp.ones((2, 3, 2, 4)), held)
      >>> out.shape, cache.capacity
      ((2, 3, 2, 4), 8)
    """
    kept = {"dtype": dtype, "int8": int8}
    return Contiguous(
        _storage.empty(B, capacity, K, H, **kept),
        _storage.empty(B, capacity, K, H if V is None else V, **kept),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
    )


def used(slots: int, lengths: Int[Array, " B"]) -> Int[Array, "B S"]:
    """The position of each slot where a row fills them in order; UNUSED past its length."""
    slot = jnp.arange(slots, dtype=jnp.int32)[None, :]
    return jnp.where(slot < lengths[:, None], slot, UNUSED)
