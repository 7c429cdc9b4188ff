"""The gallery's pages show the stored arrays and the published numbers that they name."""

import functools
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import GPT, DecoderConfig
from attn_jax.viewer import AttentionView
from attn_jax.viewer.__main__ import load, view_of
from attn_jax.viewer._json_arrays import array_from_json, mask_from_json
from tests.helpers.viewer_pages import Page, softmax

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "gallery"

arrays = pytest.importorskip("experiments.gallery.arrays", reason="the wheel has no experiments")
pages = pytest.importorskip("experiments.gallery.pages", reason="the wheel has no experiments")

NAMES = [
    "figure-3a",
    "lecture",
    "word-order",
    "mechanisms",
    "worked-example",
    "worked-example-causal",
    "sort",
]
views = functools.cache(pages.all_pages)


@functools.cache
def html(name):
    return views()[name].to_html()


def record(name, which=0):
    return Page(html(name)).data["records"][which]


def test_the_gallery_is_complete_and_listed():
    listed = re.findall(r"^\| `([\w-]+)` \|", (GALLERY / "README.md").read_text(), re.MULTILINE)
    assert listed == NAMES
    assert list(views()) == NAMES


def test_no_page_is_committed_and_the_arrays_are_small():
    assert not list(GALLERY.glob("*.html"))
    assert sum(file.stat().st_size for file in (GALLERY / "data").iterdir()) < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_the_gallery_has_a_title_a_note_and_no_links(name):
    assert views()[name].title
    assert views()[name].note
    assert "://" not in html(name)


def test_each_file_of_arrays_is_a_page_by_itself(tmp_path):
    files = sorted((GALLERY / "data").glob("*.npz"))
    assert len(files) == 6
    for file in files:
        assert view_of(load(file), file.stem).readings[0].queries


@pytest.mark.parametrize("name", ["lecture", "word-order", "mechanisms"])
def test_the_stored_scores_weights_states_and_contexts_agree(name):
    page = Page(html(name))
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


def test_the_lectures_sentence_is_translated_with_attention():
    assert record("lecture")["queries"][-3:] == ["a", "sauté", "<end>"]
    assert [one["name"] for one in record("lecture")["measures"]] == [
        "weights",
        "gradient × input",
        "leave-one-out",
    ]


def test_figure_3a_has_the_digitised_weights():
    figure = json.loads(pages.FIGURE_3A.read_text())
    shown = array_from_json(record("figure-3a")["content"]["weights"])[0, 0]
    assert np.array_equal(shown, np.array(figure["weights_grey"], np.float32))


def test_the_worked_example_has_the_numbers_of_the_book():
    book = json.loads((ROOT / "tests" / "data" / "ch03_reference.json").read_text())
    sections = {
        ("worked-example", 0): ("simplified", 1),
        ("worked-example", 1): ("self_attention_v2", 2**-0.5),
        ("worked-example-causal", 0): ("causal_attention", 2**-0.5),
        ("worked-example-causal", 1): ("multi_head_attention", 1),
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
    causal = record("worked-example-causal")["content"]["masks"]
    assert np.array_equal(mask_from_json(causal["list"][0]), np.tril(np.ones((6, 6), bool)))


def test_the_page_of_the_sort_gpt_has_all_heads_and_rollout():
    sort = record("sort")
    assert sort["sizes"] == [3, 3]
    assert "rollout" in [measure["name"] for measure in sort["measures"]]


def test_the_stored_queries_and_keys_of_a_gpt_give_its_weights():
    config = DecoderConfig(5, model_dim=12, num_layers=2, num_heads=3, max_length=9)
    model, tokens = GPT(config, rngs=nnx.Rngs(0)), [3, 1, 4, 1]
    view = pages.sorting(arrays.sorting(model, tokens, "abcde"))
    expected = AttentionView.from_model(model, jnp.array(tokens), list("dbeb"))
    [stored], [straight] = view.readings, expected.readings
    assert stored.queries == straight.queries == list("dbeb")
    assert stored.sizes == straight.sizes == (2, 3)
    for layer, head in np.ndindex(2, 3):
        assert np.array_equal(stored.weights(layer, head), straight.weights(layer, head))
