"""Errors of Orbax when a disk cannot be written, as one sentence instead of many tracebacks."""

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
    """Hides the tracebacks of Orbax' threads; the caller reports the error.

    Orbax logs some of them. After the first failed write it closes its event loop, and every other
    write then calls `sys.unraisablehook`, perhaps after this block.
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
    """The errno of an error, if there is one, and its description.

    Example:
      >>> reason(ValueError("RESOURCE_EXHAUSTED: … Failed to write [os_error_code='28']"))
      (28, 'No space left on device')
    """
    match = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(match[1]) if match else getattr(error, "errno", None)
    if number is None:
        return None, str(error).splitlines()[0]
    return number, os.strerror(number)
