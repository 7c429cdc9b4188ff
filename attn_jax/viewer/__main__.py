"""Makes a page from saved arrays: `python -m attn_jax.viewer trace.npz -o page.html`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_jax.viewer.view import AttentionView

USAGE = """\
Write the file with numpy.savez, with one of these sets of arrays:
  required                 optional
  weights                  tokens, key_tokens, logits, bias, mask
  query, key               tokens, key_tokens, mask, scale
  the fields of a Trace    source_tokens, target_tokens, annotations
Two files are compared side by side."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "weights": ("key_tokens", "logits", "bias", "mask"),
    "query": ("key_tokens", "mask", "scale"),
    "trace": ("annotations",),
}


def view_of(arrays: Mapping[str, Any], title: str) -> AttentionView:
    """The view that fits the names of the arrays in one file.

    Raises:
      ValueError: the names match none of the sets in USAGE.
    """
    tokens = _token_texts(arrays)

    def options(kind: str) -> dict[str, Any]:
        all_arrays = {**arrays, **tokens}
        return {name: all_arrays[name] for name in OPTIONS[kind] if name in all_arrays}

    if "contexts" in arrays:
        texts = tokens.get("source_tokens"), tokens.get("target_tokens")
        return AttentionView.from_trace(arrays, *texts, title=title, **options("trace"))
    if "query" in arrays and "key" in arrays:
        pair = arrays["query"], arrays["key"]
        return AttentionView.from_qk(*pair, tokens.get("tokens"), title=title, **options("query"))
    if "weights" in arrays:
        weights = arrays["weights"]
        return AttentionView.from_weights(
            weights, tokens.get("tokens"), title=title, **options("weights")
        )
    raise ValueError(f"the file has arrays {', '.join(sorted(arrays)) or 'none'}.\n{USAGE}")


def _token_texts(arrays: Mapping[str, Any]) -> dict[str, list[str]]:
    """The arrays of tokens, as lists of texts."""
    return {
        n: [str(t) for t in a] for n, a in arrays.items() if n.endswith("tokens") and np.ndim(a)
    }


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, Mapping):
            raise ValueError(
                "the file holds one array without a name; write it with numpy.savez, which "
                "names its arrays"
            )
        return {name: file[name] for name in file}


def main(arguments: Sequence[str], report: Callable[[str], Any] = print) -> int:
    """Writes the page. A mistake in the files gives one message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m attn_jax.viewer",
        description="Makes one HTML page that shows attention.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, help="one .npz file, or two to compare")
    output = Path("attention.html")
    parser.add_argument(
        "-o", "--output", type=Path, default=output, help=f"the page to write; {output} by default"
    )
    parser.add_argument("--title", help="title of the page; the file's name by default")
    options = parser.parse_args(arguments)
    try:
        views = [view_of(load(path), options.title or path.stem) for path in options.files]
        view = views[0]
        for other in views[1:]:
            view = view.compare(other)
        path = view.save(options.output)
    except (OSError, TypeError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    report(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
