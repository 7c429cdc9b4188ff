"""The numbers on a page in a real browser equal those that numpy computes from the arrays."""

import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import masks, score_mods
from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, force
from attn_jax.viewer import AttentionView

RNG = np.random.default_rng(3)
L, N, T, H = 2, 3, 6, 4
TOKENS = ["the", "cat", "that", "sat", "down", "slept"]
QUERY, KEY = RNG.normal(size=(2, L, T, N, H)) * 1.4
SOURCE = ["A", "black", "cat", "sat", "."]
TARGET = ["Un", "chat", "noir", "<end>"]


def qk_view(**options):
    mask = masks.causal()
    return AttentionView.from_qk(QUERY, KEY, TOKENS, mask=mask, title="Heads", **options)


def rows_of(layer, head, slopes=None):
    """Logits, bias and weights of a head, by numpy."""
    logits = QUERY[layer, :, head] @ KEY[layer, :, head].T / math.sqrt(H)
    i, j = np.ogrid[:T, :T]
    bias = np.zeros((T, T)) if slopes is None else -slopes[head] * abs(i - j)
    weights = np.exp(np.where(i >= j, logits + bias, -np.inf))
    return logits, bias, weights / weights.sum(-1, keepdims=True)


def number(text):
    """A number from the text that the page shows."""
    return float(text.replace("−", "-").replace(">", "").replace("<", ""))


def tooltip(page):
    """The names and values in the tooltip."""
    assert page.locator(".tooltip").is_visible()
    names = page.locator(".tooltip dt").all_text_contents()
    return dict(zip(names, page.locator(".tooltip dd").all_text_contents(), strict=True))


def keys(page, *names):
    for name in names:
        page.keyboard.press(name)


