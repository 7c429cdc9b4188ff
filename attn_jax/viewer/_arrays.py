"""What users hand in, as numpy arrays: anything with `__array__`, jax's and sharded included."""

from typing import Any

import numpy as np


def as_numbers(name: str, array: Any) -> np.ndarray:
    """The array in float64 (floating point and integers) or as it is (booleans).

    Raises:
      TypeError: it is complex, of objects or text, or no array at all.
      ValueError: it is ragged.
    """
    try:
        found = np.asarray(array)
    except ValueError:
        raise ValueError(
            f"{name} is ragged: its parts have different sizes; give every layer the same number "
            f"of heads, queries and keys, or make one view a layer"
        ) from None
    if found.dtype == np.bool_:
        return found
    if np.issubdtype(found.dtype, np.complexfloating):
        raise TypeError(f"{name} is complex ({found.dtype}); pass real numbers: abs({name})")
    if found.dtype.kind in "OUSmM":  # objects, texts, times
        raise TypeError(
            f"{name} must be an array of numbers; got {type(array).__name__} of {found.dtype}"
        )
    return found.astype(np.float64)


def as_heads(name: str, array: Any) -> np.ndarray:
    """Weights or what belongs to them as [L N T S], from [T S], [N T S], [L N T S] or layers.

    A list or tuple is one entry a layer, each [N T S], or [1 N T S] as other libraries give them.

    Raises:
      TypeError: as `as_numbers`.
      ValueError: as `as_numbers`; or the rank is another, or the batch has more than one example.
    """
    if isinstance(array, list | tuple) and array and np.ndim(array[0]) >= 3:
        layers = [_one_layer(f"{name}[{i}]", layer) for i, layer in enumerate(array)]
        shapes = [layer.shape for layer in layers]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"{name} is ragged: its layers have shapes {shapes}; give every layer the same "
                f"number of heads, queries and keys, or make one view a layer"
            )
        return np.stack(layers)
    found = as_numbers(name, array)
    if not 2 <= found.ndim <= 4:
        raise ValueError(
            f"{name} must be [T S], [N T S] or [L N T S]; got {list(found.shape)}; pass one "
            f"example of a batch, such as {name}[0]"
        )
    return found[(None,) * (4 - found.ndim)]


def _one_layer(name: str, layer: Any) -> np.ndarray:
    found = as_numbers(name, layer)
    if found.ndim == 4 and found.shape[0] == 1:
        found = found[0]
    if found.ndim != 3:
        raise ValueError(
            f"{name} must be [N T S], or [1 N T S]; got {list(found.shape)}; pass one example of a "
            f"batch, such as [layer[0] for layer in {name.split('[')[0]}]"
        )
    return found


def check_sizes(name: str, array: np.ndarray, wanted: tuple[int, ...], like: str) -> None:
    """Checks that each axis has the full size or 1.

    Raises:
      ValueError: it has not.
    """
    fits = len(array.shape) == len(wanted) and all(
        got in (1, full) for got, full in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, {like} has {list(wanted)}; each axis must be "
            f"of full size or 1"
        )
