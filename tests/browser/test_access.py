"""Accessibility: labels, contrast, small screens, keyboard, reduced motion, print, any text."""

from pathlib import Path

import numpy as np
import pytest

from attn_jax.viewer import AttentionView
from tests.browser.test_pages import (
    SOURCE,
    TARGET,
    TOKENS,
    keys,
    model_trace,
    qk_view,
    rows_of,
    trace_view,
)

NASTY = [
    "</script><script>document.title='bad'</script>",
    "<b>x</b>",
    "\u202eabc",
    "\0",
    "\ud800",
    "",
]

AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


def views(tmp_path):
    one, other = rows_of(0, 0)[2], rows_of(1, 1)[2]
    first, second = (AttentionView.from_weights(w, TOKENS, title=str(len(w))) for w in (one, other))
    measures = {"leave-one-out": np.ones((len(TARGET), len(SOURCE)))}
    return {
        "trace": trace_view(measures=measures).save(tmp_path / "trace.html"),
        "heads": qk_view().save(tmp_path / "heads.html"),
        "pair": first.compare(second).save(tmp_path / "pair.html"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_has_names_and_contrast(look, tmp_path, scheme):
    for path in views(tmp_path).values():
        page = look(path, color_scheme=scheme)
        for tab in page.get_by_role("tab").all():
            tab.click()
            assert page.evaluate(f"() => {{ {AUDIT} return faults(); }}") == []
            assert page.evaluate(f"() => {{ {AUDIT} return faint(); }}") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("mode", ["Black box", "Last state only", "With attention"])
def test_every_frame_of_the_animation_has_names_and_contrast(look, tmp_path, scheme, mode):
    page = look(views(tmp_path)["trace"], color_scheme=scheme, reduced_motion="reduce")
    page.get_by_role("button", name=mode).click()
    frames = int(page.locator(".count").text_content().split("/")[1])
    keys(page, "Home")
    for _ in range(frames):
        assert page.evaluate(f"() => {{ {AUDIT} return [...faults(), ...faint()]; }}") == []
        keys(page, "ArrowRight")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_view_is_wider_than_the_screen(look, tmp_path, width):
    for path in views(tmp_path).values():
        page = look(path, viewport={"width": width, "height": 844})
        for tab in page.get_by_role("tab").all():
            tab.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything_with_visible_focus(look, tmp_path):
    page = look(views(tmp_path)["heads"])
    seen = set()
    for _ in range(14):
        keys(page, "Tab")
        seen.add(page.evaluate("String(document.activeElement.id || document.activeElement.value)"))
        assert page.evaluate(
            "document.activeElement === document.body || getComputedStyle(document.activeElement)"
            ".outlineStyle !== 'none'"
        )
    assert {"d", "?", "tab-matrix", "layer", "head", "root", "find"} <= seen
    assert any(name.startswith("cell ") for name in seen)


def test_arrow_keys_change_tabs_and_keep_the_focus(look, tmp_path):
    page = look(views(tmp_path)["heads"])
    page.locator("#tab-matrix").focus()
    keys(page, "ArrowRight")
    assert page.locator("#tab-lines").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.id") == "tab-lines"
    page.locator("#layer").focus()
    page.locator("#layer").select_option("2")
    assert page.evaluate("document.activeElement.id") == "layer"


@pytest.mark.parametrize("mode", ["Black box", "Last state only", "With attention"])
def test_with_reduced_motion_nothing_travels(look, tmp_path, mode):
    page = look(views(tmp_path)["trace"], reduced_motion="reduce")
    page.get_by_role("button", name=mode).click()
    frames = int(page.locator(".count").text_content().split("/")[1])
    for _ in range(frames):
        keys(page, "ArrowRight")
        assert page.locator(".flights > *").count() == 0
        assert page.evaluate("document.getAnimations().length") == 0
    assert page.locator(".count").text_content() == f"{frames} / {frames}"


def test_a_printed_page_is_light_and_has_no_buttons(look, tmp_path):
    page = look(views(tmp_path)["heads"], color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert not page.locator(".tools").is_visible()
    assert page.locator(".matrix canvas").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_equal_tokens_have_numbers_in_captions_and_names(look, tmp_path):
    source, target = ["the", "cat", "the", "cat", "the"], ["le", "chat", "le", "<end>"]
    trace, annotations = model_trace()
    view = AttentionView.from_trace(trace, source, target, annotations=annotations)
    page = look(view.save(tmp_path / "page.html"))
    keys(page, "ArrowRight", "ArrowRight")
    assert (
        page.locator(".caption").text_content()
        == "The encoder reads “the₂” (token 3 of 5) and computes a state for it."
    )
    assert page.locator(".source").all_text_contents() == ["the₁", "cat₁", "the₂", "cat₂", "the₃"]
    assert page.locator(".target.chip").all_text_contents() == ["le₁", "chat", "le₂", "<end>"]
    state = page.locator(".unit .strip").nth(2).get_attribute("aria-label")
    assert state.startswith("encoder state of “the (2)”: 1 ")
    page.get_by_role("tab", name="Matrix").click()
    page.locator(".cursor").focus()
    keys(page, *["ArrowUp"] * 4, "ArrowDown", "ArrowDown", "End")
    label = page.locator(".cursor").get_attribute("aria-label")
    assert label.startswith("query “le (2)”, key “the (3)”: logit ")
    page.get_by_role("tab", name="Lines").click()
    options = [x.get_attribute("aria-label") for x in page.get_by_role("option").all()]
    assert options == ["le (1)", "chat", "le (2)", "<end>"]
    items = [x.get_attribute("aria-label") for x in page.get_by_role("listitem").all()]
    assert items[2].startswith("the (2) .")
    assert page.get_by_role("option").all_text_contents() == ["le₁", "chat", "le₂", "<end>"]


def test_nasty_tokens_are_shown_as_text(look, tmp_path):
    view = AttentionView.from_weights(np.eye(len(NASTY)), NASTY, title=NASTY[0])
    page = look(view.save(tmp_path / "page.html"))
    assert page.title().startswith("</script><script>")
    page.get_by_role("tab", name="Lines").click()
    shown = page.locator("[role=option]").all_text_contents()
    assert shown == ["</script><script>do…", "<b>x</b>", "⟨202E⟩abc", "⟨0⟩", "⟨D800⟩", "∅"]
    assert page.locator("[role=option] b").count() == 0


def test_without_scripts_there_is_a_table(look, chromium, tmp_path):
    path = AttentionView.from_weights(np.eye(2), ["left", "right"]).save(tmp_path / "page.html")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("td").all_text_contents() == ["", "1", "0", "0", "1"]
    context.close()
