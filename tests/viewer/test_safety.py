"""The page holds any token as text, loads nothing, and stays small."""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from attn_jax.viewer import AttentionView
from attn_jax.viewer._page import SOURCES, script, style
from tests.helpers.viewer_pages import Page

NASTY = [
    "</script><script>alert(1)</script>",
    "</script/ <script ",
    "<!--<script>",
    "\"'`&lt;",
    "\u2028\u2029",
    "\u202eabc\u2066",
    "\0\x01",
    "\ud800",
    "<img src=x onerror=alert(1)>",
    "]]>",
    "",
]
LARGEST_SCRIPT, LARGEST_STYLE = 60_000, 10_000  # bytes


def page_of(tokens, **options):
    count = len(tokens)
    return AttentionView.from_weights(np.eye(count), tokens, **options).to_html()


def test_nasty_tokens_are_unchanged():
    page = Page(page_of(NASTY))
    assert page.data["records"][0]["queries"] == NASTY


def test_the_data_has_no_character_that_is_markup_in_html():
    [text] = [text for attributes, text in Page(page_of(NASTY)).scripts if "id" in attributes]
    assert not set("<>&") & set(text)
    assert text.isascii()


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_nothing_of_a_token_title_or_note_becomes_markup(nasty):
    plain = Page(page_of(["a"], title="t", note="n"))
    page = Page(page_of([nasty], title=nasty or " ", note=nasty or " "))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert len(page.scripts) == 2
    assert page.scripts[1] == plain.scripts[1]


def test_a_page_can_be_written_whatever_its_tokens(tmp_path):
    path = AttentionView.from_weights(np.eye(len(NASTY)), NASTY).save(tmp_path / "page.html")
    assert path.read_bytes().decode("utf-8").startswith("<!doctype html>")
    assert b"\0" not in path.read_bytes()


def test_a_token_of_a_megabyte_is_cut_with_a_remark():
    text = page_of(["x" * 1_000_000, "y"])
    assert len(text) < 2 * LARGEST_SCRIPT + LARGEST_STYLE
    assert "(1,000,000 characters)" in text


def test_the_page_allows_itself_nothing_but_its_own_script_and_style():
    page = Page(page_of(["a"]))
    parts = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert set(parts) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    for name, text in (("script-src", page.scripts[1][1]), ("style-src", page.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert parts[name] == f"'sha256-{digest}'"


def test_the_page_has_no_address_of_another_resource():
    text = page_of(["a", "b"])
    assert "http" not in text
    assert "://" not in text
    assert not re.search(r"""(src|href)\s*=|@import|url\(|//cdn""", text)


def test_the_script_turns_no_text_into_markup_or_code():
    script = "".join(path.read_text() for path in SOURCES.glob("*.js"))
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "fetch(",
    ):
        assert forbidden not in script


def test_script_and_style_are_readable_and_small():
    files = [path for path in Path(SOURCES).iterdir() if path.is_file()]
    assert len(script().encode()) <= LARGEST_SCRIPT
    assert len(style().encode()) <= LARGEST_STYLE
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, path.name
        assert path.suffix != ".js" or lines[0].startswith("// "), (
            f"{path.name} starts with a comment"
        )


def test_a_notebook_shows_the_page_in_an_iframe():
    view = AttentionView.from_weights(np.eye(2), NASTY[:2], title=NASTY[0])
    (tag, attributes), *others = Page(view._repr_html_()).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == view.to_html()
    assert attributes["sandbox"] == "allow-scripts"
    assert [name for name, _ in others] == ["noscript", "p", "b", "img"]
    assert others[-1][1]["alt"] == NASTY[0]


def test_there_is_a_table_where_scripts_do_not_run():
    text = page_of(["left", "right"])
    assert "<table>" in text
    cells = Page(text).texts["td"]
    assert cells == ["1", "0", "0", "1"]


def test_equal_views_give_equal_bytes():
    assert page_of(["a", "b"]) == page_of(["a", "b"])
