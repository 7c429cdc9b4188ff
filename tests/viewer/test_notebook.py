"""What a notebook stores of a view: the page, a picture of moderate size, and one line of text."""

import base64
import importlib

import numpy as np
import pytest

from attn_jax.viewer import AttentionView, _figure

PNG = b"\x89PNG\r\n\x1a\n"


def view_of(T, S):
    return AttentionView.from_weights(np.full((2, 3, T, S), 1 / S), title="Even")


def test_the_bundle_has_the_page_and_its_picture():
    view = view_of(4, 5)
    bundle = view._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png"}
    assert bundle["text/html"] == view._repr_html_()
    picture = base64.b64decode(bundle["image/png"])
    assert picture.startswith(PNG)
    assert f"data:image/png;base64,{bundle['image/png']}" in bundle["text/html"]


@pytest.mark.parametrize(("T", "S"), [(3, 500), (90, 96), (2, 2)])
def test_a_picture_has_at_most_800_pixels_a_side(T, S):
    picture = base64.b64decode(view_of(T, S)._repr_mimebundle_()["image/png"])
    sides = [int.from_bytes(picture[at : at + 4]) for at in (16, 20)]
    assert max(sides) <= 800
    assert len(picture) <= 150_000


@pytest.mark.parametrize(("T", "S"), [(3, 513), (513, 3)])
def test_a_long_text_has_no_picture(T, S):
    bundle = view_of(T, S)._repr_mimebundle_()
    assert set(bundle) == {"text/html"}
    assert "open this notebook in Jupyter and trust it" in bundle["text/html"]
    assert "<img" not in bundle["text/html"]


@pytest.mark.parametrize("error", [ImportError("numpy.core.multiarray"), OSError("no cache")])
def test_with_a_broken_matplotlib_the_page_is_shown(monkeypatch, error):
    def broken(*arguments, **options):
        raise error

    monkeypatch.setattr(_figure, "matrix_picture", broken)
    assert set(view_of(4, 5)._repr_mimebundle_()) == {"text/html"}


def test_characters_without_a_glyph_give_no_warning(recwarn):
    AttentionView.from_weights(np.eye(2), ["\U0001f9e0", "漢"])._repr_mimebundle_()
    assert [str(one.message) for one in recwarn] == []


def test_without_matplotlib_there_is_no_picture_and_no_error(monkeypatch):
    def missing(name, *rest):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert set(view_of(4, 5)._repr_mimebundle_()) == {"text/html"}


def test_a_view_is_one_line_in_a_terminal():
    view = view_of(4, 5)
    assert repr(view) == "AttentionView('Even': 4 queries × 5 keys, 2 layers × 3 heads)"
    assert (
        repr(view.readings[0]) == "AttentionRecord('Even': 4 queries × 5 keys, 2 layers × 3 heads)"
    )
    one = AttentionView.from_weights(np.eye(2), title="a\n" + 100 * "b")
    assert repr(one) == f"AttentionView({'a' + chr(10) + 58 * 'b' + '…'!r}: 2 queries × 2 keys)"
    other = AttentionView.from_weights(np.full((2, 3), 1 / 3), title="Thirds")
    two = one.compare(other)
    assert repr(two).endswith(": 2 queries × 2 keys; 2 queries × 3 keys)")


def test_sizes_of_one_are_singular():
    view = AttentionView.from_weights(np.full((1, 3, 1, 4), 0.25))
    assert repr(view) == "AttentionView('Attention': 1 query × 4 keys, 1 layer × 3 heads)"
