"""The `repr` of masks and score mods: the call that makes one; arrays by dtype and shape."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from attn_jax._base import tables


def describe(rule: Any) -> str:
    """Returns `name(field=value, …)`."""
    fields = dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ()
    values = (f"{field.name}={_value(getattr(rule, field.name))}" for field in fields)
    return f"{getattr(rule, 'name', type(rule).__name__)}({', '.join(values)})"


def describe_part(part: Callable, base: type) -> str:
    """Describes a part of a combination: in full if it is a `base`, otherwise by its name."""
    return repr(part) if isinstance(part, base) else getattr(part, "__name__", type(part).__name__)


def _value(value: Any) -> str:
    if tables.is_table(value):
        value = value.values
    if not isinstance(value, jax.Array):
        return repr(value)
    if value.ndim == 0 and not isinstance(value, jax.core.Tracer):
        return str(value.item())
    return f"{value.dtype}{list(value.shape)}"
