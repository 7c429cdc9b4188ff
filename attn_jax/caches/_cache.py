"""The base class of all caches: lengths, positions, the overflow flag, argument checks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax._base import checks, concrete
from attn_jax._base.value import Value
from attn_jax.caches import _storage
from attn_jax.caches._describe import describe_cache, table_of_cache

UNUSED = 2**30
"""The position of an empty slot: later than that of any query, so causally masked."""


class CacheOverflow(ValueError):  # noqa: N818 - it says what happened, as OverflowError does
    """A cache has no room for the tokens to append, or no longer holds the tokens to rewind to.

    Example:
      >>> cache = attn_jax.caches.contiguous(1, 2, 1, 1)
      >>> try:
      ...     cache.append(jnp.ones((1, 3, 1, 1)), jnp.ones((1, 3, 1, 1)))
      ... except attn_jax.caches.CacheOverflow as error:
      ...     print(str(error).split(";")[0])
      batch example 0 holds 0 tokens and gets 3 more, but its capacity is 2
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held(Value):
    """What `append` returns for `cached_attention`: all cached keys and values, and all positions.

    `key` [B S K H] and `value` [B S K V] are in any order: `key_position` [B S] has the position of
    each, or `UNUSED` where a slot is empty. `query_position` [B T] has the positions of the
    appended tokens, −1 for those that are not real. `window` is how many other positions back a
    query may attend to, None for all.

    Example:
      >>> cache = attn_jax.caches.contiguous(1, 4, 1, 1)
      >>> ones, is_real = jnp.ones((1, 3, 1, 1)), jnp.array([[False, True, True]])
      >>> _, held = cache.append(ones, ones, is_real)
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
class Cache(Value):
    """Cached keys and values of B sequences in one layer; the base of `Contiguous` and the others.

    Incremental decoding: Shazeer, "Fast Transformer Decoding" (2019), section 2.3,
    https://arxiv.org/abs/1911.02150. Make one with `contiguous`, `sliding` or `paged`. `lengths`
    [B] counts the tokens of each batch example, and so is the position of its next token. Tokens
    that are not real are neither stored nor counted: a batch may be padded on either side.

    An operation that is impossible raises an error. Under `jit`, where values are unknown, `append`
    stores the tokens that fit, `rewind` and `reorder` are skipped for that batch example, and
    `overflowed` [B] is True for it until `reset`.

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

    @property
    def capacity(self) -> int | None:
        """How many tokens each batch example can hold; None where there is no limit."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return describe_cache(self)

    def _repr_html_(self) -> str:
        return table_of_cache(self)

    def append[Kind: "Cache"](
        self: Kind,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K V"],
        is_real: Bool[Array, "B T"] | None = None,
    ) -> tuple[Kind, Held]:
        """Adds the next tokens of each sequence: one token, several, or a whole prompt.

        Args:
          key: keys of the tokens.
          value: values of the tokens.
          is_real: False for padding; None where all tokens are real.

        Returns:
          The cache with the tokens, and what the queries of these tokens may attend to.

        Raises:
          ValueError: the shapes do not match the cache.
          TypeError: keys and values are not floating point of one dtype, or `is_real` is not
            boolean.
          CacheOverflow: there is no room. Under `jit`, the tokens without room are dropped.
        """
        is_real = self._checked(key, value, is_real)
        key, value = jnp.asarray(key), jnp.asarray(value)
        return self._append(key, value, is_real, self.positions(is_real))

    def positions(self, is_real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Returns the positions that the next tokens will get; −1 for those that are not real."""
        place = self.lengths[:, None] + jnp.cumsum(is_real, axis=1, dtype=jnp.int32) - 1
        return jnp.where(is_real, place, -1)

    def rewind[Kind: "Cache"](self: Kind, lengths: Int[Array, " B"]) -> Kind:
        """Shortens each sequence to a length, for instance when draft tokens were rejected.

        Raises:
          ValueError: a length is negative or above the present one.
          TypeError: the lengths are not integers.
          CacheOverflow: a sliding cache has overwritten tokens that the window still needs.
        """
        lengths = self._per_example("lengths", lengths, jnp.integer).astype(jnp.int32)
        refused = (lengths < 0) | (lengths > self.lengths)
        if (example := first_known_true(refused)) is not None:
            raise ValueError(
                f"lengths[{example}] must be between 0 and {self.lengths[example]}, the present "
                f"length of batch example {example}; got {lengths[example]}"
            )
        return dataclasses.replace(
            self,
            lengths=jnp.where(refused, self.lengths, lengths),
            overflowed=self.overflowed | refused,
        )

    def reorder[Kind: "Cache"](self: Kind, source: Int[Array, " B"]) -> Kind:
        """Copies batch examples: example b of the result is example source[b], as in beam search.

        Raises:
          ValueError: an index is not that of a batch example.
          TypeError: the indices are not integers.
        """
        source = self._per_example("source", source, jnp.integer)
        B = source.size
        refused = (source < 0) | (source >= B)
        if (example := first_known_true(refused)) is not None:
            raise ValueError(
                f"source[{example}] must be between 0 and {B - 1}; got {source[example]}"
            )
        own = jnp.arange(B, dtype=source.dtype)
        cache = self._gather(jnp.where(refused, own, source))
        return dataclasses.replace(cache, overflowed=cache.overflowed | refused)

    def reset[Kind: "Cache"](self: Kind, examples: Bool[Array, " B"]) -> Kind:
        """Empties the batch examples for which `examples` is True.

        Raises:
          TypeError: `examples` is not boolean.
        """
        examples = self._per_example("examples", examples, jnp.bool_)
        return dataclasses.replace(
            self,
            lengths=jnp.where(examples, 0, self.lengths),
            overflowed=self.overflowed & ~examples,
        )

    def _sizes(self) -> dict[str, Any]:
        """The sizes of this kind of cache, by the names of the arguments that make one."""
        return {"capacity": self.capacity}

    def _append[Kind: "Cache"](self: Kind, key, value, is_real, position) -> tuple[Kind, Held]:
        raise NotImplementedError

    def _gather[Kind: "Cache"](self: Kind, source: Int[Array, " B"]) -> Kind:
        return jax.tree.map(lambda leaf: leaf[source], self)

    def _per_example(self, name: str, array: Any, kind: Any) -> Array:
        """Checks that an array has one entry for each batch example, of this kind of dtype."""
        array = jnp.asarray(array)
        check_kind(name, array, kind)
        if array.shape != self.lengths.shape:
            raise ValueError(
                f"{name} must have one entry for each batch example, {list(self.lengths.shape)}; "
                f"got {list(array.shape)}"
            )
        return array

    def _checked(self, key, value, is_real) -> Bool[Array, "B T"]:
        checks.check_floating(key=key, value=value)
        B, T = self.lengths.shape[0], key.shape[1] if key.ndim > 1 else 0
        for name, array, store in (("key", key, self.key), ("value", value, self.value)):
            _, K, _, W = _storage.shape(store)
            if array.shape != (B, T, K, W):
                length = "T" if name == "key" else f"{T}"
                raise ValueError(
                    f"{name} must have shape [{B}, {length}, {K}, {W}], as the cache has; got "
                    f"{list(array.shape)}"
                )
        if is_real is None:
            return jnp.ones((B, T), bool)
        check_kind("is_real", is_real, jnp.bool_)
        if is_real.shape != (B, T):
            raise ValueError(
                f"is_real must have one entry for each token, [{B}, {T}]; got {list(is_real.shape)}"
            )
        return is_real


