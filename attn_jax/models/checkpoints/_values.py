"""A value of config.json is of the kind that its key asks for, or refused by its name."""

import json
import math
from collections.abc import Mapping
from typing import Any

type Config = Mapping[str, Any]


def number(key: str, value: Any) -> int | float:
    """A finite number.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(key, "a number", value)
    return value


def whole(key: str, value: Any) -> int:
    """A whole number that is not negative.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refused(key, "a whole number, not negative", value)
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
    return ValueError(f"config.json: {key} must be {wanted}; got {json.dumps(value)}")
