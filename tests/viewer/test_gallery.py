"""The gallery pages hold the numbers that they name, and the present script and style."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from attn_jax.viewer._json_arrays import array_from_json, mask_from_json
from attn_jax.viewer._page import script, style
from tests.helpers.viewer_pages import Page, softmax

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "gallery"
PAGES = sorted(GALLERY.glob("*.html"))

if not GALLERY.exists():
    pytest.skip("the wheel has no guides and no gallery", allow_module_level=True)


def record(name, which=0):
    return Page((GALLERY / name).read_text(encoding="utf-8")).data["records"][which]


def test_the_gallery_is_complete_and_listed():
    listed = re.findall(r"\]\(([\w-]+\.html)\)", (GALLERY / "README.md").read_text())
    assert sorted(listed) == [path.name for path in PAGES]
    assert len(PAGES) == 7


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_of_the_gallery_has_the_present_script_and_no_links(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.scripts[1][1] == script(), "run python -m experiments.gallery"
    assert page.texts["style"][0] == style()
    assert "://" not in text


@pytest.mark.parametrize("name", ["lecture.html", "word-order.html", "mechanisms.html"])
def test_the_stored_scores_weights_states_and_contexts_agree(name):
    page = Page((GALLERY / name).read_text(encoding="utf-8"))
    for one in page.data["records"]:
        content, decode = one["content"], one["decode"]
        weights = array_from_json(content["weights"])[0, 0].astype(float)
        if not decode["only_last"]:
            scores = array_from_json(content["logits"])[0, 0].astype(float)
            half_a_bit = 2.0**-24 * abs(scores).max()  # the model rounds its scores to float32
            assert abs(softmax(scores) - weights).max() <= max(1e-6, half_a_bit)
        contexts = array_from_json(decode["contexts"])
        sums = weights @ array_from_json(decode["annotations"])
        assert abs(sums[:, : contexts.shape[1]] - contexts).max() <= 1e-6


def test_figure_3a_has_the_digitised_weights():
    figure = json.loads((GALLERY / "bahdanau_fig3a_alignment.json").read_text())
    shown = array_from_json(record("figure-3a.html")["content"]["weights"])[0, 0]
    assert np.array_equal(shown, np.array(figure["weights_grey"], np.float32))


def test_the_worked_example_has_the_numbers_of_the_book():
    book = json.loads((ROOT / "tests" / "data" / "ch03_reference.json").read_text())
    sections = {
        ("worked-example.html", 0): ("simplified", 1),
        ("worked-example.html", 1): ("self_attention_v2", 2**-0.5),
        ("worked-example-causal.html", 0): ("causal_attention", 2**-0.5),
        ("worked-example-causal.html", 1): ("multi_head_attention", 1),
    }
    for (name, which), (section, scale) in sections.items():
        content = record(name, which)["content"]
        weights = np.array(book[section]["weights"])
        assert np.allclose(array_from_json(content["weights"])[0], weights, atol=1e-6), section
        logits, scores = (
            array_from_json(content["logits"])[0],
            scale * np.array(book[section]["scores"]),
        )
        seen = np.isfinite(scores) & (weights > 0)
        assert np.allclose(np.where(seen, logits, 0), np.where(seen, scores, 0), atol=1e-6), section
    causal = record("worked-example-causal.html")["content"]["masks"]
    assert np.array_equal(mask_from_json(causal["list"][0]), np.tril(np.ones((6, 6), bool)))


def test_the_page_of_the_sort_gpt_has_all_heads_and_rollout():
    sort = record("sort.html")
    assert sort["sizes"] == [3, 3]
    assert "rollout" in [measure["name"] for measure in sort["measures"]]