def check_kind(name: str, array: Array, kind: Any) -> None:
    """Checks that an array is boolean (`jnp.bool_`), or of integers (`jnp.integer`).

    Raises:
      TypeError: it is not.
    """
    if not jnp.issubdtype(array.dtype, kind):
        wanted = "bool" if kind == jnp.bool_ else "integers"
        raise TypeError(f"{name} must be {wanted}; got {array.dtype}")


def check_sizes(**sizes: int) -> None:
    """Checks the sizes of a cache.

    Raises:
      ValueError: one of them is not an integer >= 1.
    """
    for name, size in sizes.items():
        checks.check_size(name, size)


def check_room(lengths: Int[Array, " B"], wanted: Int[Array, " B"], capacity: int) -> None:
    """Checks that no batch example outgrows the capacity, where the lengths are known.

    Raises:
      CacheOverflow: a wanted length is above the capacity.
    """
    if (example := first_known_true(wanted > capacity)) is not None:
        more = wanted[example] - lengths[example]
        raise CacheOverflow(
            f"batch example {example} holds {lengths[example]} tokens and gets {more} more, but "
            f"its capacity is {capacity}; make the cache with capacity >= {wanted[example]}"
        )


def first_known_true(refused: Bool[Array, " B"]) -> int | None:
    """Returns the first index that is True; None where all are False or the values are traced."""
    known = concrete.at_hand(refused)
    indices = np.flatnonzero([] if known is None else known)
    return int(indices[0]) if indices.size else None


def lengths_after(lengths: Int[Array, " B"], is_real: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """Returns the length of each batch example after the real tokens are appended."""
    return lengths + jnp.sum(is_real, axis=1, dtype=jnp.int32)


def slot_positions(slots: int, lengths: Int[Array, " B"]) -> Int[Array, "B S"]:
    """Returns the position in each slot if slot p has position p; UNUSED from the length on."""
    slot = jnp.arange(slots, dtype=jnp.int32)[None, :]
    return jnp.where(slot < lengths[:, None], slot, UNUSED)


def slots_before_heads(stored: Float[Array, "B K S W"]) -> Float[Array, "B S K W"]:
    """Turns the axis order of the store into that of attention calls."""
    return stored.swapaxes(1, 2)
