"""Base classes of frozen dataclasses that hold arrays: compared by content, no truth value."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from attn_jax._base import concrete
from attn_jax._base.describe import describe


class Value:
    """Base of frozen dataclasses that hold arrays: two are equal where all their fields are.

    `repr` is one line, with arrays by dtype and shape.

    Arrays are equal where dtype, shape and bits are; an array that the host cannot
    read, such as a traced one, equals itself alone.
    A value that holds arrays has no hash, so `jit` takes it as an argument, not as a static one.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # The decorator `dataclass` keeps methods that a class has. Its own `__eq__` would take the
        # truth value of a comparison of arrays, and its own `__repr__` would print all entries.
        cls.__eq__, cls.__hash__ = cls.__eq__, cls.__hash__
        cls.__repr__ = cls.__repr__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or not dataclasses.is_dataclass(self):
            return NotImplemented
        names = (field.name for field in dataclasses.fields(self))
        return all(_equal(getattr(self, name), getattr(other, name)) for name in names)

    def __repr__(self) -> str:
        return describe(self)

    def __hash__(self) -> int:
        if not dataclasses.is_dataclass(self):
            return object.__hash__(self)
        fields = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        try:
            return hash((type(self), fields))
        except TypeError:
            raise TypeError(
                f"{self!r} holds arrays and has no hash: pass it to jit as an argument, not as a "
                f"static one"
            ) from None


class Rule(Value):
    """Base of masks and score mods. `and`, `or` and `not` raise: they would drop one of two rules.

    `is_finite_everywhere` is True of a score mod that is finite, with a finite derivative, at
    masked pairs too.
    """

    no_truth: ClassVar[str] = "a traced function has no truth value: compare it with None"

    @property
    def is_finite_everywhere(self) -> bool:
        return False

    def __bool__(self) -> bool:
        raise TypeError(self.no_truth)


def describe_part(part: Callable) -> str:
    """Describes a part of a combination: a function by its name."""
    return repr(part) if isinstance(part, Value) else getattr(part, "__name__", type(part).__name__)


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if _is_array(one) or _is_array(other):
        return _is_array(one) and _is_array(other) and _equal_arrays(one, other)
    if isinstance(one, tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _equal_arrays(one: Any, other: Any) -> bool:
    one, other = jnp.asarray(one), jnp.asarray(other)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    bits = concrete.at_hand(one), concrete.at_hand(other)
    if bits[0] is None or bits[1] is None:
        return one is other
    return bits[0].tobytes() == bits[1].tobytes()


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray) or hasattr(value, "__jax_array__")
