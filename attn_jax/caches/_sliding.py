"""A ring of slots that holds a window: memory does not grow with the sequence."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Int

from attn_jax import _checks
from attn_jax.caches import _storage
from attn_jax.caches._cache import UNUSED, Cache, CacheOverflow, Held, is_known


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sliding(Cache):
    window: int = dataclasses.field(metadata={"static": True})

    @property
    def capacity(self) -> None:
        """There is no end to what a row can be given."""
        return None

    @property
    def _slots(self) -> int:
        return jax.tree.leaves(self.key)[0].shape[1]

    @property
    def chunk(self) -> int:
        """How many tokens can be taken, or taken back, beside a whole window."""
        return self._slots - self.window

    def rewind(self, lengths: Int[Array, " B"]) -> "Sliding":
        """As `Cache.rewind`, by `chunk` tokens at most once older ones have been overwritten."""
        lengths = self._rewound(lengths)
        is_lost = (self.lengths > self._slots) & (self.lengths - lengths > self.chunk)
        if is_known(is_lost) and is_lost.any():
            raise CacheOverflow(
                f"lengths {lengths} go back more than chunk={self.chunk} tokens from "
                f"{self.lengths}, and the window before them is overwritten; make the cache with a "
                f"larger chunk"
            )
        return dataclasses.replace(self, lengths=lengths, overflowed=self.overflowed | is_lost)

    def _append(self, key, value, is_real, position) -> tuple["Sliding", Held]:
        C, old = self._slots, self.lengths
        lengths = old + jnp.sum(is_real, axis=1, dtype=jnp.int32)
        stays = is_real & (position >= lengths[:, None] - C)
        past = C + jnp.arange(key.shape[1], dtype=jnp.int32)[None, :]
        slot = jnp.where(stays, position % C, past)
        put = jax.vmap(_storage.put)
        cache = dataclasses.replace(
            self,
            key=put(self.key, slot, key),
            value=put(self.value, slot, value),
            lengths=lengths,
        )
        ring = cache if key.shape[1] <= self.chunk else self
        keys, values = (
            _storage.decode(ring.key, key.dtype),
            _storage.decode(ring.value, value.dtype),
        )
        key_position = _positions(C, ring.lengths)
        if ring is self:  # the window before the first token, and then the tokens themselves
            keys, values = jnp.concatenate([keys, key], 1), jnp.concatenate([values, value], 1)
            own = jnp.where(is_real, position, UNUSED)
            key_position = jnp.concatenate([key_position, own], axis=1)
        return cache, Held(keys, values, key_position, position, self.window)


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
      chunk: how many tokens have room beside the window. As many can be taken back by `rewind`;
        longer pieces can be appended all the same, at the cost of a copy.
      dtype: in which keys and values are kept; reads are in the dtype of what is appended.
      int8: keep them in eight bits instead, with a scale for each token and head.

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
    _checks.check_window("window", (window, 0))
    _checks.check_size("chunk", chunk)
    kept = {"dtype": dtype, "int8": int8}
    return Sliding(
        _storage.empty(B, window + chunk, K, H, **kept),
        _storage.empty(B, window + chunk, K, H if V is None else V, **kept),
        jnp.zeros(B, jnp.int32),
        jnp.zeros(B, bool),
        window,
    )


def _positions(slots: int, lengths: Int[Array, " B"]) -> Int[Array, "B S"]:
    """The last position before each length that falls to each slot."""
    last = lengths[:, None] - 1
    position = last - (last - jnp.arange(slots, dtype=jnp.int32)[None, :]) % slots
    return jnp.where(position < 0, UNUSED, position)
