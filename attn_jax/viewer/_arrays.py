"""Arguments as numpy arrays: anything with `__array__`, also JAX and sharded arrays."""

from typing import Any

import numpy as np


def as_numbers(name: str, array: Any) -> np.ndarray:
    """The array in float64; a boolean array stays boolean.

    Raises:
      TypeError: the array is complex, or does not hold numbers.
      ValueError: the array is ragged.
    """
    try:
        numbers = np.asarray(array)
    except ValueError:
        raise ValueError(
            f"{name} is ragged: its parts have different sizes; give every layer the same number "
            f"of heads, queries and keys, or make one view for each layer"
        ) from None
    if numbers.dtype == np.bool_:
        return numbers
    if np.issubdtype(numbers.dtype, np.complexfloating):
        raise TypeError(f"{name} is complex ({numbers.dtype}); pass real numbers: abs({name})")
    if numbers.dtype.kind in "OUSmM":  # objects, texts, times
        raise TypeError(
            f"{name} must be an array of numbers; got {type(array).__name__} of {numbers.dtype}"
        )
    return numbers.astype(np.float64)


def as_heads(name: str, array: Any) -> np.ndarray:
    """Weights, logits, a bias or a mask as [L N T S], from [T S], [N T S], [L N T S] or a list.

    A list or tuple has one entry for each layer, [N T S], or [1 N T S] as other libraries return.

    Raises:
      TypeError: as `as_numbers`.
      ValueError: as `as_numbers`; or the array has another rank, or several batch examples.
    """
    if isinstance(array, list | tuple) and array and np.ndim(array[0]) >= 3:
        layers = [_one_layer(f"{name}[{i}]", layer) for i, layer in enumerate(array)]
        shapes = [layer.shape for layer in layers]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"{name} is ragged: its layers have shapes {shapes}; give every layer the same "
                f"number of heads, queries and keys, or make one view for each layer"
            )
        return np.stack(layers)
    numbers = as_numbers(name, array)
    if not 2 <= numbers.ndim <= 4:
        raise ValueError(
            f"{name} must be [T S], [N T S] or [L N T S]; got {list(numbers.shape)}; pass one "
            f"example of a batch, such as {name}[0]"
        )
    return numbers[(None,) * (4 - numbers.ndim)]


def _one_layer(name: str, layer: Any) -> np.ndarray:
    numbers = as_numbers(name, layer)
    if numbers.ndim == 4 and numbers.shape[0] == 1:
        numbers = numbers[0]
    if numbers.ndim != 3:
        raise ValueError(
            f"{name} must be [N T S], or [1 N T S]; got {list(numbers.shape)}; pass one example "
            f"of a batch, such as [layer[0] for layer in {name.split('[')[0]}]"
        )
    return numbers


def check_sizes(name: str, array: np.ndarray, full: tuple[int, ...], like: str) -> None:
    """Checks that each axis of the array has the size in `full` or 1.

    Raises:
      ValueError: an axis has another size.
    """
    fits = len(array.shape) == len(full) and all(
        got in (1, size) for got, size in zip(array.shape, full, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, {like} has {list(full)}; each axis must "
            f"have the same size or 1"
        )
