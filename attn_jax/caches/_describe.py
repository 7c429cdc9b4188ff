"""A cache in one line of text, and as a table for notebooks."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from attn_jax._base import notebook
from attn_jax._base.describe import describe, describe_call, in_short, read_array
from attn_jax.caches import _storage

if TYPE_CHECKING:
    from attn_jax.caches._cache import Cache

LISTED = 16  # most batch examples whose lengths are shown
BAR = 16  # characters of a bar


def describe_cache(cache: "Cache") -> str:
    """Returns the class with the lengths, and the arguments that would make such a cache.

    A tree of the same structure that has no arrays gets the text of its fields.
    """
    if not _has_arrays(cache):
        return describe(cache)
    facts = {"lengths": _Text(_first(cache.lengths)), **cache._sizes(), **_vectors(cache)}
    overflowed = read_array(cache.overflowed)
    if overflowed is not None and overflowed.any():
        facts["overflowed"] = _Text(_first(cache.overflowed))
    return describe_call(type(cache).__name__, facts)


def table_of_cache(cache: "Cache") -> str:
    """Returns an HTML table: for each batch example its tokens and overflow flag; the bytes."""
    title = describe_cache(cache)
    if not _has_arrays(cache):
        return notebook.sentence(title, "It has no arrays.")
    lengths, overflowed = read_array(cache.lengths), read_array(cache.overflowed)
    if lengths is None or overflowed is None or lengths.ndim != 1:
        why = "shown outside of jit, for one layer whose arrays were not donated"
        rows = [("lengths", f"{in_short(cache.lengths)}; {why}")]
        header = ()
    else:
        header = ("batch example", "tokens", "", "overflow flag")
        rows = [
            (str(b), *_used(int(n), cache.capacity), "set" if flag else "")
            for b, (n, flag) in enumerate(zip(lengths[:LISTED], overflowed, strict=False))
        ]
        if lengths.size > LISTED:
            rest = lengths[LISTED:]
            rows.append((f"{rest.size} more", f"{rest.min()} to {rest.max()}", "", ""))
    return notebook.table(title, [*rows, ("memory", f"{_nbytes(cache):,} bytes")], header)


class _Text(str):
    """Text whose `repr` is the text itself."""

    __repr__ = str.__str__


def _first(array: Any) -> str:
    """The first entries of an array [B], or its dtype and shape if the host cannot read it."""
    read = read_array(array)
    if read is None or read.ndim != 1:
        return in_short(array)
    more = f", … {read.size} in all" if read.size > LISTED else ""
    return f"[{', '.join(map(str, read[:LISTED].tolist()))}{more}]"


def _vectors(cache: "Cache") -> dict[str, Any]:
    """The numbers and widths of heads, and the dtype, of the stored keys and values."""
    *_, heads, _, width = _storage.shape(cache.key)
    dtype = jax.tree.leaves(cache.key)[0].dtype
    value_dim = _storage.shape(cache.value)[-1]
    sizes = {"num_kv_heads": heads, "head_dim": width, "value_dim": value_dim}
    return {**sizes, "dtype": _Text(dtype)}


def _used(length: int, capacity: int | None) -> tuple[str, str]:
    """The number of tokens, of how many, and a bar of their share."""
    if capacity is None:
        return f"{length}", ""
    full = max(BAR * length // capacity, min(length, 1))
    return f"{length} of {capacity}", "■" * full + "·" * (BAR - full)


def _nbytes(cache: "Cache") -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))


def _has_arrays(cache: "Cache") -> bool:
    leaves = jax.tree.leaves((cache.key, cache.value, cache.lengths, cache.overflowed))
    return len(leaves) >= 4 and all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
