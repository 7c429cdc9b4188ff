"""The numbers of Raschka, "Build a Large Language Model (From Scratch)" (2024), chapter 3: every
one that the book prints to its last digit, and every array behind them to 1e-6.

`data/ch03_reference.json` has the book's weights and results, computed by torch (a `*_weight`
is [out, in]); `data/ch03_printed.json` has the numbers printed in the book.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import masks, scores
from attn_jax.modules import MultiHeadSelfAttention
from tests.helpers.tolerance import assert_within

DATA = Path(__file__).parents[1] / "data"
REFERENCE = json.loads((DATA / "ch03_reference.json").read_text())
PRINTED = json.loads((DATA / "ch03_printed.json").read_text())
X = jnp.asarray(REFERENCE["simplified"]["inputs"], jnp.float32)
BATCH = jnp.stack([X, X])
GIVEN = ("inputs", "tokens", "dropout_keep_mask", "keep_mask", "heads", "a", "printed_in_notebook")
HALF_A_DIGIT = 5e-5  # half of the fourth decimal, the last one that the book prints


def array(section, name):
    return jnp.asarray(REFERENCE[section][name], jnp.float32)


def projections(section, names=("W_query_weight", "W_key_weight", "W_value_weight")):
    """[D H] matrices from torch's [H D]."""
    return [array(section, name).T for name in names]


def dropped(weights, keep, p=0.5):
    """Dropout with given random numbers, since each framework has its own generator."""
    return weights * keep / (1 - p)


def simplified():
    logits = scores.dot(X, X)
    return {
        "scores": logits,
        "weights": attn_jax.attention_weights(X, X, score=scores.dot),
        "context": attn_jax.simplified_self_attention(X),
        "sum_normalised_row2": logits[1] / jnp.sum(logits[1]),
    }


def trained(weights):
    query, key, value = (X @ weight for weight in weights)
    return {
        "queries": query,
        "keys": key,
        "values": value,
        "scores": scores.dot(query, key),
        "weights": attn_jax.attention_weights(query, key),
        "context": attn_jax.self_attention(X, *weights),
    }


def self_attention_v1():
    return trained([array("self_attention_v1", name) for name in ("W_query", "W_key", "W_value")])


def self_attention_v2():
    return trained(projections("self_attention_v2"))


def causal_v2():
    weights = projections("self_attention_v2")
    query, key, value = (X @ weight for weight in weights)
    keep = array("causal_v2", "dropout_keep_mask")
    full = attn_jax.attention_weights(query, key)
    masked = attn_jax.attention_weights(query, key, mask=masks.causal())
    after = jnp.tril(full)
    allowed = masks.evaluate(masks.causal(), jnp.arange(6), jnp.arange(6))
    return {
        "allowed_mask": allowed.astype(jnp.float32),
        "weights_unmasked": full,
        "weights_times_tril": after,
        "weights_renormalised": after / jnp.sum(after, axis=1, keepdims=True),
        "weights_masked_before_softmax": masked,
        "dropout_of_ones": dropped(jnp.ones((6, 6)), keep),
        "weights_after_dropout": dropped(masked, keep),
        "context_no_dropout": attn_jax.causal_self_attention(X, *weights),
        "context_with_dropout": dropped(masked, keep) @ value,
    }


def causal_attention():
    weights = projections("causal_attention")
    query, key, _ = (X @ weight for weight in weights)
    batched = jax.vmap(attn_jax.causal_self_attention, in_axes=(0, None, None, None))
    return {
        "scores": scores.dot(query, key),
        "weights": attn_jax.attention_weights(query, key, mask=masks.causal()),
        "context": attn_jax.causal_self_attention(X, *weights),
        "batch_context": batched(BATCH, *weights),
    }


def causal_attention_dropout():
    query, key, value = (X @ weight for weight in projections("causal_attention"))
    weights = attn_jax.attention_weights(query, key, mask=masks.causal())
    keep = array("causal_attention_dropout", "keep_mask")
    return {"batch_context": jnp.einsum("BTS,SV->BTV", dropped(weights[None], keep), value)}


def listed_heads(section):
    """[D N H] matrices from a list of torch heads."""
    names = ("W_query_weight", "W_key_weight", "W_value_weight")
    heads = REFERENCE[section]["heads"]
    return [jnp.stack([jnp.asarray(head[n], jnp.float32).T for head in heads], 1) for n in names]


def multi_head_wrapper():
    weights = listed_heads("multi_head_wrapper")

    def heads(x):
        return attn_jax.multi_head_self_attention(x, *weights, causal=True)

    return {"context": heads(X), "batch_context": jax.vmap(heads)(BATCH)}


def multi_head_attention():
    """Two heads of width 1, and an output matrix with a bias."""
    weights = [matrix[:, :, None] for matrix in projections("multi_head_attention")]
    w_out = array("multi_head_attention", "out_proj_weight").T[:, None]
    b_out = array("multi_head_attention", "out_proj_bias")[None]
    query, key = (jnp.einsum("TD,DNH->NTH", X, weight) for weight in weights[:2])
    causal = jax.vmap(lambda q, k: attn_jax.attention_weights(q, k, mask=masks.causal()))

    def layer(x):
        return attn_jax.multi_head_self_attention(x, *weights, w_out, causal=True) + b_out

    return {
        "scores": jax.vmap(scores.dot)(query, key),
        "weights": causal(query, key),
        "context_before_out_proj": attn_jax.multi_head_self_attention(X, *weights, causal=True),
        "context": layer(X),
        "batch_context": jax.vmap(layer)(BATCH),
    }


