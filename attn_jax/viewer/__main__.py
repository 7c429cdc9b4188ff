"""A page from saved arrays: `python -m attn_jax.viewer trace.npz -o page.html`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_jax.viewer.view import AttentionView

USAGE = """\
The file is what numpy.savez writes, with one of these sets of arrays:
  weights                  and tokens, key_tokens, logits, bias, mask
  query, key               and tokens, key_tokens, mask, scale
  the fields of a Trace    and source_tokens, target_tokens, annotations
A second file is shown beside the first."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "weights": ("key_tokens", "logits", "bias", "mask"),
    "query": ("key_tokens", "mask", "scale"),
    "trace": ("annotations",),
}


def view_of(arrays: Mapping[str, Any], title: str) -> AttentionView:
    """The view of the arrays of one file.

    Raises:
      ValueError: they are none of the sets that there are views of.
    """
    tokens = _texts(arrays)

    def given(kind: str) -> dict[str, Any]:
        both = {**arrays, **tokens}
        return {name: both[name] for name in OPTIONS[kind] if name in both}

    if "contexts" in arrays:
        names = tokens.get("source_tokens"), tokens.get("target_tokens")
        return AttentionView.from_trace(arrays, *names, title=title, **given("trace"))
    if "query" in arrays and "key" in arrays:
        pair = arrays["query"], arrays["key"]
        return AttentionView.from_qk(*pair, tokens.get("tokens"), title=title, **given("query"))
    if "weights" in arrays:
        weights = arrays["weights"]
        return AttentionView.from_weights(
            weights, tokens.get("tokens"), title=title, **given("weights")
        )
    raise ValueError(f"the file has arrays {', '.join(sorted(arrays)) or 'none'}.\n{USAGE}")


def _texts(arrays: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        n: [str(t) for t in a] for n, a in arrays.items() if n.endswith("tokens") and np.ndim(a)
    }


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; it may hold no pickled objects."""
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, Mapping):
            raise ValueError("the file holds one array without a name; write it with numpy.savez")
        return {name: file[name] for name in file}


def main(arguments: Sequence[str], tell: Callable[[str], Any] = print) -> int:
    """Writes the page; what a user can mend is one message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m attn_jax.viewer",
        description="One page that shows attention.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, help="one .npz file, or two to compare")
    parser.add_argument("-o", "--output", type=Path, default=Path("attention.html"))
    parser.add_argument("--title", help="of the page; the file's name by default")
    options = parser.parse_args(arguments)
    try:
        views = [view_of(read(path), options.title or path.stem) for path in options.files]
        view = views[0]
        for other in views[1:]:
            view = view.compare(other)
        path = view.save(options.output)
    except (OSError, TypeError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    tell(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
