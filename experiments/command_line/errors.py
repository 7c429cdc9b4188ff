"""Errors that a user can correct, each as one line with what to do."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attn_jax

OUR_FOLDERS = [Path(attn_jax.__file__).resolve().parent, Path(__file__).resolve().parents[1]]
REMEDIES = {
    errno.ENOSPC: "free some space and run the same command to continue",
    errno.EDQUOT: "your quota is used up: free some space and run the same command to continue",
    errno.EROFS: "copy this folder to a disk that can be written, and run the same command there",
    errno.EACCES: "make it readable and writable for yourself",
    errno.EPERM: "make it readable and writable for yourself",
}
EXPECTED = (ValueError, OSError, FloatingPointError)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Replaces an error that a user can correct by one line on stderr and exit status 1.

    Such an error is raised by our own code, or is an OSError. Any other error is a bug and keeps
    its traceback; so does every error under `python -X dev`.

    Raises:
      SystemExit: in place of an error that a user can correct.
    """
    try:
        yield
    except EXPECTED as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        place = Path(innermost.f_code.co_filename)
        is_ours = any(place.is_relative_to(folder) for folder in OUR_FOLDERS)
        if sys.flags.dev_mode or not (is_ours or isinstance(error, OSError)):
            raise
        sys.exit(f"error: {error_message(error)}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")


def error_message(error: Exception) -> str:
    """The message of an error; for an errno of REMEDIES, with what to do."""
    if not isinstance(error, OSError) or error.errno not in REMEDIES:
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}"
