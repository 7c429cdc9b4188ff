"""A value of config.json is of the kind that its key asks for, or refused by its name."""

import json
import sys
from collections.abc import Mapping
from typing import Any

type Config = Mapping[str, Any]
_LARGEST = sys.float_info.max


def number(key: str, value: Any) -> int | float:
    """A finite number, as float64 has it.

    Raises:
      ValueError: it is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _LARGEST:
        raise _refused(key, "a number", value)
    return value


def whole(key: str, value: Any) -> int:
    """A whole number that is not negative, and below 2³¹: a size or a position.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _refused(key, "a whole number, not negative, below 2³¹", value)
    return value


def truth(key: str, value: Any) -> bool:
    """True or false.

    Raises:
      ValueError: it is something else.
    """
    if not isinstance(value, bool):
        raise _refused(key, "true or false", value)
    return value


def mapping(key: str, value: Any) -> dict[str, Any]:
    """An object; null is an empty one.

    Raises:
      ValueError: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise _refused(key, "an object or null", value)
    return dict(value or {})


def _refused(key: str, wanted: str, value: Any) -> ValueError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return ValueError(f"config.json: {key} must be {wanted}; got {shown}")
