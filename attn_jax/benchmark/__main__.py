"""`python -m attn_jax.benchmark`: measures named shapes, or checks the library's claims."""

import sys
from collections.abc import Sequence

from attn_jax.benchmark._tools import MissingToolError, tool


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status is 0 if nothing failed and every claim passed."""
    try:
        for name in ("tyro", "rich", "matplotlib"):
            tool(name)
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    from attn_jax.benchmark import session

    return session.run(session.options(arguments))


if __name__ == "__main__":
    sys.exit(main())
