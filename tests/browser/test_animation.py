"""The animation of a translation in a real browser: its numbers, its movement, and its controls."""

import re

import jax.numpy as jnp
import pytest

from attn_jax.models import force
from attn_jax.viewer import AttentionView
from tests.browser.test_pages import (
    SOURCE,
    TARGET,
    drawn_model,
    keys,
    model_trace,
    number,
    trace_view,
)

SENTENCE = (
    "the cat that the dog that the woman saw chased ate the fish that the boy caught in the river "
    "near the house of the man who wrote the book that the girl read ."
)
LONG = SENTENCE.split()
OUTPUT = [f"word{i}" for i in range(39)]
FIRST_SUM = len(LONG) + 3  # key presses to the frame of the first context
WIDTHS = [{"width": 1280, "height": 900}, {"width": 390, "height": 844}]
IN_VIEW = """node => {
  const { left, right, top, bottom } = node.getBoundingClientRect();
  const over = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  const inside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
  return inside && (node === over || node.contains(over)); }"""


def long_view():
    model = drawn_model()
    source = 4 + jnp.arange(len(LONG)) % 5
    target = 3 + jnp.arange(len(OUTPUT)) % 4
    trace = force(model, source, source > 0, target)
    annotations = model.encode(source, source > 0).annotations
    return AttentionView.from_trace(trace, LONG, OUTPUT, annotations=annotations)


def view_without_attention():
    model = drawn_model(context="final")
    source, target = jnp.array([4, 8, 5, 6, 2]), jnp.array([6, 5, 4, 2])
    trace = force(model, source, source > 0, target)
    annotations = model.encode(source, source > 0).annotations
    return AttentionView.from_trace(trace, SOURCE, TARGET, annotations=annotations, title="Last")


def caption(page):
    return page.locator(".caption").text_content()


def count(page):
    return page.locator(".count").text_content()


def test_the_animation_steps_by_keyboard_through_the_traces_numbers(look, tmp_path):
    trace, _ = model_trace()
    page = look(trace_view().save(tmp_path / "page.html"))
    assert count(page) == "1 / 22"  # 5 source tokens, passing the states on, 4 × 4
    assert caption(page) == "The encoder reads “A” (token 1 of 5) and computes a state for it."
    keys(page, *["ArrowRight"] * 5)
    assert "All 5 encoder states are kept" in caption(page)
    for t in range(4):
        keys(page, "ArrowRight")
        scores = page.locator(".score").all_text_contents()
        assert [number(x) for x in scores] == pytest.approx(trace.scores[t].tolist(), rel=6e-4)
        keys(page, "ArrowRight")
        weights = page.locator(".alpha").all_text_contents()
        assert [number(x) for x in weights] == pytest.approx(trace.weights[t].tolist(), rel=6e-4)
        keys(page, "ArrowRight")
        within = re.search(r"within (\S+)", page.locator(".pinned").text_content())[1]
        assert number(within) <= 1e-6 * float(abs(trace.contexts).max())
        keys(page, "ArrowRight")
        assert caption(page) == f"The decoder says “{TARGET[t]}” (step {t + 1} of 4)."
    assert count(page) == "22 / 22"
    keys(page, "ArrowLeft", "ArrowLeft")
    best = int(trace.weights[3].argmax())
    assert "Step 4 of 4: softmax" in caption(page)
    assert f"The greatest weight is on “{SOURCE[best]}” (" in caption(page)
    keys(page, "Home")
    assert count(page) == "1 / 22"


@pytest.mark.parametrize("size", WIDTHS, ids=["1280", "390"])
def test_the_context_and_the_greatest_weight_of_a_long_sentence_are_in_view(look, tmp_path, size):
    view = long_view()
    weights = view.readings[0].weights(0, 0)
    page = look(view.save(tmp_path / "page.html"), viewport=size, reduced_motion="reduce")
    keys(page, *["ArrowRight"] * FIRST_SUM)
    for t in (0, 1, 2):
        assert f"Step {t + 1} of 39: each encoder state is multiplied" in caption(page)
        best = int(weights[t].argmax())
        for part in (".pinned .strip", f".alpha >> nth={best}", f".score >> nth={best}"):
            assert page.locator(part).evaluate(IN_VIEW), (t, part)
        assert f"{LONG[best]}" in page.locator(".words bdi").first.text_content()
        keys(page, *["ArrowRight"] * 4)
    keys(page, "End")
    for part in (".pinned .strip", ".target >> nth=38"):
        assert page.locator(part).evaluate(IN_VIEW), part


