"""The page of a trace is consistent: scores give weights; weights and states give contexts."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import EncoderDecoder, EncoderDecoderConfig, Transformer, TransformerConfig
from attn_jax.models import force as forced
from attn_jax.viewer import AttentionView
from attn_jax.viewer._json_arrays import array_from_json
from tests.helpers.viewer_pages import Page, contents, softmax

SOURCE = jnp.array([4, 8, 5, 6, 2, 0, 0])
TARGET = jnp.array([6, 5, 4, 2, 0])
LUONG = {"decoder": "luong", "score": "general"}
WORDS = ["A", "black", "cat", "sat", "."]


def random_model(**choices):
    widths = {"embed_dim": 6, "hidden_dim": 5, "align_dim": 4, "readout_dim": 8}
    config = EncoderDecoderConfig(9, 7, **(widths | choices))
    model = EncoderDecoder(config, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, drawn))


def traced(model):
    memory = model.encode(SOURCE, SOURCE > 0)
    return forced(model, SOURCE, SOURCE > 0, TARGET), memory


def view_of(model, **options):
    trace, memory = traced(model)
    return AttentionView.from_trace(
        trace, WORDS, ["Un", "chat", "noir", "<end>"], annotations=memory.annotations, **options
    )


@pytest.mark.parametrize("choices", [{}, LUONG, {"context": "final"}], ids=str)
def test_the_stored_scores_weights_states_and_contexts_agree(choices):
    view = view_of(random_model(**choices))
    found = contents(view)
    decode = Page(view.to_html()).data["records"][0]["decode"]
    weights = found["weights"][0, 0]
    if "context" in choices:
        assert "logits" not in found  # this model computes no scores
        assert found["masks"][0].tolist() == [[False] * 4 + [True]] * 4
    else:
        assert abs(softmax(found["logits"][0, 0]) - weights).max() <= 1e-6
    sums = weights.astype(float) @ array_from_json(decode["annotations"])
    contexts = array_from_json(decode["contexts"])
    width = min(sums.shape[1], contexts.shape[1])
    assert abs(sums[:, :width] - contexts[:, :width]).max() <= 1e-6 * abs(contexts).max()


def test_padding_is_left_out_and_rows_are_the_target_tokens():
    record = view_of(random_model()).readings[0]
    assert record.keys == WORDS
    assert record.queries == ["Un", "chat", "noir", "<end>"]
    assert record.weights(0, 0).shape == (4, 5)


def test_the_most_likely_tokens_have_their_texts():
    view = view_of(random_model(), word=lambda i: f"w{i}")
    trace, _ = traced(random_model())
    candidates = view.readings[0].decode["candidates"]
    assert candidates[1] == [f"w{i}" for i in trace.top_tokens[1]]


@pytest.mark.parametrize(("choices", "is_last"), [({}, False), ({"context": "final"}, True)])
def test_the_page_holds_whether_only_the_last_state_has_weight(choices, is_last):
    assert view_of(random_model(**choices)).readings[0].decode["only_last"] is is_last


def test_attention_to_the_only_token_of_a_sentence_is_still_attention():
    model, source = random_model(), SOURCE[:1]
    record = AttentionView.from_trace(forced(model, source, source > 0, TARGET), ["A"]).readings[0]
    assert record.weights(0, 0).tolist() == [[1.0]] * 4
    assert record.decode["only_last"] is False


def test_mappings_and_objects_with_the_fields_of_a_trace_are_accepted():
    trace, _ = traced(random_model())
    fields = trace._asdict()
    views = [
        AttentionView.from_trace(kind, WORDS)
        for kind in (trace, fields, types.SimpleNamespace(**fields))
    ]
    assert views[0].to_html() == views[1].to_html() == views[2].to_html()


def test_a_transformers_trace_gives_a_view():
    config = TransformerConfig(9, 7, model_dim=8, num_heads=2, num_layers=2, hidden_dim=16)
    model = Transformer(config, rngs=nnx.Rngs(0))
    view = AttentionView.from_trace(forced(model, SOURCE, SOURCE > 0, TARGET), WORDS)
    assert np.allclose(contents(view)["weights"].sum(-1), 1, atol=1e-6)


def test_a_missing_field_is_named():
    fields = traced(random_model())[0]._asdict()
    del fields["contexts"]
    with pytest.raises(ValueError, match="trace has no contexts"):
        AttentionView.from_trace(fields)


def test_a_batch_is_refused_with_advice():
    batch = jax.tree.map(lambda x: x[None], traced(random_model())[0])
    with pytest.raises(ValueError, match="one example"):
        AttentionView.from_trace(batch)


def test_annotations_of_another_width_are_refused():
    trace, memory = traced(random_model())
    with pytest.raises(ValueError, match="annotations must be"):
        AttentionView.from_trace(trace, WORDS, annotations=memory.annotations[:, :3])
