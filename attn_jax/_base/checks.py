"""Checks of arguments before any computation: chex assertions, raised as errors that name the
argument."""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from attn_jax._base import concrete
from attn_jax._base.distance import FARTHEST


def check_shapes(**named: tuple[Any, str]) -> dict[str, tuple[int, ...]]:
    """Checks `name=(array, "*B T H")` and returns the size bound to each letter, as a tuple.

    Letters are bound from left to right and must agree wherever they occur again. A first letter
    with a star stands for any number of leading axes; with "*#" each of them may be 1, and the
    greater size is bound. A letter binds a tuple of one size, a starred one a tuple of many.

    Raises:
      TypeError: an argument is no array.
      ValueError: an array does not have the shape its letters ask for.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for name, (array, axes) in named.items():
        check_array(name, array)
        letters = axes.replace("#", "").split()
        starred = letters[0].startswith("*")
        trailing = len(letters) - starred
        leading = np.ndim(array) - trailing
        splits = ([leading] if starred else []) + [1] * trailing
        known = dict(sizes)
        if "#" in axes and letters[0] in sizes:
            known[letters[0]] = _shared(np.shape(array)[: max(leading, 0)], sizes[letters[0]])
        wanted: list[Any] = []
        for letter, width in zip(letters, splits, strict=True):
            wanted.extend(known.get(letter, (None,) * max(width, 0)))
        try:
            chex.assert_shape(array, wanted)
        except AssertionError:
            raise ValueError(_shape_message(name, axes, np.shape(array), sizes)) from None
        shape = iter(np.shape(array))
        for letter, width in zip(letters, splits, strict=True):
            size = tuple(next(shape) for _ in range(width))
            before = sizes.get(letter, size)
            sizes[letter] = tuple(b if a == 1 else a for a, b in zip(size, before, strict=True))
    return sizes


def _shared(own: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes that an array has, where each is as before or either of them is 1."""
    fits = len(own) == len(full) and all(
        a == b or 1 in (a, b) for a, b in zip(own, full, strict=True)
    )
    return own if fits else full


def _shape_message(name: str, axes: str, shape: tuple[int, ...], sizes: dict) -> str:
    letters = axes.replace("#", "").split()
    known = {letter: size for letter, size in sizes.items() if letter in letters}
    bound = ", ".join(f"{a} = {'×'.join(map(str, size))}" for a, size in known.items())
    given = f" with {bound} from the arguments before it" if bound else ""
    more = "" if "*" in axes or len(shape) <= len(axes.split()) else "; map other axes by jax.vmap"
    return f"{name} must have shape [{axes}]{given}; got {list(shape)}{more}"


def check_array(name: str, array: Any) -> None:
    """Checks that an argument is an array of JAX or NumPy.

    Raises:
      TypeError: it is a list, a number or something else.
    """
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        advice = f"; write jnp.asarray({name})" if isinstance(array, list | tuple) else ""
        raise TypeError(f"{name} must be an array; got {type(array).__name__}{advice}")


def check_one_head(**named: tuple[Any, str]) -> None:
    """`check_shapes` for arrays of one head of one batch example.

    Raises:
      TypeError: as `check_shapes`.
      ValueError: as `check_shapes`; it names the function for arrays of many heads.
    """
    try:
        check_shapes(**named)
    except ValueError as error:
        many = [name for name, (array, _) in named.items() if array.ndim > 2]
        if not many:
            raise
        raise ValueError(
            f"{error}, or call attn_jax.dot_product_attention, whose axes are [B T N H] (one head: "
            f"{many[0]}[..., None, :])"
        ) from None


