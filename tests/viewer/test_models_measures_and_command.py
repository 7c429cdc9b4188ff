"""Views of models, measures, pictures and the command line, compared with their definitions."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import GPT, DecoderConfig
from attn_jax.modules import Rotary
from attn_jax.viewer import (
    AttentionView,
    agreement,
    gradient_times_input,
    leave_one_out,
    rollout,
)
from attn_jax.viewer.__main__ import main
from attn_jax.viewer._json_arrays import array_from_json
from tests.helpers.viewer_pages import Page, contents, softmax

RNG = np.random.default_rng(7)
TOKENS = jnp.array([3, 1, 4, 1, 5])
SIZES = {"vocab_size": 7, "model_dim": 8, "num_layers": 2, "num_heads": 4, "max_length": 9}
KINDS = {
    "learned positions": {},
    "rotary, shared heads, qk norm": {"num_kv_heads": 2, "rotary": Rotary(), "qk_norm": True},
    "windows and a soft cap": {"windows": (1, None), "logits_soft_cap": 0.8},
}
EVEN = softmax(RNG.normal(size=(2, 4)))


def gpt(choices):
    model = GPT(DecoderConfig(**(SIZES | choices)), rngs=nnx.Rngs(0))
    for block in model.blocks:  # far from uniform
        block.attention.w_query[...] *= 40
    return model


def first_layer_out(model, view):
    """The first layer's attention output: from the view's weights, and from the layer itself."""
    attention, residual = model.blocks[0].attention, model.blocks[0].attention_residual
    x = model.embedding(TOKENS)
    if model.position is not None:
        x = x + model.position(jnp.arange(len(TOKENS)))
    x = residual.enter(x)
    _, value = attention.project_memory(x)
    N, K = attention.num_heads, attention.num_kv_heads
    weights = np.stack([view.readings[0].weights(0, head) for head in range(N)])
    heads = np.einsum("NTS,SNV->TNV", weights, np.repeat(value, N // K, axis=1))
    bias = 0 if attention.b_out is None else np.asarray(attention.b_out[...])
    return np.einsum("TNV,NVD->TD", heads, attention.w_out[...]) + bias, attention(x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_a_gpts_heads_give_its_attention_output(kind):
    model = gpt(KINDS[kind])
    view = AttentionView.from_model(model, TOKENS)
    ours, layers = first_layer_out(model, view)
    assert view.readings[0].sizes == (2, 4)
    assert abs(ours - layers).max() <= 1e-5 * abs(layers).max()
    assert contents(view)["masks"].shape == (8, 5, 5)


def test_a_gpts_tokens_have_their_labels_and_rollout_is_a_measure():
    view = AttentionView.from_model(gpt({}), TOKENS, list("abcde"))
    assert view.readings[0].keys == list("abcde")
    assert [m["name"] for m in view.readings[0].measures] == ["weights", "rollout"]


def test_an_unsuitable_model_is_named():
    with pytest.raises(TypeError, match=r"model has no embedding.*from_qk"):
        AttentionView.from_model(object(), TOKENS)
    with pytest.raises(ValueError, match="tokens must be ids"):
        AttentionView.from_model(gpt({}), TOKENS[None])


def test_rollout_follows_a_token_through_layers():
    weights = softmax(RNG.normal(size=(3, 2, 5, 5)))
    wanted = np.eye(5)
    for layer in weights:
        wanted = (layer.mean(axis=0) + np.eye(5)) / 2 @ wanted
    assert np.allclose(rollout(weights), wanted, atol=1e-12)


def test_gradient_times_input_and_leave_one_out_of_a_linear_function():
    slopes, inputs = RNG.normal(size=(3, 4, 2)), RNG.normal(size=(4, 2))
    parts = np.einsum("TSE,SE->TS", slopes, inputs)
    taken = gradient_times_input(
        lambda x: jnp.einsum("TSE,SE->T", jnp.asarray(slopes, x.dtype), x), jnp.asarray(inputs)
    )
    left = leave_one_out(lambda mask: jnp.where(mask[None], jnp.asarray(parts), 0).sum(axis=1), 4)
    assert np.allclose(taken, parts, atol=1e-5)
    assert np.allclose(left, parts, atol=1e-5)


def test_agreement_is_kendalls_tau_of_sizes():
    weights = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    assert agreement(-weights, weights) == 1
    assert agreement(weights[:, ::-1] * 0, weights) is None
    assert agreement(np.array([[1, 2, 3], [3, 1, 2]]), weights) == -1


def test_measures_come_with_meaning_and_agreement():
    values = {"leave-one-out": -EVEN}
    view = AttentionView.from_weights(EVEN, ["a", "b"], key_tokens=list("wxyz"), measures=values)
    weights, other = Page(view.to_html()).data["records"][0]["measures"]
    assert weights["name"] == "weights"
    assert np.allclose(array_from_json(weights["values"]), EVEN, atol=1e-7)
    assert other["agreement"] == pytest.approx(1)
    assert "is masked" in other["meaning"]


def test_two_views_on_one_page_keep_their_names():
    one = AttentionView.from_weights(EVEN, ["a", "b"], key_tokens=list("wxyz"), title="One")
    both = one.compare(AttentionView.from_weights(np.eye(2), title="Two"))
    assert [record["name"] for record in Page(both.to_html()).data["records"]] == ["One", "Two"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_for_a_paper_has_the_same_bytes_each_time(kind, tmp_path):
    names = {"key_tokens": ["$x$", "\0", "z", "w"], "mask": np.ones((2, 4), bool)}
    view = AttentionView.from_weights(EVEN, ["a", "b"], **names, title="A & $b$")
    paths = [getattr(view, f"to_{kind}")(tmp_path / f"{i}.{kind}") for i in range(2)]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


def test_masked_cells_of_a_picture_are_hatched(tmp_path):
    mask = np.tril(np.ones((3, 3), bool))
    weights = softmax(RNG.normal(size=(3, 3)), mask)
    plain = AttentionView.from_weights(weights).to_svg(tmp_path / "plain.svg").read_text()
    hatched = AttentionView.from_weights(weights, mask=mask).to_svg(tmp_path / "m.svg").read_text()
    assert "<pattern" not in plain
    assert "<pattern" in hatched


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_the_command_makes_a_page_of_each_kind_of_file(tmp_path):
    x = RNG.normal(size=(3, 2))
    files = {
        "weights": {"weights": EVEN, "tokens": ["a", "b"], "key_tokens": list("wxyz")},
        "qk": {"query": x, "key": x, "mask": np.tril(np.ones((3, 3), bool)), "tokens": list("abc")},
    }
    for name, arrays in files.items():
        output = tmp_path / f"{name}.html"
        assert main([saved(tmp_path / f"{name}.npz", **arrays), "-o", str(output)]) == 0
        record = Page(output.read_text()).data["records"][0]
        assert record["queries"] == list(arrays["tokens"])
        assert record["name"] == name


def test_the_command_compares_two_files_and_runs_as_a_module(tmp_path):
    paths = [saved(tmp_path / f"{i}.npz", weights=np.eye(2)) for i in "ab"]
    output = tmp_path / "both.html"
    command = [sys.executable, "-m", "attn_jax.viewer", *paths, "-o", str(output)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"{output}: " in run.stdout
    assert len(Page(output.read_text()).data["records"]) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.eye(2)}, "the file has arrays other"),
        ({"weights": 2 * np.eye(2)}, "does not sum to one"),
        ({"weights": np.array([[None]])}, "allow_pickle"),
    ],
)
def test_the_command_names_what_is_wrong_with_a_file(arrays, message, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main([saved(tmp_path / "x.npz", **arrays), "-o", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "none.npz")]) == 2
    assert "none.npz" in capsys.readouterr().err


def test_a_saved_trace_makes_a_page(tmp_path):
    fields = {
        "source_mask": np.ones(3, bool), "target_mask": np.ones(2, bool),
        "states": np.ones((2, 4)), "scores": np.zeros((2, 3)), "weights": np.full((2, 3), 1 / 3),
        "contexts": np.ones((2, 5)), "top_tokens": np.ones((2, 2), int),
        "top_log_probs": np.zeros((2, 2)), "source_tokens": list("abc"),
        "target_tokens": list("xy"), "annotations": np.ones((3, 5)),
    }  # fmt: skip
    output = tmp_path / "page.html"
    assert main([saved(tmp_path / "t.npz", **fields), "-o", str(output)]) == 0
    record = Page(output.read_text()).data["records"][0]
    assert record["queries"] == ["x", "y"]
    assert array_from_json(record["decode"]["annotations"]).shape == (3, 5)


def test_the_viewer_loads_no_model_and_no_picture_library():
    program = "import sys, attn_jax.viewer; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = run.stdout.split()
    assert "attn_jax.viewer.view" in loaded
    assert not [n for n in loaded if n.startswith(("attn_jax.models", "flax", "matplotlib"))]


def test_arrays_need_not_be_jax_arrays():
    class Own:
        def __array__(self, dtype=None, copy=None):
            return np.eye(2)

    assert AttentionView.from_weights(Own()).readings[0].weights(0, 0).tolist() == [[1, 0], [0, 1]]
    assert isinstance(jnp.eye(2), jax.Array)
