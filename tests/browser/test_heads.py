"""The small matrices of all heads, and the hatching of masked pairs, in a real browser."""

import math
import re

import numpy as np
import pytest

from attn_jax.viewer import AttentionView
from tests.browser.test_pages import TOKENS, L, N, T, keys, qk_view, rows_of


@pytest.mark.parametrize("width", [390, 1280])
def test_the_heads_fill_the_page_and_name_their_tokens(look, tmp_path, width):
    view = qk_view()
    page = look(view.save(tmp_path / "page.html"), viewport={"width": width, "height": 900})
    page.get_by_role("tab", name="Heads").click()
    heads = [head.bounding_box() for head in page.locator(".head").all()]
    room = page.locator("main").bounding_box()
    left = min(head["x"] for head in heads) - room["x"]
    right = room["x"] + room["width"] - max(head["x"] + head["width"] for head in heads)
    assert 0 <= left <= 8
    assert 0 <= right <= 8
    for head in range(N):  # of the first layer
        weights = rows_of(0, head)[2].copy()
        weights[0] = 0  # the first query attends to itself only
        t, s = np.unravel_index(weights.argmax(), weights.shape)
        label = page.locator(".head").nth(head).get_attribute("aria-label")
        assert f"layer 1, head {head + 1}: “{TOKENS[t]}” attends most to “{TOKENS[s]}” (" in label
    page.locator(".head canvas").first.hover()
    assert page.locator(".tooltip b").text_content().startswith("query “")
    page.mouse.move(1, 1)
    assert not page.locator(".tooltip").is_visible()


INK = """canvas => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, 30, canvas.height);
  return data.some((_, i) => i % 4 === 0 && data[i + 3] > 200 && data[i + 2] < 60); }"""


def test_the_small_matrices_have_tokens_where_they_are_wide_enough(look, tmp_path):
    short = AttentionView.from_weights(rows_of(0, 0)[2] * np.ones((2, 1, 1)), TOKENS)
    weights = np.tril(np.ones((30, 30))) / np.arange(1, 31)[:, None]
    long = AttentionView.from_weights(weights * np.ones((8, 1, 1)), [f"t{i}" for i in range(30)])
    for view, has_names in ((short, True), (long, False)):
        page = look(view.save(tmp_path / "page.html"), color_scheme="light")
        page.get_by_role("tab", name="Heads").click()
        assert page.locator(".head canvas").first.evaluate(INK) is has_names


HATCHED = """(canvas, places) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  return places.map(([x, y]) => {
    const reds = new Set();
    for (let i = -8; i < 8; i++) for (let j = -8; j < 8; j++) {
      reds.add(data[4 * (Math.round(y * height + i) * width + Math.round(x * width + j))]); }
    return reds.has(251) && reds.size >= 3; }); }"""  # the colour of the paper, and stripes


def test_masked_pairs_are_hatched_in_every_view(look, tmp_path):
    views = [qk_view(measures={"one": np.ones((T, T))}) for _ in range(2)]
    page = look(views[0].compare(views[1]).save(tmp_path / "page.html"), color_scheme="light")
    masked, unmasked = (0.88, 0.35), (0.35, 0.88)  # shares of width and height
    for tab, count in (("Matrix", 1), ("Heads", L * N), ("Compare", 3), ("Other measures", 3)):
        page.get_by_role("tab", name=tab).click()
        canvases = page.locator("main canvas").all()
        assert len(canvases) == count
        for canvas in canvases:
            assert canvas.evaluate(HATCHED, [masked, unmasked]) == [True, False], tab
    page.get_by_role("tab", name="Lines").click()
    page.locator(".lines [role=option]").nth(1).hover()
    items = page.locator(".lines [role=listitem]").all()
    images = [item.evaluate("node => getComputedStyle(node).backgroundImage") for item in items]
    assert ["repeating" in image for image in images] == [False] * 2 + [True] * 4
    assert items[2].get_attribute("aria-label") == "that masked"


def test_a_head_names_its_greatest_pair_with_the_weight_of_the_rows(look, tmp_path):
    query = np.zeros((3, 1, 2))
    key = np.zeros((4, 1, 2))
    query[:, 0, 0] = math.sqrt(2)
    query[2, 0] *= 1 + 1e-3
    key[2, 0, 0] = math.log(3)  # a weight of 3 / (3 + 3), which eight bits round up to 0.5022
    view = AttentionView.from_qk(
        np.repeat(query, 2, axis=1), np.repeat(key, 2, axis=1), list("pqr"), key_tokens=list("abcd")
    )
    page = look(view.save(tmp_path / "page.html"))
    page.get_by_role("tab", name="Heads").click()
    label = page.locator(".head").first.get_attribute("aria-label")
    [weight] = re.findall(r": “r” attends most to “c” \((0\.\d{4})\)", label)
    assert float(weight) == pytest.approx(0.5003, abs=5e-4)  # query and key are stored in float16


def test_a_merged_head_leaves_out_a_word_that_may_attend_to_itself_only(look, tmp_path):
    weights = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.3, 0.3, 0.4, 0], [0.2, 0.2, 0.3, 0.3]])
    view = AttentionView.from_weights(
        np.stack([weights, weights]), ["▁The", "y", "▁sat", "▁down"], mask=np.tri(4, dtype=bool)
    )
    page = look(view.save(tmp_path / "page.html"))
    keys(page, "m")
    page.get_by_role("tab", name="Heads").click()
    label = page.locator(".head").first.get_attribute("aria-label")
    assert ": “sat” attends most to “They” (0.6000)" in label
