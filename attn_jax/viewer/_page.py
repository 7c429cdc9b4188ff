"""The page: data, script and style in one HTML file that may load nothing from anywhere."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attn_jax.viewer._pack import unpack

SOURCES = Path(__file__).parent / "page"
SCRIPTS = (
    "numbers.js",
    "text.js",
    "reading.js",
    "colour.js",
    "store.js",
    "tooltip.js",
    "matrix.js",
    "panel.js",
    "lines.js",
    "heads.js",
    "sides.js",
    "stage.js",
    "animation.js",
    "app.js",
)
LONGEST = 2_000  # characters of a token that a page is given
HEIGHT = 760  # pixels of a view in a notebook
KEYS = {
    "← →": "frame, or token",
    "↑ ↓": "layer",
    "[ ]": "head",
    "space": "play or pause",
    "Home End": "first or last frame",
    "1 … 6": "views",
    "Tab, then arrows": "cells of a matrix",
    "x, c": "select row, column",
    "m": "whole words",
    "s": "spread small weights",
    "/": "find a token",
    "d": "light or dark",
    "?": "this help",
}
SKELETON = """\
<div class="corner"><button value="d" title="key d" aria-label="Light or dark">◐</button>
<button value="?" title="key ?" aria-label="Keys">?</button></div>
<div class="tabs" role="tablist" aria-label="Views"></div>
<div class="tools"></div>
<main id="view" role="tabpanel"></main>
<div class="tooltip" role="tooltip" hidden></div>
<div class="aloud" aria-live="polite"></div>"""
CAUTION = (
    "These are different quantities. A weight says what was read; it does not say why a word was "
    "written. τ compares the order of the keys with that of the weights, row by row: 1 is the same "
    "order, 0 is none."
)
STATIC = 24  # rows and columns of the table for readers without scripts


@cache
def script() -> str:
    """All of the page's JavaScript."""
    parts = [(SOURCES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


@cache
def style() -> str:
    """All of the page's CSS."""
    return (SOURCES / "style.css").read_text(encoding="utf-8")


def as_page(title: str, note: str, readings: Sequence[dict[str, Any]]) -> str:
    """The whole file."""
    data = {"readings": [_short(reading) for reading in readings], "caution": CAUTION}
    policy = (
        f"default-src 'none'; script-src '{_digest(script())}'; style-src '{_digest(style())}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta HTTP-EQUIV="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{style()}</style>\n</head>\n<body>\n"
        f"<header><div><h1><bdi>{_text(title)}</bdi></h1>{_lead(note)}</div></header>\n"
        f'<div id="app">{_static(readings[0])}</div>\n{_footer(readings)}\n'
        f"<template>{SKELETON}{_help()}</template>\n"
        f'<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>{script()}</script>\n</body>\n</html>\n"
    )


def as_frame(title: str, page: str) -> str:
    """The page inside a notebook, in a frame of its own: nothing of it can clash."""
    style = f"width:100%;height:{HEIGHT}px;border:0"
    inside = html.escape(page, quote=True)
    return (
        f'<iframe title="{_text(title)}" sandbox="allow-scripts" style="{style}" '
        f'srcdoc="{inside}"></iframe>'
    )


def data_of(page: str) -> dict[str, Any]:
    """The data of a page, as it was before it was packed into text."""
    begin = page.index('id="data">') + len('id="data">')
    return json.loads(page[begin : page.index("</script>", begin)])


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _json(data: Any) -> str:
    """JSON in ASCII without a character that HTML could take for markup."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(text: str) -> str:
    """Text inside HTML; characters that are not to be seen are written as their numbers."""
    shown = "".join(c if c.isprintable() else f"[{ord(c):X}]" for c in _cut(text))
    return html.escape(shown, quote=True)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text):,} characters)"


def _short(reading: dict[str, Any]) -> dict[str, Any]:
    texts = {name: [_cut(text) for text in reading[name]] for name in ("queries", "keys")}
    return {**reading, **texts, "name": _cut(reading["name"])}


def _lead(note: str) -> str:
    return f'<p class="lead">{_text(note)}</p>' if note else ""


def _footer(readings: Sequence[dict[str, Any]]) -> str:
    """What a reader must know of the numbers, each sentence once."""
    notes = dict.fromkeys(note for reading in readings for note in reading["notes"])
    sentences = [*notes, "An attention weight says what was read, not why."]
    return f"<footer>{''.join(f'<p>{_text(s)}</p>' for s in sentences)}</footer>"


def _help() -> str:
    keys = "".join(f"<dt>{_text(key)}</dt><dd>{_text(what)}</dd>" for key, what in KEYS.items())
    close = '<form method="dialog"><button>Close</button></form>'
    return f'<dialog aria-label="Keys"><h2>Keys</h2><dl>{keys}</dl>{close}</dialog>'


def _static(reading: dict[str, Any]) -> str:
    """The first head as a table, for readers whose notebook or browser runs no script."""
    content, queries, keys = reading["content"], reading["queries"], reading["keys"]
    if content["form"] != "dense" or max(len(queries), len(keys)) > STATIC:
        return "<p>This page draws attention with its own script, which did not run.</p>"
    weights = unpack(content["weights"])[0, 0]
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
