"""One line of text for an object: `name(field=value, …)`, arrays by dtype and shape."""

import dataclasses
from typing import Any

import jax
import numpy as np

from attn_jax._base import concrete


def describe(node: Any) -> str:
    """Returns `name(field=value, …)` for a dataclass; the name is its `name` or its class."""
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    named = {field.name: getattr(node, field.name) for field in fields}
    return describe_call(getattr(node, "name", type(node).__name__), named)


def describe_call(name: str, arguments: dict[str, Any]) -> str:
    """Returns `name(argument=value, …)`."""
    return f"{name}({', '.join(f'{key}={in_short(value)}' for key, value in arguments.items())})"


def in_short(value: Any) -> str:
    """Describes a value: a scalar by its number, other arrays by dtype and shape."""
    if type(value) is tuple:
        return f"({', '.join(map(in_short, value))})"
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return repr(value)
    read = None if value.shape else read_array(value)
    if read is not None:
        return str(read.item())
    deleted = "deleted " if is_deleted(value) else ""
    return f"{deleted}{value.dtype}{list(value.shape)}"


def read_array(value: Any) -> np.ndarray | None:
    """An array of numbers as the host reads it; None if it is traced, deleted or elsewhere."""
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    if not is_array or jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        return None
    return None if is_deleted(value) else concrete.at_hand(value)


def is_deleted(value: Any) -> bool:
    """Whether the array was donated to a jitted function, which has reused its memory."""
    is_traced = isinstance(value, jax.core.Tracer)
    return isinstance(value, jax.Array) and not is_traced and value.is_deleted()
