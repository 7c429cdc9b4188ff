"""The page holds the given arrays, up to the rounding that it states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import attn_jax
from attn_jax import masks, score_mods
from attn_jax.viewer import AttentionView
from attn_jax.viewer._json_arrays import (
    array_from_json,
    array_to_json,
    mask_from_json,
    mask_to_json,
)
from attn_jax.viewer._overview import max_pool
from tests.helpers.viewer_pages import contents, softmax

L, N, K, T, S, H = 2, 4, 2, 5, 7, 3
RNG = np.random.default_rng(0)
WEIGHTS = softmax(RNG.normal(size=(L, N, T, S)))
QUERY, KEY = RNG.normal(size=(L, T, N, H)), RNG.normal(size=(L, S, K, H))
NAMES = {"tokens": list("abcde"), "key_tokens": list("ABCDEFG")}


def stored(view):
    """The arrays that the page stores, and the logits of its queries and keys."""
    found = contents(view)
    scale = np.array(found["scale"]).reshape(L, N)
    query, key = found["query"].astype(float), found["key"].astype(float)
    logits = np.einsum("LNTH,LNSH->LNTS", query, np.repeat(key, N // K, axis=1))
    return found, scale[..., None, None] * logits


def dense_logits():
    return np.einsum("LTNH,LSNH->LNTS", QUERY, np.repeat(KEY, N // K, axis=2)) / np.sqrt(H)


@pytest.mark.parametrize("kind", ["f32", "f16", "u8", "u32"])
def test_arrays_are_unchanged_by_encoding_and_decoding(kind):
    array = RNG.integers(0, 200, size=(3, 2, 5))
    assert np.array_equal(array_from_json(array_to_json(array, kind)), array)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_masks_are_unchanged_by_encoding_and_decoding(share):
    mask = RNG.random((6, 11)) < share
    assert np.array_equal(mask_from_json(mask_to_json(mask)), mask)


def test_a_causal_mask_of_thousands_of_tokens_is_small():
    packed = mask_to_json(np.tril(np.ones((4096, 4096), bool)))
    assert len(str(packed)) < 70_000


def test_weights_are_kept_in_float32():
    found = contents(AttentionView.from_weights(WEIGHTS, **NAMES))
    assert np.array_equal(found["weights"], WEIGHTS.astype(np.float32))


@pytest.mark.parametrize(
    "make", [jnp.asarray, lambda x: x.tolist(), list, lambda x: [x[0][None], x[1][None]]]
)
def test_weights_may_be_any_array_and_any_nesting(make):
    found = contents(AttentionView.from_weights(make(WEIGHTS), **NAMES))
    assert np.allclose(found["weights"], WEIGHTS, atol=1e-7)


def test_sharded_weights_are_gathered():
    mesh = jax.make_mesh((2,), ("heads",))
    sharding = NamedSharding(mesh, PartitionSpec(None, "heads"))
    placed = jax.device_put(jnp.asarray(WEIGHTS, jnp.float32), sharding)
    found = contents(AttentionView.from_weights(placed, **NAMES))
    assert np.array_equal(found["weights"], WEIGHTS.astype(np.float32))


def test_logits_bias_and_mask_are_stored_with_the_weights():
    mask = np.tril(np.ones((T, T), bool))
    logits, bias = RNG.normal(size=(N, T, T)), RNG.normal(size=(N, T, T))
    weights = softmax(logits + bias, mask)
    options = {"logits": logits, "bias": bias, "mask": mask}
    found = contents(AttentionView.from_weights(weights, list("abcde"), **options))
    assert np.allclose(softmax(found["logits"] + found["bias"], mask), weights[None], atol=1e-6)
    assert np.array_equal(found["masks"], np.broadcast_to(mask, (N, T, T)))


def test_of_many_weights_the_greatest_and_the_sum_of_the_others_are_stored():
    weights = softmax(2 * RNG.normal(size=(9, 500, 600)))
    view = AttentionView.from_weights(weights, range(500), key_tokens=range(600))
    found = contents(view)
    assert found["form"] == "top"
    best = np.sort(weights, axis=-1)[..., -32:]
    assert np.allclose(np.sort(found["weights"][0], axis=-1), best, atol=1e-7)
    named = np.take_along_axis(weights, found["ids"][0].astype(int), axis=-1)
    assert np.allclose(named, found["weights"][0], atol=1e-7)
    assert np.allclose(found["weights"].sum(-1) + found["rest"], 1, atol=1e-5)
    assert "32 greatest" in view.readings[0].notes[0]


def test_queries_and_keys_give_the_logits_within_float16():
    view = AttentionView.from_qk(QUERY, KEY, **NAMES)
    _, logits = stored(view)
    bound = (
        2
        * 2.0**-11
        * np.einsum("LTNH,LSNH->LNTS", abs(QUERY), abs(np.repeat(KEY, N // K, axis=2)))
        / np.sqrt(H)
    )
    assert np.all(abs(logits - dense_logits()) <= bound * 1.001)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_no_query_is_too_large_or_too_small_for_float16(factor):
    view = AttentionView.from_qk(QUERY * factor, KEY, **NAMES)
    _, logits = stored(view)
    assert np.allclose(logits / factor, dense_logits(), atol=2e-3)


def test_the_page_states_how_far_rounding_changes_a_weight():
    view = AttentionView.from_qk(QUERY, KEY, **NAMES)
    _, logits = stored(view)
    change = abs(softmax(logits) - softmax(dense_logits())).max()
    assert f"more than {change:.1e}" in view.readings[0].notes[-1]


def test_a_library_mask_and_alibi_by_head_are_evaluated_by_the_page():
    slopes = score_mods.alibi_slopes(N)
    x = QUERY[:, :, :K]
    view = AttentionView.from_qk(
        QUERY, x, list("abcde"), mask=masks.causal(), score_mod=score_mods.alibi(slopes)
    )
    found, logits = stored(view)
    assert [score_mod["kind"] for score_mod in found["score_mods"]] == ["distance"] * L
    i, j = np.ogrid[:T, :T]
    by_distance = array_from_json(found["score_mods"][0]["values"])[:, j - i + T - 1]
    assert np.allclose(by_distance, -np.asarray(slopes)[:, None, None] * abs(i - j), atol=1e-5)
    wanted = attn_jax.dot_product_attention(
        jnp.asarray(QUERY, jnp.float32), jnp.asarray(x, jnp.float32),
        jnp.broadcast_to(jnp.eye(T)[None, :, None], (L, T, K, T)),
        is_causal=True, score_mod=score_mods.alibi(slopes[None]),
    )  # fmt: skip
    got = softmax(logits + by_distance, i >= j)
    assert np.allclose(got, np.moveaxis(wanted, 2, 1), atol=2e-3)


def test_a_soft_cap_is_stored_as_its_bound():
    view = AttentionView.from_qk(QUERY, KEY, **NAMES, score_mod=score_mods.soft_cap(0.5))
    found = contents(view)
    assert found["score_mods"] == [{"kind": "cap", "cap": 0.5}] * L
    wanted = softmax(0.5 * np.tanh(dense_logits() / 0.5))
    assert np.allclose(view.readings[0].weights(1, 2), wanted[1, 2], atol=1e-7)


def test_any_other_score_mod_is_stored_as_an_array_up_to_a_limit():
    def squared(logit, i, j):
        return logit * logit + (i * j).astype(logit.dtype)

    position = {"query_position": range(T)}
    found = contents(AttentionView.from_qk(QUERY, KEY, **NAMES, score_mod=squared, **position))
    added = array_from_json(found["score_mods"][0]["values"])
    logits = dense_logits()[0]
    i, j = np.ogrid[:T, :S]
    assert np.allclose(added + logits, logits**2 + i * j, atol=1e-4)
    long = RNG.normal(size=(1030, 2))
    with pytest.raises(ValueError, match="score_mod is neither"):
        AttentionView.from_qk(long, long, score_mod=squared)


def test_masks_may_differ_by_layer():
    x = QUERY[:, :, :K]
    rules = [masks.causal(), masks.causal() & masks.sliding_window(1, 0)]
    found = contents(AttentionView.from_qk(QUERY, x, list("abcde"), mask=rules))
    causal = np.tril(np.ones((T, T), bool))
    assert np.array_equal(found["masks"][0], causal)
    assert np.array_equal(found["masks"][-1], causal & ~np.tril(causal, -2))


def test_the_overview_keeps_a_single_large_weight():
    weights = np.full((1500, 1500), 1e-6)
    weights[777, 1201] = 0.25
    small = max_pool(weights, 512)
    assert small.shape == (512, 512)
    assert small.max() == 0.25
    assert np.argwhere(small == 0.25).tolist() == [[777 * 512 // 1500, 1201 * 512 // 1500]]


def test_a_long_heads_overview_is_its_greatest_weights_rounded_up():
    x = RNG.normal(size=(600, 4))
    view = AttentionView.from_qk(3 * x, x)
    codes = contents(view)["overview"][0, 0].astype(float)
    exact = max_pool(view.readings[0].weights(0, 0), 512)
    shown = (codes / 254) ** 2
    assert np.all(shown >= exact - 1e-9)
    assert np.all(np.sqrt(shown) - np.sqrt(exact) <= 1 / 254 + 1e-9)


def test_entropy_and_distance_are_those_of_the_rows():
    weights = np.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.25] * 4])
    reading = AttentionView.from_weights(weights, list("abcd")).readings[0]
    assert reading.entropy == [[(0 + 1 + 0 + 2) / 4]]
    assert reading.distance == [[(0 + 0.5 + 0 + 1.5) / 4]]


def test_across_two_sequences_there_is_no_distance():
    assert AttentionView.from_weights(WEIGHTS, **NAMES).readings[0].distance is None
