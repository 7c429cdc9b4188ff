"""`explain` reports the implementation, tiles, operations and memory of the actual call."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import _roofline, masks, scores
from attn_jax._engine import tpu_tiles
from attn_jax._engine.kernels import cudnn
from tests.helpers.draws import draw

B, T, S, N, K, H, V = 2, 192, 320, 4, 2, 8, 3


def heads(rows=T, keys=S, dtype=jnp.float32):
    return draw(0, (B, rows, N, H), (B, keys, K, H), (B, keys, K, V), dtype=dtype)


def program(function, *arrays):
    return jax.jit(function).lower(*arrays).as_text()


@pytest.mark.parametrize(
    ("rows", "keys", "named", "chosen"),
    [
        (96, 160, None, "reference"),
        (192, 320, None, "blockwise"),
        (96, 160, "blockwise", "blockwise"),
        (192, 320, "reference", "reference"),
    ],
)
def test_the_backend_that_is_named_is_the_one_that_runs(rows, keys, named, chosen, tiles):
    tiles(32, 64)
    arrays = heads(rows, keys)
    assert attn_jax.explain(*arrays, implementation=named).implementation == chosen
    text = program(partial(attn_jax.dot_product_attention, implementation=named), *arrays)
    all_logits = re.search(rf"dot_general.*x{rows}x{keys}xf32|x{keys}x{rows}xf32", text)
    assert bool(all_logits) == (chosen == "reference")
    assert ("stablehlo.while" in text) == (chosen == "blockwise")


def allowed(rule, lengths):
    """[B T S] of unmasked pairs, from the mask rule and the number of keys of each example."""
    i, j = np.arange(S - T, S)[:, None], np.arange(S)[None, :]
    return np.stack([rule(i, j) & (j < length) for length in lengths])


RULES = {
    "causal": ({"is_causal": True}, lambda i, j: j <= i),
    "window": ({"local_window_size": (40, 3)}, lambda i, j: (i - 40 <= j) & (j <= i + 3)),
    "callable": ({"mask": lambda i, j: (i + j) % 64 < 8}, lambda i, j: (i + j) % 64 < 8),
    "everything": ({}, lambda i, j: (i == i) & (j == j)),
}


@pytest.mark.parametrize(("options", "rule"), RULES.values(), ids=RULES)
def test_tiles_and_operations_are_counted_from_the_mask_itself(options, rule, tiles):
    t, s = 32, 64
    # Multiples of the tile: else a tile could be kept although all its pairs are masked.
    lengths = (S, 256)
    tiles(t, s)
    explanation = attn_jax.explain(
        *heads(),
        **options,
        key_value_seq_lengths=jnp.array(lengths),
        query_position=jnp.arange(S - T, S),
        key_position=jnp.arange(S),
        implementation="blockwise",
    )
    cut = allowed(rule, lengths).reshape(B, T // t, t, S // s, s)
    visited = N * B * int(cut.any(axis=(0, 2, 4)).sum())
    assert (explanation.tiles_visited, explanation.tiles) == (visited, N * B * (T // t) * (S // s))
    assert explanation.flops == 2 * (H + V) * t * s * visited


def test_a_block_mask_brings_its_own_tiles():
    block = attn_jax.block_mask(masks.causal(), T, T, tile=(64, 32))
    explanation = attn_jax.explain(*heads(T, T), mask=block)
    assert explanation.tiles == B * N * 3 * 6
    assert explanation.tiles_visited == B * N * (2 + 4 + 6)


@pytest.mark.parametrize("longest", [0, 64, 65, 320])
def test_every_head_visits_what_any_head_needs(longest, tiles):
    tiles(32, 64)
    lengths = jnp.array([[0, 0, longest, 0]])
    explanation = attn_jax.explain(*heads(), mask=masks.key_padding(lengths))
    assert explanation.tiles_visited == B * N * (T // 32) * -(-longest // 64)


def test_bytes_are_those_of_arguments_and_results():
    query, key, value = arrays = heads(dtype=jnp.bfloat16)
    out = B * T * N * V * 2
    plain = query.nbytes + key.nbytes + value.nbytes + out
    assert attn_jax.explain(*arrays).bytes_moved == plain
    bias = jnp.zeros((1, N, 1, S))
    assert attn_jax.explain(*arrays, bias).bytes_moved == plain + 4 * N * S


@pytest.mark.parametrize("named", ["reference", "blockwise"])
def test_memory_is_what_the_compiled_call_allocates(named, tiles):
    tiles(32, 64)
    arrays = heads()
    attention = partial(attn_jax.dot_product_attention, implementation=named)
    memory = jax.jit(attention).lower(*arrays).compile().memory_analysis()
    explanation = attn_jax.explain(*arrays, implementation=named)
    # without the scale, which is a constant of the outer `jit`
    assert abs(explanation.temporary_bytes - memory.temp_size_in_bytes) < 64
    assert (explanation.temporary_bytes > 4 * B * N * T * S) == (named == "reference")


def test_one_head_is_explained_with_the_options_of_attend():
    query, key, value = (array[0, :, 0] for array in heads())
    score = partial(scores.additive, out_kernel=jnp.ones(H))
    explanation = attn_jax.explain(query, key, value, score=score, mask=jnp.ones((1, S), bool))
    assert explanation.implementation == "blockwise"
    assert "score is given" in explanation.others["cudnn"]
    assert explanation.flops >= 2 * (H + V) * T * S
    assert attn_jax.explain(query[:2], key, value).flops == 2 * (H + V) * 2 * S


def test_a_call_without_keys_is_explained():
    explanation = attn_jax.explain(*heads(rows=T, keys=0), implementation="blockwise")
    assert (explanation.tiles, explanation.tiles_visited, explanation.flops) == (0, 0, 0)


@pytest.mark.parametrize(("named", "why"), [(None, "by name only"), ("blockwise", "was named")])
def test_a_backend_that_could_run_has_the_reason_why_it_is_not_chosen(monkeypatch, named, why):
    monkeypatch.setattr(cudnn, "_capability", lambda platform: 9)
    jax.clear_caches()
    arrays = draw(1, *[(256, H)] * 3, dtype=jnp.bfloat16)
    explanation = attn_jax.explain(*arrays, mask=masks.causal(), implementation=named)
    jax.clear_caches()
    assert explanation.implementation == "blockwise"
    assert re.match(rf"not chosen: .*{why}", explanation.others["cudnn"])
    assert explanation.others["reference"].startswith("not chosen: ")


def test_it_prints_as_a_table_with_units():
    lines = str(attn_jax.explain(*heads(), is_causal=False)).splitlines()
    assert {line[:16] for line in lines} == {
        name.ljust(16)
        for name in (
            "implementation",
            "reference",
            "mosaic_tpu",
            "cudnn",
            "tiles",
            "work",
            "traffic",
            "temporary",
            "",
        )
    }
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert re.search(r"work +0\.\d+ GFLOP forward\ntraffic +0\.\d\d MiB of .*\ntemp.* MiB ", text)
    assert "refused: the platform is cpu" in text


def test_another_platform_is_explained_without_a_device_or_compiler_of_it():
    rows, keys, lengths = 1100, 2100, (1500, 600)
    explanation = attn_jax.explain(
        *heads(rows, keys), key_value_seq_lengths=jnp.array(lengths), device="tpu"
    )
    assert (explanation.platform, explanation.implementation) == ("tpu", "mosaic_tpu")
    assert set(explanation.others) == {"reference", "blockwise", "cudnn"}
    assert "'mosaic_tpu' keeps the logits of a tile" in explanation.others["blockwise"]
    # Tiles of 512×512: three of queries, five of keys. Each example visits its own.
    assert (explanation.tiles_visited, explanation.tiles) == (N * 3 * (3 + 2), B * N * 3 * 5)
    assert explanation.flops == 2 * (H + V) * 512 * 512 * explanation.tiles_visited
    assert explanation.temporary_bytes is None
    assert str(explanation).endswith("unknown: no compiler for tpu here reports it")


def test_another_platform_has_its_own_reasons():
    arrays = heads(dtype=jnp.float16)
    explanation = attn_jax.explain(*arrays, device="tpu")
    assert explanation.implementation == "blockwise"
    assert "the dtype is float16" in explanation.others["mosaic_tpu"]
    assert "platform is tpu, and it needs an NVIDIA GPU" in explanation.others["cudnn"]
    with pytest.raises(NotImplementedError, match=r"'mosaic_tpu' cannot take .* dtype is float16"):
        attn_jax.explain(*arrays, device="tpu", implementation="mosaic_tpu")


@pytest.mark.parametrize("device", ["cpu", jax.devices("cpu")[0]], ids=["platform", "device"])
@pytest.mark.parametrize("head", [slice(None), (0, slice(None), 0)], ids=["heads", "one head"])
def test_the_platform_that_is_here_can_be_named(device, head):
    arrays = [array[head] for array in heads()]
    assert attn_jax.explain(*arrays, device=device) == attn_jax.explain(*arrays)


def test_an_unknown_platform_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"device 'v5e' is unknown; .* 'cpu', 'gpu', 'tpu'"):
        attn_jax.explain(*heads(), device="v5e")


@pytest.fixture
def v5e(monkeypatch):
    """Explains for a v5e wherever the chip is asked for."""
    monkeypatch.setattr(tpu_tiles, "present_chip", lambda: "v5e")
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("v5e")
def test_the_predicted_time_is_that_of_the_roofline_for_each_head():
    query, key, value = draw(2, (B, 1100, N, 64), *[(B, 1100, K, 64)] * 2, dtype=jnp.bfloat16)
    explanation = attn_jax.explain(query, key, value, is_causal=True, device="tpu")
    head = _roofline.Call(1100, 1100, 64, 64, 2, masks.causal())
    wanted = B * N * _roofline.predicted_seconds("v5e", head)
    np.testing.assert_allclose(explanation.predicted_seconds, wanted, rtol=1e-6)
    assert re.search(
        r"\npredicted +\d+\.\d µs forward, by a roofline; not measured$", str(explanation)
    )


NOT_PREDICTED = {
    "float32": (jnp.float32, {}),
    "dropout": (jnp.bfloat16, {"dropout_rate": 0.5, "dropout_rng": jax.random.key(0)}),
    "bias": (jnp.bfloat16, {"bias": jnp.zeros((1, 1, T, S))}),
    "another kernel": (jnp.bfloat16, {"implementation": "blockwise"}),
}


@pytest.mark.usefixtures("v5e")
@pytest.mark.parametrize(("dtype", "options"), NOT_PREDICTED.values(), ids=NOT_PREDICTED)
def test_no_time_is_predicted_where_the_roofline_does_not_count_all_work(dtype, options):
    explanation = attn_jax.explain(*heads(dtype=dtype), **options, device="tpu")
    assert explanation.predicted_seconds is None
    assert "predicted" not in str(explanation)
