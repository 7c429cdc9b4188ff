"""Type checks of the values in config.json; the error names the key."""

import json
import sys
from collections.abc import Mapping
from typing import Any

type Config = Mapping[str, Any]
_LARGEST = sys.float_info.max


def number(key: str, value: Any) -> int | float:
    """Returns `value` if it is a number that float64 can hold, not ∞ or NaN.

    Raises:
      ValueError: it is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _LARGEST:
        raise _wrong_type(key, "a number", value)
    return value


def integer(key: str, value: Any) -> int:
    """Returns `value` if it is a whole number from 0 to 2³¹ − 1: a size or a position.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _wrong_type(key, "a whole number, not negative, below 2³¹", value)
    return value


def boolean(key: str, value: Any) -> bool:
    """Returns `value` if it is true or false.

    Raises:
      ValueError: it is something else.
    """
    if not isinstance(value, bool):
        raise _wrong_type(key, "true or false", value)
    return value


def mapping(key: str, value: Any) -> dict[str, Any]:
    """Returns `value` if it is an object; null becomes an empty one.

    Raises:
      ValueError: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise _wrong_type(key, "an object or null", value)
    return dict(value or {})


def _wrong_type(key: str, wanted: str, value: Any) -> ValueError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return ValueError(f"config.json: {key} must be {wanted}; got {shown}")