def four_d_matmul():
    heads = array("four_d_matmul", "a")
    return {"result": jax.vmap(jax.vmap(scores.dot))(heads, heads)}


def exercise_3_1():
    return {"context": attn_jax.self_attention(X, *projections("exercise_3_1"))}


def exercise_3_2():
    weights = listed_heads("exercise_3_2")
    return {"context": attn_jax.multi_head_self_attention(X, *weights, causal=True)}


SECTIONS = {
    section.__name__: section
    for section in (
        simplified,
        self_attention_v1,
        self_attention_v2,
        causal_v2,
        causal_attention,
        causal_attention_dropout,
        multi_head_wrapper,
        multi_head_attention,
        four_d_matmul,
        exercise_3_1,
        exercise_3_2,
    )
}


@functools.cache
def computed(section):
    with jax.default_matmul_precision("highest"):
        return {name: np.asarray(ours) for name, ours in SECTIONS[section]().items()}


def outcomes(section):
    """Names of the reference arrays that are results."""
    arrays = {name for name, entry in REFERENCE[section].items() if isinstance(entry, list)}
    return {n for n in arrays if n not in GIVEN and not n.startswith(("W_", "out_proj_"))}


def test_no_section_of_the_reference_is_left_out():
    assert {*SECTIONS, "exercise_3_3", "_meta"} == set(REFERENCE)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_array_of_the_reference_is_reproduced(section):
    assert set(computed(section)) == outcomes(section)
    for name, ours in computed(section).items():
        assert_within(ours, np.asarray(REFERENCE[section][name], np.float32), 1e-6)


PIECES = [
    (section, name)
    for section, pieces in PRINTED.items()
    for name in pieces
    if section in SECTIONS and name != "batch_shape"
]


@pytest.mark.parametrize(("section", "name"), PIECES)
def test_every_printed_number_is_reproduced(section, name):
    array, _, position = name.partition("@")
    ours, printed = computed(section)[array], PRINTED[section][name]
    if position:
        ours = ours[tuple(int(index) - 1 for index in position.split(","))]
    elif np.size(printed[0]) < np.size(printed[-1]):  # a lower triangle
        ours = np.concatenate([row[: t + 1] for t, row in enumerate(ours)])
        printed = np.concatenate(printed)
    assert_within(ours, np.asarray(printed, np.float32), HALF_A_DIGIT)


def test_a_batch_has_the_printed_shape_and_equal_rows():
    batch = computed("causal_attention")["batch_context"]
    assert list(batch.shape) == PRINTED["causal_attention"]["batch_shape"]
    np.testing.assert_array_equal(batch[0], batch[1])


def test_dropout_leaves_the_second_query_nothing_and_rows_that_do_not_sum_to_one():
    weights = computed("causal_v2")["weights_after_dropout"]
    assert not weights[1].any()
    assert (np.abs(weights.sum(axis=1) - 1) > 0.01).all()


def test_renormalised_and_masked_weights_agree_as_closely_as_in_the_book():
    causal = computed("causal_v2")
    gap = np.abs(causal["weights_renormalised"] - causal["weights_masked_before_softmax"])
    assert gap.max() <= 2 * REFERENCE["causal_v2"]["max_abs_diff_renorm_vs_inf"]


def test_exercise_3_1_ends_where_causal_attention_ends():
    full, causal = computed("exercise_3_1")["context"], computed("causal_attention")["context"]
    assert_within(full[-1], causal[-1], 1e-6)
    assert np.abs(full[:-1] - causal[:-1]).min() > 1e-3


def test_exercise_3_2_is_printed_with_softmax_over_the_queries_and_must_not_match():
    printed = np.asarray(REFERENCE["exercise_3_2"]["printed_in_notebook"], np.float32)
    assert not REFERENCE["exercise_3_2"]["printed_matches"]
    assert np.abs(computed("exercise_3_2")["context"] - printed).max() > 0.1
    weights = listed_heads("exercise_3_2")
    query, key, value = (jnp.einsum("TD,DNH->NTH", X, weight) for weight in weights)
    logits = jnp.where(jnp.tri(6, dtype=bool)[None], jax.vmap(scores.dot)(query, key), -jnp.inf)
    over_queries = jnp.einsum("NTS,NSH->TNH", jax.nn.softmax(logits, axis=1), value)
    assert_within(over_queries.reshape(6, 2), printed, HALF_A_DIGIT)


def test_exercise_3_3_counts_the_parameters_of_gpt2s_attention():
    layer = nnx.eval_shape(lambda: MultiHeadSelfAttention(12, 768, causal=True, rngs=nnx.Rngs(0)))
    shapes = {name: leaf.shape for name, leaf in nnx.state(layer).items()}
    assert shapes["w_query"] == shapes["w_key"] == shapes["w_value"] == (768, 12, 64)
    count = sum(np.prod(shape) for shape in shapes.values())
    assert count == PRINTED["exercise_3_3"]["params"] == REFERENCE["exercise_3_3"]["params"]
