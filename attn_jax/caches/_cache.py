"""What every cache is: lengths that are data, positions that follow from them, and one way in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax import _checks
from attn_jax.caches import _storage

UNUSED = 2**30  # the position of a slot that holds nothing: later than that of any query


class CacheOverflow(ValueError):  # noqa: N818 - it says what happened, as OverflowError does
    """A cache was given more tokens than it has room for, or told to go back further than it can.

    Example:
      >>> cache = attn_jax.caches.contiguous(1, 2, 1, 1)
      >>> try:
      ...     cache.append(jnp.ones((1, 3, 1, 1)), jnp.ones((1, 3, 1, 1)))
      ... except attn_jax.caches.CacheOverflow as error:
      ...     print(str(error).split(";")[0])
      row 0 holds 0 tokens and is given 3 more, and its capacity is 2
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """What queries may read once their own tokens are in the cache, and where everything stands.

    `key` [B S K H] and `value` [B S K V] lie in no order that matters: `key_position` [B S] says
    where each stands, `UNUSED` where a slot holds nothing; `query_position` [B T] is −1 for tokens
    that are not real. `window` is how many other positions back a query may read, None for all.
    `cached_attention` reads it.

    Example:
      >>> cache = attn_jax.caches.contiguous(1, 4, 1, 1)
      >>> rows, is_real = jnp.ones((1, 3, 1, 1)), jnp.array([[False, True, True]])
      >>> _, held = cache.append(rows, rows, is_real)
      >>> held.query_position.tolist(), (held.key_position < attn_jax.caches.UNUSED).tolist()
      ([[-1, 0, 1]], [[True, True, False, False]])
    """

    key: Any
    value: Any
    key_position: Any
    query_position: Any
    window: int | None = dataclasses.field(default=None, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of B sequences of one layer; the kinds differ in where they keep them.

    Incremental decoding is Shazeer's, "Fast Transformer Decoding" (2019), section 2.3,
    https://arxiv.org/abs/1911.02150. `contiguous`, `sliding` and `paged` make one. `lengths` [B]
    counts the tokens that each row has been given, and so is the position of its next one. Tokens
    that are not real are neither stored nor counted: rows may be padded on either side.

    Example:
      >>> cache = attn_jax.caches.contiguous(1, 4, 1, 1)
      >>> for token in (1.0, 2.0, 3.0):
      ...     cache, held = cache.append(*[jnp.full((1, 1, 1, 1), token)] * 2)
      >>> cache.lengths.tolist(), held.key[0, :, 0, 0].tolist()
      ([3], [1.0, 2.0, 3.0, 0.0])
      >>> cache.rewind(jnp.array([1])).lengths.tolist()
      [1]
    """

    key: Any
    value: Any
    lengths: Any
    overflowed: Any

    def append(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K V"],
        is_real: Bool[Array, "B T"] | None = None,
    ) -> tuple["Cache", Held]:
        """Takes the next tokens of each row: one, a chunk or a whole prompt.

        Args:
          key: of the tokens.
          value: of the tokens.
          is_real: False for padding; None where all are real.

        Returns:
          The cache with the tokens, and what their queries may read.

        Raises:
          ValueError: sizes are not those of the cache.
          TypeError: `is_real` is not boolean.
          CacheOverflow: there is no room. Under `jit` the tokens that have none are left out, and
            `overflowed` is True from then on.
        """
        is_real = self._checked(key, value, is_real)
        position = self.positions(is_real)
        return self._append(key, value, is_real, position)

    def positions(self, is_real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Where the next tokens will stand; −1 for those that are not real."""
        place = self.lengths[:, None] + jnp.cumsum(is_real, axis=1, dtype=jnp.int32) - 1
        return jnp.where(is_real, place, -1)

    def rewind(self, lengths: Int[Array, " B"]) -> "Cache":
        """Forgets what stands at these positions and after them, as where drafts were refused.

        Raises:
          ValueError: a row would grow.
          CacheOverflow: a row of a sliding cache has overwritten what it would need.
        """
        return dataclasses.replace(self, lengths=self._rewound(lengths))

    def reorder(self, rows: Int[Array, " B"]) -> "Cache":
        """Row b goes on as row rows[b] did: what beams do."""
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def reset(self, rows: Bool[Array, " B"]) -> "Cache":
        """These rows begin anew."""
        return dataclasses.replace(self, **self._begun(rows))

    def _rewound(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        """Lengths to go back to, checked."""
        lengths = jnp.asarray(lengths, jnp.int32)
        _checks.check_shapes(lengths=(lengths, "B"), cache=(self.lengths, "B"))
        if is_known(lengths, self.lengths):
            for row, (old, new) in enumerate(zip(self.lengths, lengths, strict=True)):
                if not 0 <= new <= old:
                    raise ValueError(
                        f"lengths[{row}] must be between 0 and {old}, what the row holds; got {new}"
                    )
        return jnp.clip(lengths, 0, self.lengths)

    def _begun(self, rows: Bool[Array, " B"]) -> dict[str, Array]:
        """What a cache says of itself where these rows begin anew."""
        _checks.check_boolean("rows", rows)
        return {
            "lengths": jnp.where(rows, 0, self.lengths),
            "overflowed": self.overflowed & ~rows,
        }

    def _append(self, key, value, is_real, position) -> tuple["Cache", Held]:
        raise NotImplementedError

    def _checked(self, key, value, is_real) -> Bool[Array, "B T"]:
        (K, H), (V,) = _row(self.key), _row(self.value)[1:]
        B = self.lengths.shape[0]
        _checks.check_floating(key=key, value=value)
        for name, array, wanted in (("key", key, (B, K, H)), ("value", value, (B, K, V))):
            if array.ndim != 4 or (array.shape[0], *array.shape[2:]) != wanted:
                sizes = ", ".join(map(str, (B, "T", *wanted[1:])))
                raise ValueError(
                    f"{name} must have shape [{sizes}], as the cache was made; got "
                    f"{list(array.shape)}"
                )
        T = key.shape[1]
        is_real = jnp.ones((B, T), bool) if is_real is None else is_real
        _checks.check_boolean("is_real", is_real)
        _checks.check_shapes(
            key=(key, "B T K H"), value=(value, "B T K V"), is_real=(is_real, "B T")
        )
        return is_real


def is_known(*arrays: Any) -> bool:
    """Whether values can be looked at, because nothing is being traced."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_room(
    lengths: Int[Array, " B"], is_real: Bool[Array, "B T"], capacity: int, advice: str
) -> None:
    """Refuses tokens that have no room, where that can be known.

    Raises:
      CacheOverflow: a row would hold more than its capacity.
    """
    if not is_known(lengths, is_real):
        return
    for row, (held, more) in enumerate(zip(lengths.tolist(), np.sum(is_real, 1), strict=True)):
        if held + more > capacity:
            raise CacheOverflow(
                f"row {row} holds {held} tokens and is given {more} more, and its capacity is "
                f"{capacity}; {advice}"
            )


def _row(store: _storage.Store) -> tuple[int, ...]:
    """Heads and width of a row of a store."""
    return jax.tree.leaves(store)[0].shape[-2:]
