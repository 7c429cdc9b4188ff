"""What Orbax and its writers say when a disk refuses, in a sentence instead of many tracebacks."""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps tracebacks of Orbax' threads off the screen: one clear error is enough.

    It logs some. After the first write that fails it leaves its event loop, and every other write
    then tells `sys.unraisablehook` that the loop is closed, perhaps after this block.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = functools.partial(_all_but_closed_loops, hook)
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.setLevel(level)


def _all_but_closed_loops(hook: Callable[[Any], Any], raised: Any) -> None:
    error = raised.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        hook(raised)


def reason(error: Exception) -> tuple[int | None, str]:
    """The number that the system gave, if one is told, and what is wrong in a few words.

    Example:
      >>> reason(ValueError("RESOURCE_EXHAUSTED: … Failed to write [os_error_code='28']"))
      (28, 'No space left on device')
    """
    told = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    if number is None:
        return None, str(error).splitlines()[0]
    return number, os.strerror(number)