def test_a_column_has_its_token_its_state_and_its_numbers_below_each_other(look, tmp_path):
    page = look(long_view().save(tmp_path / "page.html"))
    keys(page, *["ArrowRight"] * FIRST_SUM)
    middles = """kind => [...document.querySelectorAll(kind)].map(node => {
        const { left, right } = node.getBoundingClientRect(); return (left + right) / 2; })"""
    chips = page.evaluate(middles, ".source")
    for kind in (".score", ".alpha", ".vector"):
        assert page.evaluate(middles, kind) == pytest.approx(chips, abs=1)


def test_a_model_without_attention_shows_no_scores_and_no_softmax(look, tmp_path):
    page = look(view_without_attention().save(tmp_path / "page.html"))
    names = page.locator(".modes button").all_text_contents()
    assert names == ["Black box", "Last state only"]
    assert page.locator(".score, .alpha").count() == 0
    keys(page, *["ArrowRight"] * 5)
    assert "Only the last encoder state, after “.”, is passed on" in caption(page)
    assert "has attention" not in caption(page)
    assert "no scores and no softmax are computed" in page.locator(".pinned").text_content()
    colours = "node => [...node.children].map((part) => part.style.background)"
    last = page.locator(".source").last.locator("xpath=..").locator(".strip").evaluate(colours)
    assert page.locator(".pinned .strip").evaluate(colours) == last
    page.get_by_role("tab", name="Matrix").click()
    label = page.locator(".cursor").get_attribute("aria-label")
    assert "logit none, bias none, mask masked, weight 0" in label


def test_the_mode_with_attention_returns_with_a_system_that_has_it(look, tmp_path):
    pair = trace_view(title="Bahdanau").compare(view_without_attention())
    page = look(pair.save(tmp_path / "page.html"))
    assert page.locator(".score").count() == 5
    page.locator("#which").select_option("Last")
    assert page.locator(".score").count() == 0
    page.locator("#which").select_option("Bahdanau")
    assert page.locator(".score").count() == 5


@pytest.mark.parametrize("label", ["Black box", "Last state only"])
def test_the_other_modes_of_a_model_with_attention_name_it(look, tmp_path, label):
    page = look(trace_view().save(tmp_path / "page.html"))
    page.get_by_role("button", name=label).click()
    assert count(page).endswith("/ 10")  # 5 source tokens, passing the state on, 4 target tokens
    keys(page, "Home", *["ArrowRight"] * 5)
    if label == "Black box":
        assert "at every step the decoder computes a context from them" in caption(page)
    else:
        assert "what a decoder without attention would receive" in caption(page)
        assert page.locator(".gate").all_text_contents() == ["✕", "✕", "✕", "✕", "▼"]


# Presses the key and looks at once, so that a slow computer does not see the end only.
NEXT = """const press = { key: 'ArrowRight', bubbles: true };
  document.body.dispatchEvent(new KeyboardEvent('keydown', press));"""
FLYING = f"() => {{ {NEXT} return document.querySelectorAll('.flights > *').length; }}"
PLACES = """async () => {
  NEXT
  const flying = document.querySelector('.flights > *');
  const [animation] = flying.getAnimations();
  animation.pause();
  const places = [0, 0.5, 0.999].map(share => {
    animation.currentTime = share * animation.effect.getComputedTiming().duration;
    const { left, right, top, bottom } = flying.getBoundingClientRect();
    return [(left + right) / 2, (top + bottom) / 2]; });
  animation.finish();
  await animation.finished;
  return places; }""".replace("NEXT", NEXT)
MIDDLE = """node => { const { left, right, top, bottom } = node.getBoundingClientRect();
  return [(left + right) / 2, (top + bottom) / 2]; }"""


@pytest.mark.parametrize(
    ("mode", "presses", "begin", "end"),
    [
        ("With attention", 4, ".unit .strip >> nth=0", ".work .strip >> nth=0"),
        ("With attention", 7, None, ".pinned .strip"),
        ("With attention", 8, ".pinned .strip", ".columns >> nth=1 >> .strip >> nth=0"),
        ("Last state only", 4, ".unit .strip >> nth=4", ".pinned .strip"),
        ("Last state only", 5, ".pinned .strip", ".columns >> nth=1 >> .strip >> nth=0"),
        ("Black box", 0, ".source >> nth=1", ".encoder"),
        ("Black box", 4, ".encoder", ".blackbox .context"),
        ("Black box", 5, ".decoder", ".target >> nth=0"),
    ],
)
def test_states_travel_to_where_they_are_used(look, tmp_path, mode, presses, begin, end):
    page = look(trace_view().save(tmp_path / "page.html"))
    page.get_by_role("button", name=mode).click()
    keys(page, "Home", *["ArrowRight"] * presses)
    first, middle, last = page.evaluate(PLACES)
    assert page.locator(end).evaluate(MIDDLE) == pytest.approx(last, abs=1.5)
    if begin:
        assert page.locator(begin).evaluate(MIDDLE) == pytest.approx(first, abs=1.5)
    assert middle == pytest.approx([(a + b) / 2 for a, b in zip(first, last, strict=True)], abs=2)


