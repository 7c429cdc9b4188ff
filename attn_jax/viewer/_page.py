"""The page: one HTML file with data, script and style, whose policy lets it load nothing."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attn_jax.viewer._json_arrays import array_from_json

SOURCES = Path(__file__).parent / "page"
SCRIPTS = (
    "numbers.js",
    "text.js",
    "record.js",
    "colour.js",
    "store.js",
    "tooltip.js",
    "matrix.js",
    "panel.js",
    "lines.js",
    "heads.js",
    "side_by_side.js",
    "travel.js",
    "diagram.js",
    "unrolled.js",
    "animation.js",
    "frame.js",
    "app.js",
)
LONGEST = 2_000  # most characters of a token on a page
HEIGHT = 760  # pixels of a view in a notebook cell, until the page reports its height
# Sets the frame's height to that of the page (frame.js). The page can load after or before this
# listener is added, so the word attnJaxFit asks for the height once. A notebook replaces the frame
# when its cell runs again: the listener of the old frame removes itself.
FIT = (
    "window.addEventListener('message', this.fit ??= (event) => { "
    "if (!this.isConnected) window.removeEventListener('message', this.fit); "
    "else if (event.source === this.contentWindow && event.data?.attnJaxHeight > 0) "
    "this.style.height = event.data.attnJaxHeight + 'px'; }); "
    "this.contentWindow.postMessage('attnJaxFit', '*')"
)
SHORTCUTS = {
    "← →": "previous or next frame, or query",
    "↑ ↓": "previous or next layer",
    "[ ]": "previous or next head",
    "space": "play or pause",
    "Home End": "first or last frame",
    "1 … 6": "open a tab",
    "Tab, then arrows": "move between cells of a matrix",
    "x, c": "select a query, a key",
    "m": "merge subwords into words",
    "s": "emphasise small weights",
    "/": "find a token",
    "d": "light or dark colours",
    "?": "open or close this help",
}
SKELETON = """\
<div class="corner"><button value="d" title="key d" aria-label="Light or dark colours">◐</button>
<button value="?" title="key ?" aria-label="Keyboard shortcuts">?</button></div>
<div class="tabs" role="tablist" aria-label="Views"></div>
<div class="tools"></div>
<main id="view" role="tabpanel"></main>
<div class="tooltip" role="tooltip" hidden></div>
<div class="announcer" aria-live="polite"></div>"""
CAUTION = (
    "These are different quantities. A weight shows which keys a query attends to; it does not "
    "explain the output. τ compares a quantity with the weights, row by row: 1 means the same "
    "order of the keys, 0 no relation, −1 the reverse order."
)
STATIC = 24  # most rows or columns of the table that is shown where scripts do not run


@cache
def script() -> str:
    """The page's JavaScript: all files without their comments, in one function."""
    files = "".join((SOURCES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    code = [line for line in files.splitlines() if not line.lstrip().startswith("//")]
    return '"use strict";\n(() => {\n' + "\n".join(code) + "\n})();\n"


@cache
def style() -> str:
    """The page's CSS."""
    return (SOURCES / "style.css").read_text(encoding="utf-8")


def page_html(title: str, note: str, records: Sequence[dict[str, Any]]) -> str:
    """The page as HTML text; each record is what `AttentionRecord.as_json` returns."""
    data = {"records": [_with_short_texts(record) for record in records], "caution": CAUTION}
    policy = (
        f"default-src 'none'; script-src '{_digest(script())}'; style-src '{_digest(style())}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta HTTP-EQUIV="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{style()}</style>\n</head>\n<body>\n"
        f"<header><div><h1><bdi>{_text(title)}</bdi></h1>{_note_paragraph(note)}</div></header>\n"
        f'<div id="app">{_static_table(records[0])}</div>\n{_footer(records)}\n'
        f"<template>{SKELETON}{_help()}</template>\n"
        f'<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>{script()}</script>\n</body>\n</html>\n"
    )


def notebook_frame(title: str, page: str, picture: bytes | None) -> str:
    """The page in an iframe for a notebook, so that its script and style stay separate.

    A notebook that is not trusted, and most websites that show notebooks, remove the iframe and
    keep what is in `<noscript>`: there, the PNG picture, or else the sentence alone, is shown.
    """
    style = f"width:100%;height:{HEIGHT}px;border:0"
    inside = html.escape(page, quote=True)
    return (
        f'<iframe title="{_text(title)}" sandbox="allow-scripts" style="{style}" '
        f'onload="{FIT}" srcdoc="{inside}"></iframe>'
        f"<noscript>{_static_picture(title, picture)}</noscript>"
    )


def _static_picture(title: str, picture: bytes | None) -> str:
    """The title and, if there is one, the picture, for a place that runs no script."""
    text = (
        f"<b>{_text(title)}</b>: to see the interactive page, open this notebook in Jupyter and "
        "trust it."
    )
    if picture is None:
        return f"<p>{text}</p>"
    source = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
    return f'<p>{text} Layer 1, head 1:</p><img alt="{_text(title)}" src="{source}">'


def _digest(text: str) -> str:
    """The hash by which the page's policy allows a script or style."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _json(data: Any) -> str:
    """JSON in ASCII, with <, > and & escaped so that HTML finds no markup in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(text: str) -> str:
    """Text escaped for HTML; unprintable characters become their code points."""
    shown = "".join(c if c.isprintable() else f"[{ord(c):X}]" for c in _cut(text))
    return html.escape(shown, quote=True)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text):,} characters)"


def _with_short_texts(record: dict[str, Any]) -> dict[str, Any]:
    texts = {name: [_cut(text) for text in record[name]] for name in ("queries", "keys")}
    return {**record, **texts, "name": _cut(record["name"])}


def _note_paragraph(note: str) -> str:
    return f'<p class="lead">{_text(note)}</p>' if note else ""


def _footer(records: Sequence[dict[str, Any]]) -> str:
    """The notes of all records, without repetition, and what a weight does not show."""
    notes = dict.fromkeys(note for record in records for note in record["notes"])
    sentences = [*notes, "An attention weight shows which keys a query attends to, not why."]
    return f"<footer>{''.join(f'<p>{_text(s)}</p>' for s in sentences)}</footer>"


def _help() -> str:
    shortcuts = "".join(
        f"<dt>{_text(key)}</dt><dd>{_text(what)}</dd>" for key, what in SHORTCUTS.items()
    )
    close = '<form method="dialog"><button>Close</button></form>'
    title = "Keyboard shortcuts"
    return f'<dialog aria-label="{title}"><h2>{title}</h2><dl>{shortcuts}</dl>{close}</dialog>'


def _static_table(record: dict[str, Any]) -> str:
    """The first head as a table, for a notebook or browser that runs no script."""
    content, queries, keys = record["content"], record["queries"], record["keys"]
    if content["form"] != "dense" or max(len(queries), len(keys)) > STATIC:
        return "<p>This page needs JavaScript, which did not run.</p>"
    weights = array_from_json(content["weights"])[0, 0]
    head = "".join(f"<th scope=col>{_text(key[:40])}</th>" for key in keys)
    rows = "".join(
        f"<tr><th scope=row>{_text(query[:40])}</th>"
        + "".join(f"<td>{_number(weight)}</td>" for weight in row)
        + "</tr>"
        for query, row in zip(queries, weights, strict=True)
    )
    return (
        f"<table><caption>Weights of the first head</caption><tr><td></td>{head}</tr>{rows}</table>"
    )


def _number(weight: np.floating) -> str:
    return f"{weight:.4g}"
