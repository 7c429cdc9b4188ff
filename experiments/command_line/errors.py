"""Errors that a user can correct, each as one line with what to do."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attn_jax

OURS = [Path(attn_jax.__file__).resolve().parent, Path(__file__).resolve().parents[1]]
REMEDIES = {
    errno.ENOSPC: "free some space and run the same command to continue",
    errno.EDQUOT: "your quota is used up: free some space and run the same command to continue",
    errno.EROFS: "run the same command in a folder on a disk that can be written",
    errno.EACCES: "make it readable and writable for yourself, or work in another folder",
    errno.EPERM: "make it readable and writable for yourself, or work in another folder",
}
EXPECTED = (ValueError, OSError, FloatingPointError)


@contextmanager
def mendable_errors() -> Iterator[None]:
    """Gives up with one line where our own code says what is wrong and what to do.

    An error from anywhere deeper is a bug, and keeps its traceback; so does every error under
    `python -X dev`.

    Raises:
      SystemExit: in place of an error that a user can mend.
    """
    try:
        yield
    except EXPECTED as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        place = Path(innermost.f_code.co_filename)
        is_ours = any(place.is_relative_to(folder) for folder in OURS)
        if sys.flags.dev_mode or not (is_ours or isinstance(error, OSError)):
            raise
        sys.exit(f"error: {explained(error)}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")


def explained(error: Exception) -> str:
    """An error in a sentence; what the system says with a number alone, with what to do."""
    if not isinstance(error, OSError) or error.errno not in REMEDIES:
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}"
