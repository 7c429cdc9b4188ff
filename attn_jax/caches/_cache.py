"""What every cache is: lengths that are data, positions that follow from them, and one way in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attn_jax._base import checks, concrete
from attn_jax._base.value import Value
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
class Held(Value):
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
class Cache(Value):
    """Keys and values of B sequences of one layer; the kinds differ in where they keep them.

    Incremental decoding is Shazeer's, "Fast Transformer Decoding" (2019), section 2.3,
    https://arxiv.org/abs/1911.02150. `contiguous`, `sliding` and `paged` make one. `lengths` [B]
    counts the tokens that each row holds, and so is the position of its next one. Tokens that are
    not real are neither stored nor counted: rows may be padded on either side.

    Nothing is ever clamped. What cannot be done raises, and under `jit`, where values are not
    known, it is left undone and `overflowed` [B] is True of that row until the row begins anew.

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
        """How many tokens a row can hold; None where there is no end."""
        raise NotImplementedError

    def append[Kind: "Cache"](
        self: Kind,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K V"],
        is_real: Bool[Array, "B T"] | None = None,
    ) -> tuple[Kind, Held]:
        """Takes the next tokens of each row: one, a chunk or a whole prompt.

        Args:
          key: of the tokens.
          value: of the tokens.
          is_real: False for padding; None where all are real.

        Returns:
          The cache with the tokens, and what their queries may read.

        Raises:
          ValueError: sizes are not those of the cache.
          TypeError: keys and values are not floating point of one dtype, or `is_real` is not
            boolean.
          CacheOverflow: there is no room. Under `jit` the tokens that have none are left out.
        """
        is_real = self._checked(key, value, is_real)
        key, value = jnp.asarray(key), jnp.asarray(value)
        return self._append(key, value, is_real, self.positions(is_real))

    def positions(self, is_real: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """Where the next tokens will stand; −1 for those that are not real."""
        place = self.lengths[:, None] + jnp.cumsum(is_real, axis=1, dtype=jnp.int32) - 1
        return jnp.where(is_real, place, -1)

    def rewind[Kind: "Cache"](self: Kind, lengths: Int[Array, " B"]) -> Kind:
        """Forgets what stands at these positions and after them, as where drafts were refused.

        Raises:
          ValueError: a row would grow.
          TypeError: the lengths are not integers.
          CacheOverflow: a sliding cache has overwritten what the row would read.
        """
        lengths = self._a_row_each("lengths", lengths, jnp.integer).astype(jnp.int32)
        refused = (lengths < 0) | (lengths > self.lengths)
        if (row := first_known(refused)) is not None:
            raise ValueError(
                f"lengths[{row}] must be between 0 and {self.lengths[row]}, what the row holds; "
                f"got {lengths[row]}"
            )
        return dataclasses.replace(
            self,
            lengths=jnp.where(refused, self.lengths, lengths),
            overflowed=self.overflowed | refused,
        )

    def reorder[Kind: "Cache"](self: Kind, rows: Int[Array, " B"]) -> Kind:
        """Row b goes on as row rows[b] did: what beams do.

        Raises:
          ValueError: there is no such row.
          TypeError: the rows are not integers.
        """
        rows = self._a_row_each("rows", rows, jnp.integer)
        B = rows.size
        refused = (rows < 0) | (rows >= B)
        if (row := first_known(refused)) is not None:
            raise ValueError(f"rows[{row}] must be between 0 and {B - 1}; got {rows[row]}")
        own = jnp.arange(B, dtype=rows.dtype)
        cache = self._taken(jnp.where(refused, own, rows))
        return dataclasses.replace(cache, overflowed=cache.overflowed | refused)

    def reset[Kind: "Cache"](self: Kind, rows: Bool[Array, " B"]) -> Kind:
        """These rows begin anew.

        Raises:
          TypeError: `rows` is not boolean.
        """
        rows = self._a_row_each("rows", rows, jnp.bool_)
        return dataclasses.replace(
            self,
            lengths=jnp.where(rows, 0, self.lengths),
            overflowed=self.overflowed & ~rows,
        )

    def _append[Kind: "Cache"](self: Kind, key, value, is_real, position) -> tuple[Kind, Held]:
        raise NotImplementedError

    def _taken[Kind: "Cache"](self: Kind, rows: Int[Array, " B"]) -> Kind:
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def _a_row_each(self, name: str, array: Any, kind: Any) -> Array:
        """The array, which must have one entry a row, of this kind."""
        array = jnp.asarray(array)
        check_kind(name, array, kind)
        if array.shape != self.lengths.shape:
            raise ValueError(
                f"{name} must have one entry a row, {list(self.lengths.shape)}; got "
                f"{list(array.shape)}"
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
                    f"{name} must have shape [{B}, {length}, {K}, {W}], as the cache was made; got "
                    f"{list(array.shape)}"
                )
        if is_real is None:
            return jnp.ones((B, T), bool)
        check_kind("is_real", is_real, jnp.bool_)
        if is_real.shape != (B, T):
            raise ValueError(
                f"is_real must have one entry a token, [{B}, {T}]; got {list(is_real.shape)}"
            )
        return is_real


def check_kind(name: str, array: Array, kind: Any) -> None:
    """Checks that an array is boolean, or of integers.

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
    """Refuses tokens that have no room, where that can be known.

    Raises:
      CacheOverflow: a row would hold more than its capacity.
    """
    if (row := first_known(wanted > capacity)) is not None:
        raise CacheOverflow(
            f"row {row} holds {lengths[row]} tokens and is given {wanted[row] - lengths[row]} "
            f"more, and its capacity is {capacity}; make the cache with capacity >= {wanted[row]}"
        )


def first_known(refused: Bool[Array, " B"]) -> int | None:
    """The first row that is refused; None where there is none, or nothing is known yet."""
    known = concrete.at_hand(refused)
    rows = np.flatnonzero([] if known is None else known)
    return int(rows[0]) if rows.size else None


def longer(lengths: Int[Array, " B"], is_real: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """How many tokens each row has with those that are real."""
    return lengths + jnp.sum(is_real, axis=1, dtype=jnp.int32)


def in_order(slots: int, lengths: Int[Array, " B"]) -> Int[Array, "B S"]:
    """The position of each slot where a row fills them in order; UNUSED past its length."""
    slot = jnp.arange(slots, dtype=jnp.int32)[None, :]
    return jnp.where(slot < lengths[:, None], slot, UNUSED)


def by_slot(rows: Float[Array, "B K S W"]) -> Float[Array, "B S K W"]:
    """From the order in which rows are kept to that in which they are read."""
    return rows.swapaxes(1, 2)