def check_floating(**arrays: Any) -> None:
    """Checks that all arrays have the same real floating point dtype in JAX.

    Raises:
      TypeError: there is no array, it is integer, boolean or complex, or the dtypes differ.
    """
    for name, array in arrays.items():
        check_array(name, array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point; got {array.dtype}")
    if len({jax.dtypes.canonicalize_dtype(array.dtype) for array in arrays.values()}) > 1:
        got = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{' and '.join(arrays)} must share a dtype; got {got}")


def warn_of_other_layout(T: int, S: int, N: int) -> None:
    """Warns where the axes of positions and heads seem to be swapped.

    It does not warn of one query, as a decode step may have more heads than keys, nor of sizes that
    are symbols of `jax.export`.
    """
    if concrete.are_numbers(T, S) and T > 1 and 4 * max(T, S) < N:
        warnings.warn(
            f"query has {N} heads but {T} positions: axes are (B, T, N, H); did you pass "
            f"(B, N, T, H)? Then write query.swapaxes(-3, -2), and so for key and value",
            stacklevel=4,
        )


def check_boolean(name: str, mask: Any, *, additive: str) -> None:
    """Checks that a mask is a boolean array; `additive` is the advice for a mask of floats.

    Raises:
      TypeError: the mask is no array, additive (floating point) or counts (integer).
    """
    check_array(name, mask)
    if mask.dtype != jnp.bool_:
        floats = jnp.issubdtype(mask.dtype, jnp.floating)
        advice = f"pass an additive mask as {additive}" if floats else f"write {name}.astype(bool)"
        raise TypeError(f"{name} must be bool (True = may attend); got {mask.dtype}; {advice}")


def check_broadcastable(name: str, array: Any, full: Sequence[int], axes: str) -> None:
    """Checks that each axis of `array` has the full size or 1, the last one the full size.

    Raises:
      ValueError: the rank is wrong, or an axis has another size.
    """
    shape = np.shape(array)
    letters = axes.split()
    if len(shape) != len(full):
        wanted = ", ".join([*(f"{letter}|1" for letter in letters[:-1]), letters[-1]])
        raise ValueError(
            f"{name} must be {len(full)}-D ({wanted}); got {shape}, and {', '.join(letters)} are "
            f"{', '.join(map(str, full))}. {_advice_on_rank(name, shape, full, letters)}"
        )
    for axis, (got, size, letter) in enumerate(zip(shape, full, letters, strict=True)):
        is_last = axis == len(full) - 1
        if got != size and (is_last or got != 1):
            wanted = f"{size}" if is_last else f"1 or {size}"
            whole = f"; write jnp.broadcast_to({name}, (*{name}.shape[:-1], {size}))"
            advice = whole if is_last and got == 1 else ""
            raise ValueError(f"{name} axis {axis} ({letter}) must be {wanted}; got {got}{advice}")


def _advice_on_rank(
    name: str, shape: tuple[int, ...], full: Sequence[int], letters: list[str]
) -> str:
    """What to write for an array that lacks axes, for each way in which it fits."""
    if len(shape) > len(full):
        return f"Map its other axes by jax.vmap, or give query, key and value as many as {name}"
    ways = list(_ways(name, shape, full, letters))
    if not ways:
        return f"No axes of size 1 make it fit: its last axis must be {letters[-1]} = {full[-1]}"
    return "; ".join(ways)


def _ways(
    name: str, shape: tuple[int, ...], full: Sequence[int], letters: list[str]
) -> Iterator[str]:
    """For each choice of axes that have these sizes, the last one among them: how to write it."""
    last = len(full) - 1
    for first in itertools.combinations(range(last), len(shape) - 1):
        kept = (*first, last)
        if all(got in (1, full[axis]) for got, axis in zip(shape, kept, strict=True)):
            places = [":" if axis in kept else "None" for axis in range(last + 1)]
            if places[-2:] == [":", ":"]:  # trailing full slices may be left out
                places = places[: last + 1 - places[::-1].index("None")]
            what = " ".join(letters[axis] for axis in kept)
            yield f"For [{what}] write {name}[{', '.join(places)}]"


def check_scale(scale: Any) -> None:
    """Checks a scale whose value is known (`concrete.at_hand`).

    Raises:
      ValueError: the scale is zero, negative, infinite or not a number.
    """
    if scale is None or (number := concrete.at_hand(scale)) is None:
        return
    if number.ndim != 0 or not 0 < number < math.inf:
        raise ValueError(f"scale must be a finite number > 0; got {scale}")


def check_window(name: str, window: tuple[int, int]) -> None:
    """Checks a window of (left, right) positions.

    Raises:
      ValueError: the window is not a pair of integers >= 0, or is wider than positions go.
    """
    is_pair = isinstance(window, tuple) and len(window) == 2
    if not is_pair or not all(isinstance(side, int) and side >= 0 for side in window):
        raise ValueError(f"{name} must be two ints >= 0 (left, right) or None; got {window}")
    if max(window) >= FARTHEST:
        raise ValueError(
            f"{name} must be below {FARTHEST} on both sides, for positions are int32; got {window}"
        )


def check_lengths(name: str, lengths: Any, limit: int) -> None:
    """Checks sequence lengths whose values are known (`concrete.at_hand`).

    Raises:
      ValueError: a length is negative or exceeds the array it describes.
    """
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers; got {lengths.dtype}")
    if (numbers := concrete.at_hand(lengths)) is None:
        return
    for index, length in np.ndenumerate(numbers):
        if not 0 <= length <= limit:
            where = ", ".join(map(str, index))
            raise ValueError(f"{name}[{where}] must be between 0 and {limit}; got {length}")


def check_size(name: str, size: Any) -> None:
    """Checks a size, which is static.

    Raises:
      ValueError: the size is not an integer >= 1.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{name} must be an int >= 1; got {size!r}")


def check_rate(name: str, rate: float) -> None:
    """Checks a dropout rate, which is static.

    Raises:
      ValueError: the rate is not a number in [0, 1).
    """
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name} must be a number in [0, 1); got {rate!r}")


def check_dropout(rate: float, rng: Any) -> None:
    """Checks a dropout rate, and that a PRNG key is given where it is not 0.

    Raises:
      ValueError: the rate is not a number in [0, 1), or the PRNG key is missing.
    """
    check_rate("dropout_rate", rate)
    if rate and rng is None:
        raise ValueError(f"dropout_rng is needed with dropout_rate={rate}: pass a jax.random.key")


def check_aligned(what: str, query_position: Any, key_position: Any, T: int, S: int) -> None:
    """Checks that `what`, which compares positions, has those of both sides, or T = S and none.

    Raises:
      ValueError: the positions of one side are missing; or T and S differ and there are none.
    """
    if (query_position is None) != (key_position is None):
        given, missing, axis, size = "query", "key", "S", S
        if query_position is None:
            given, missing, axis, size = "key", "query", "T", T
        raise ValueError(
            f"{missing}_position is needed: {what} compares positions, and {given}_position is "
            f"given alone; pass both, {missing}_position=jnp.arange({axis}) where {axis}={size} "
            f"rows stand at 0, 1, 2, …"
        )
    if query_position is None and T != S:
        raise ValueError(
            f"query_position is needed: {what} compares positions, and T={T} queries can be "
            f"aligned with S={S} keys in more than one way; for queries at the end pass "
            f"query_position=jnp.arange(S - T, S), key_position=jnp.arange(S)"
        )