def drawn_model(**choices):
    config = EncoderDecoderConfig(9, 7, 6, 5, 4, 8, **choices)
    graph, state = nnx.split(EncoderDecoder(config, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(state)
    rngs = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(rngs, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, drawn))


def model_trace():
    model = drawn_model()
    source, target = jnp.array([4, 8, 5, 6, 2]), jnp.array([6, 5, 4, 2])
    trace = force(model, source, source > 0, target)
    return trace, model.encode(source, source > 0).annotations


def trace_view(**options):
    trace, annotations = model_trace()
    return AttentionView.from_trace(trace, SOURCE, TARGET, annotations=annotations, **options)


def test_a_hovered_cell_shows_the_numbers_of_numpy(look, tmp_path):
    slopes = np.asarray(score_mods.alibi_slopes(N))
    view = qk_view(score_mod=score_mods.alibi(jnp.asarray(slopes)))
    page = look(view.save(tmp_path / "page.html"))
    keys(page, "ArrowDown", "]", "]")
    box = page.locator(".matrix canvas").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    cell = page.locator(".cursor")
    for t, s in [(3, 1), (5, 5), (4, 0)]:
        cell.focus()
        keys(page, *["ArrowUp"] * T, *["ArrowDown"] * t, "Home", *["ArrowRight"] * s)
        target = cell.bounding_box()
        cell.evaluate("node => node.blur()")
        page.mouse.move(target["x"] + 5, target["y"] + 5)
        logits, bias, weights = rows_of(1, 2, slopes)
        facts = tooltip(page)
        assert number(facts["logit"]) == pytest.approx(logits[t, s], abs=4e-3)
        assert number(facts["score mod adds"]) == pytest.approx(bias[t, s], abs=1e-4)
        assert number(facts["weight"]) == pytest.approx(weights[t, s], abs=2e-3)
        assert facts["mask"] == "unmasked"
        assert number(facts["row sum"]) == pytest.approx(1, abs=1e-6)


def test_weights_in_float32_are_shown_to_four_digits(look, tmp_path):
    weights = rows_of(0, 0)[2]
    page = look(AttentionView.from_weights(weights, TOKENS).save(tmp_path / "page.html"))
    page.locator(".cursor").focus()
    keys(page, *["ArrowDown"] * T, "Home")
    for s in range(T):
        assert number(tooltip(page)["weight"]) == pytest.approx(weights[-1, s], rel=6e-4)
        keys(page, "ArrowRight")


def test_a_masked_cell_is_named_and_hatched(look, tmp_path):
    page = look(qk_view().save(tmp_path / "page.html"))
    page.locator(".cursor").focus()
    keys(page, *["ArrowUp"] * T, "End")
    assert tooltip(page)["mask"] == "masked"
    assert tooltip(page)["weight"] == "0"
    box = page.locator(".cursor").bounding_box()
    colours = page.evaluate(
        """([x, y]) => {
          const canvas = document.querySelector('.matrix canvas');
          const rect = canvas.getBoundingClientRect();
          const part = canvas.getContext('2d').getImageData(x - rect.x + 4, y - rect.y + 4, 20, 20);
          return new Set(part.data.filter((_, i) => i % 4 === 0)).size; }""",
        [box["x"], box["y"]],
    )
    assert colours >= 3  # paper, stripe, and the blend of both at its edge


def test_a_focused_cell_has_a_label_with_all_numbers(look, tmp_path):
    page = look(qk_view().save(tmp_path / "page.html"))
    cell = page.locator(".cursor")
    cell.focus()
    keys(page, *["ArrowUp"] * T, *["ArrowDown"] * 4, "Home", "ArrowRight")
    label = cell.get_attribute("aria-label")
    weight = re.search(r"^query “down”, key “cat”: logit .*, weight (\S+), row sum 1\.000$", label)[
        1
    ]
    assert number(weight) == pytest.approx(rows_of(0, 0)[2][4, 1], abs=2e-3)
    assert cell.get_attribute("role") == "gridcell"
    assert cell.get_attribute("aria-colindex") == "2"


def test_keys_choose_head_layer_theme_and_help(look, tmp_path):
    page = look(qk_view().save(tmp_path / "page.html"), color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    keys(page, "d", "]", "ArrowDown")
    assert page.evaluate(theme) == "light"
    assert page.locator("#head").input_value() == "2"
    assert page.locator("#layer").input_value() == "2"
    keys(page, "[", "ArrowUp")
    assert page.locator("#head").input_value() == "1"
    keys(page, "?")
    assert page.locator("dialog").is_visible()
    keys(page, "Escape", "/")
    page.keyboard.type("sle")
    keys(page, "Enter")
    assert "“slept” attends to" in page.locator(".panel h2").text_content()


def test_several_tokens_are_selected_and_summed(look, tmp_path):
    page = look(qk_view().save(tmp_path / "page.html"))
    page.locator(".cursor").focus()
    keys(page, *["ArrowUp"] * T, *["ArrowDown"] * 3, "x", "ArrowDown", "x", "Home", "c")
    weights = rows_of(0, 0)[2]
    facts = page.locator(".panel dd").all_text_contents()
    assert "“sat” + “down” attend to (summed)" in page.locator(".panel h2").text_content()
    assert number(facts[1]) == pytest.approx(2, abs=1e-3)
    assert number(facts[2]) == pytest.approx(weights[3, 0] + weights[4, 0], abs=4e-3)


def test_subwords_are_merged_by_sum_and_mean(look, tmp_path):
    subwords = ["▁at", "tent", "ion", "▁is", "▁ours", "▁now"]
    weights = rows_of(0, 0)[2]
    page = look(AttentionView.from_weights(weights, subwords).save(tmp_path / "page.html"))
    keys(page, "m")
    page.locator(".cursor").focus()
    keys(page, *["ArrowUp"] * T, "Home")
    merged = weights[:3, :3].sum(axis=1).mean()
    assert (
        page.locator(".cursor")
        .get_attribute("aria-label")
        .startswith("query “attention”, key “attention”")
    )
    assert number(tooltip(page)["weight"]) == pytest.approx(merged, rel=6e-4)


def test_nan_and_infinity_are_marked(look, tmp_path):
    weights = rows_of(0, 0)[2]
    weights[3, 0] = np.nan
    logits = np.zeros((T, T))
    logits[3, 1] = np.inf
    page = look(
        AttentionView.from_weights(weights, TOKENS, logits=logits).save(tmp_path / "p.html")
    )
    page.locator(".cursor").focus()
    keys(page, *["ArrowUp"] * T, *["ArrowDown"] * 3, "Home")
    assert tooltip(page)["weight"] == "NaN"
    keys(page, "ArrowRight")
    assert tooltip(page)["logit"] == "∞"


def test_two_views_in_one_notebook_are_independent(look, tmp_path):
    views = [qk_view(), AttentionView.from_weights(np.eye(2), ["x", "y"], title="Two")]
    path = tmp_path / "notebook.html"
    frames = "".join(view._repr_html_() for view in views)
    tabs = '<b role="tab">a notebook</b>'
    path.write_text(f"<!doctype html><meta charset=utf-8>{tabs}{frames}", encoding="utf-8")
    page = look(path)
    inside = [page.frame_locator("iframe").nth(i) for i in range(2)]
    for i, title in enumerate(["Heads", "Two"]):
        inside[i].locator(".cursor").wait_for()
        assert inside[i].locator("h1").text_content() == title
    inside[1].locator(".cursor").focus()
    keys(page, "ArrowRight")
    assert "query “y”, key “y”" in inside[1].locator(".cursor").get_attribute("aria-label")
    assert "query “sat”, key “the”" in inside[0].locator(".cursor").get_attribute("aria-label")


def test_two_traces_are_compared_cell_by_cell(look, tmp_path):
    one, other = rows_of(0, 0)[2], rows_of(1, 1)[2]
    first, second = (AttentionView.from_weights(w, TOKENS) for w in (one, other))
    page = look(first.compare(second).save(tmp_path / "page.html"))
    page.get_by_role("tab", name="Compare").click()
    page.locator(".cursor").nth(2).focus()
    keys(page, *["ArrowUp"] * T, *["ArrowDown"] * 4, "Home", "ArrowRight")
    facts = tooltip(page)
    assert number(facts["A"]) == pytest.approx(one[4, 1], rel=6e-4)
    assert number(facts["B"]) == pytest.approx(other[4, 1], rel=6e-4)
    assert number(facts["A − B"]) == pytest.approx(one[4, 1] - other[4, 1], rel=2e-3)
    apart = abs(one - other).sum(axis=1).mean() / 2
    summary = page.locator(".facts").text_content()
    assert number(re.search(r"place (\S+) of", summary)[1]) == pytest.approx(apart, rel=6e-4)


def test_other_measures_are_shown_with_their_names(look, tmp_path):
    measures = {"leave-one-out": RNG.normal(size=(4, 5)), "gradient × input": np.ones((4, 5))}
    page = look(trace_view(measures=measures).save(tmp_path / "page.html"))
    page.get_by_role("tab", name="Other measures").click()
    names = page.locator("figcaption b").all_text_contents()
    assert names == ["weights", "leave-one-out", "gradient × input"]
    page.locator(".cursor").first.focus()
    keys(page, *["ArrowUp"] * 4, "ArrowDown", "Home")
    got = number(tooltip(page)["leave-one-out"])
    assert got == pytest.approx(measures["leave-one-out"][1, 0], rel=6e-4)


def test_a_page_of_four_thousand_tokens_is_fast(look, tmp_path):
    count, H = 4096, 64
    query, key = RNG.normal(size=(2, count, H)).astype(np.float32)
    view = AttentionView.from_qk(query, key, [f"t{i}" for i in range(count)], mask=masks.causal())
    path = view.save(tmp_path / "long.html")
    assert path.stat().st_size < 2_200_000
    began = time.monotonic()
    page = look(path)
    paint = page.evaluate(
        "performance.getEntriesByType('paint')[0]?.startTime ?? performance.now()"
    )
    assert paint <= 3000
    assert time.monotonic() - began < 10
    page.locator(".cursor").focus()
    t = number(page.locator(".tag").first.text_content().split()[0])
    began = time.monotonic()
    keys(page, "Home", *["ArrowRight"] * 7)
    assert time.monotonic() - began < 4
    row = query[int(t)].astype(float) @ key[: int(t) + 1].astype(float).T / 8
    weights = np.exp(row - row.max())
    assert number(tooltip(page)["weight"]) == pytest.approx((weights / weights.sum())[7], rel=2e-2)
    assert number(tooltip(page)["logit"]) == pytest.approx(row[7], abs=4e-3)


def in_a_notebook(look, path, view, onload=True):
    """A page with the frame that a notebook shows of a view."""
    frame = view._repr_html_()
    if not onload:
        frame = re.sub(r' onload="[^"]*"', "", frame)
    tabs = '<b role="tab">a notebook</b>'
    path.write_text(f"<!doctype html><meta charset=utf-8>{tabs}{frame}", encoding="utf-8")
    page = look(path)
    page.frame_locator("iframe").locator(".cursor").wait_for()
    return page


def test_a_page_in_a_frame_of_another_site_keeps_its_scroll_bar(look, tmp_path):
    page = in_a_notebook(look, tmp_path / "other.html", qk_view(), onload=False)
    root = page.frame_locator("iframe").locator("html")
    page.evaluate("frames[0].postMessage('hello', '*')")
    page.wait_for_timeout(200)
    assert "fitted" not in (root.get_attribute("class") or "")
    page.evaluate("frames[0].postMessage('attnJaxFit', '*')")
    page.wait_for_timeout(200)
    assert "fitted" in root.get_attribute("class")


def test_the_listener_of_a_removed_frame_removes_itself(look, tmp_path):
    page = in_a_notebook(look, tmp_path / "notebook.html", qk_view())
    removed = page.evaluate("""() => {
      const removed = [];
      window.removeEventListener = (name) => removed.push(name);
      document.querySelector('iframe').remove();
      dispatchEvent(new MessageEvent('message', { data: null }));
      return removed; }""")
    assert removed == ["message"]


def test_digits_that_belong_to_a_token_are_no_number_of_it(look, tmp_path):
    tokens = ["₂", "C₁₂H₂₂O", "cat", "cat"]
    page = look(AttentionView.from_weights(np.eye(4), tokens).save(tmp_path / "page.html"))
    page.get_by_role("tab", name="Lines").click()
    options = page.locator(".lines [role=option]")
    assert options.all_text_contents()[:4] == ["₂", "C₁₂H₂₂O", "cat₁", "cat₂"]
    names = [option.get_attribute("aria-label") or "" for option in options.all()]
    assert "C (" not in "".join(names)