def test_all_encoder_states_travel_when_all_are_kept(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    keys(page, *["ArrowRight"] * 4)
    assert page.evaluate(FLYING) == 5
    page.locator(".flights > :first-child").wait_for(state="detached")


def test_only_the_next_frame_moves_and_every_other_change_is_a_cut(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    for key in ("ArrowLeft", "End", "Home"):
        keys(page, "Home", *["ArrowRight"] * 8)
        assert page.evaluate(FLYING) == 1
        keys(page, key)
        assert page.locator(".flights > *").count() == 0
        assert page.evaluate("document.getAnimations().length") == 0


def test_what_is_not_computed_yet_is_an_outlined_and_readable_placeholder(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    later = page.locator(".target.chip").last
    style = "node => getComputedStyle(node).opacity + getComputedStyle(node).borderStyle"
    assert later.text_content() == "<end>"
    assert later.evaluate(style) == "1dashed"
    strip = page.locator(".vector .strip").first
    assert strip.evaluate(style) == "1dashed"
    assert not strip.locator("i").first.is_visible()
    assert page.locator(".score").all_text_contents() == [""] * 5
    assert strip.evaluate("node => !!node.closest('[inert]')")  # not read out, no tooltip
    assert "not computed yet" in page.locator(".pinned").text_content()
    keys(page, "End")
    assert later.evaluate(style) == "1solid"
    assert page.locator("[inert]").count() == 0


def test_the_page_starts_paused_with_a_button_that_plays(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    play = page.get_by_role("button", name="Play", exact=True)
    assert play.is_visible()
    assert play.text_content() == "▶ Play"
    page.clock.install()
    page.clock.run_for(5000)
    assert count(page) == "1 / 22"
    play.click()
    page.clock.run_for(1250)
    assert count(page) == "2 / 22"
    pause = page.get_by_role("button", name="Pause", exact=True)
    assert page.locator(".caption").get_attribute("aria-live") == "off"
    pause.click()
    assert page.locator(".caption").get_attribute("aria-live") == "polite"


def test_space_plays_and_pauses(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    page.clock.install()
    for key, frames in ((" ", 2), (" ", 2), (" ", 3)):
        keys(page, key)
        page.clock.run_for(1250)
        assert count(page) == f"{frames} / 22"


def test_the_speed_is_chosen_by_keyboard_and_kept(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    speed = page.get_by_role("combobox", name="Speed")
    assert speed.evaluate("node => node.selectedOptions[0].text") == "1×"
    speed.focus()
    keys(page, "ArrowDown", "ArrowDown")
    assert speed.evaluate("node => node.selectedOptions[0].text") == "4×"
    assert count(page) == "1 / 22"  # the keys changed the speed, not the frame
    page.get_by_role("tab", name="Lines").click()
    page.get_by_role("tab", name="Animation").click()
    assert speed.evaluate("node => node.selectedOptions[0].text") == "4×"
    page.clock.install()
    page.locator("#play").click()
    page.clock.run_for(1250)
    assert count(page) == "5 / 22"  # 300 milliseconds each


def test_a_change_of_speed_while_playing_takes_effect(look, tmp_path):
    page = look(trace_view().save(tmp_path / "page.html"))
    page.clock.install()
    page.locator("#play").click()
    page.clock.run_for(1250)
    assert count(page) == "2 / 22"
    page.get_by_role("combobox", name="Speed").select_option("2×")
    page.clock.run_for(1250)
    assert count(page) == "4 / 22"


def test_a_token_that_changes_the_direction_of_text_is_shown_as_code_points(look, tmp_path):
    trace, annotations = model_trace()
    source = ["A\u202e", *SOURCE[1:]]
    view = AttentionView.from_trace(trace, source, TARGET, annotations=annotations)
    page = look(view.save(tmp_path / "page.html"))
    assert page.get_by_text("⟨202E⟩").count() > 0
    named = page.evaluate("""() => [...document.querySelectorAll('[aria-label]')]
      .map((node) => node.ariaLabel).filter((label) => label.includes('state of “A'))""")
    assert named
    assert not any("\u202e" in label for label in named)
