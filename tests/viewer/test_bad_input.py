"""Errors name the bad argument and what to do; no partial file is left."""

import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax.viewer import AttentionView
from attn_jax.viewer.measures import gradient_times_input, leave_one_out, rollout

EVEN = np.full((2, 4), 0.25)
NAMES = {"tokens": ["a", "b"], "key_tokens": list("wxyz")}

CASES = {
    "rows that do not sum": (EVEN * 0.9, {}, "weights does not sum to one.*normalised=False"),
    "columns that do": (np.full((2, 4), 0.5), {}, "its columns do.*swapaxes"),
    "negative": (np.array([[2.0, -1.0, 0, 0]] * 2), {}, "weights has negative entries"),
    "too few tokens": (EVEN, {"tokens": ["a"]}, "tokens has 1 entries.*one text for each"),
    "too many keys": (EVEN, {"key_tokens": list("vwxyz")}, "key_tokens has 5 entries"),
    "no keys named": (EVEN, {"key_tokens": None}, "key_tokens is needed"),
    "one text": (EVEN, {"tokens": "ab"}, r"tokens is a single text.*split"),
    "nothing": (np.zeros((0, 4)), {"tokens": []}, "empty"),
    "no keys": (np.zeros((2, 0)), {"key_tokens": []}, "empty"),
    "a vector": (np.ones(4), {}, r"weights must be \[T S\]"),
    "a batch": (np.ones((1, 1, 1, 2, 4)), {}, r"one example.*weights\[0\]"),
    "complex": (EVEN + 0j, {}, "weights is complex"),
    "objects": (np.array([[None] * 4] * 2), {}, "weights must be an array of numbers"),
    "ragged rows": ([[1.0], [0.5, 0.5]], {}, "weights is ragged"),
    "ragged heads": ([np.ones((2, 2, 4)), np.ones((3, 2, 4))], {}, "weights is ragged.*same"),
    "mask the wrong way": (EVEN, {"mask": np.zeros((2, 4), bool)}, "mask is False.*~mask"),
    "additive mask": (EVEN, {"mask": np.zeros((2, 4))}, "mask must be bool.*bias="),
    "mask of another size": (EVEN, {"mask": np.ones((2, 5), bool)}, "mask has shape"),
    "logits of another size": (EVEN, {"logits": np.ones((3, 4))}, "logits has shape"),
    "words": (EVEN, {"words": [1, 2]}, "words must number"),
    "measure": (EVEN, {"measures": {"mine": np.ones((2, 3))}}, r"measures\['mine'\] must be"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_weights_are_refused_by_name(case):
    weights, options, message = CASES[case]
    with pytest.raises((ValueError, TypeError), match=message):
        AttentionView.from_weights(weights, **{**NAMES, **options})


X = np.ones((3, 4, 2))
QK_CASES = {
    "width": (X, np.ones((3, 4, 5)), {}, "width 2"),
    "heads": (X, np.ones((3, 3, 2)), {}, "divides 4"),
    "layers": (np.ones((2, 3, 4, 2)), np.ones((1, 3, 4, 2)), {}, "2 layers"),
    "empty": (X[:0], X[:0], {}, "empty"),
    "rank": (np.ones(3), X, {}, r"query must be \[T H\]"),
    "ragged layers": ([X, X[:2]], [X, X], {}, "query is ragged"),
    "alignment": (X, np.ones((5, 4, 2)), {"mask": lambda i, j: i >= j}, "query_position is needed"),
    "masks a layer": (X, X, {"mask": [None, None]}, "mask lists 2"),
    "mods a layer": (X, X, {"score_mod": [None, None]}, "score_mod lists 2"),
    "mask": (X, X, {"mask": np.ones((3, 4), bool)}, "mask has shape"),
    "additive mask": (X, X, {"mask": np.zeros((3, 3))}, "mask must be bool"),
    "positions": (X, X, {"query_position": [1]}, "query_position has 1"),
}


@pytest.mark.parametrize("case", QK_CASES)
def test_bad_queries_and_keys_are_refused_by_name(case):
    query, key, options, message = QK_CASES[case]
    with pytest.raises((ValueError, TypeError), match=message):
        AttentionView.from_qk(query, key, **options)


@pytest.mark.parametrize("method", ["save", "to_png", "to_svg"])
def test_an_unwritable_path_is_named_and_nothing_is_left(method, tmp_path):
    view = AttentionView.from_weights(EVEN, **NAMES)
    with pytest.raises(OSError, match=r"path=.*cannot be written.*existing folder"):
        getattr(view, method)(tmp_path / "missing" / "page")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot be written"):
        getattr(view, method)(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_third_record_cannot_be_compared():
    view = AttentionView.from_weights(EVEN, **NAMES)
    with pytest.raises(ValueError, match="two records"):
        view.compare(view).compare(view)


def test_a_missing_head_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"layer=1, head=0 does not exist"):
        AttentionView.from_weights(EVEN, **NAMES).to_png(tmp_path / "x.png", layer=1)


def test_rollout_and_importances_name_the_wrong_argument():
    with pytest.raises(ValueError, match="self-attention"):
        rollout(np.ones((2, 1, 2, 3)))
    with pytest.raises(ValueError, match=r"inputs must be \[S E\]"):
        gradient_times_input(lambda x: x, jnp.ones(3))
    with pytest.raises(ValueError, match="one number for each output"):
        leave_one_out(lambda mask: mask.sum(), 2)


def test_a_nan_is_shown_and_not_refused():
    weights = EVEN.copy()
    weights[1] = np.nan
    view = AttentionView.from_weights(weights, **NAMES)
    assert "NaN" not in view.to_html().split('id="data">')[1].split("</script>")[0]
    assert view.readings[0].entropy == [[2.0]]
