"""The choice of the implementation, and refusals that give the reason and the remedy."""

import re
import types
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import masks, scores
from attn_jax._base.tables import Table
from attn_jax._engine import dispatch, tile_shape
from attn_jax._engine.call import TableMask, prepare
from attn_jax._engine.kernels import cudnn
from tests.helpers.draws import draw

T, H, N, B = 128, 16, 4, 2


@pytest.fixture
def hopper(monkeypatch):
    monkeypatch.setattr(cudnn, "_capability", lambda platform: 9)
    jax.clear_caches()
    yield
    jax.clear_caches()


def one_head(rows=T, keys=T, width=H, values=H, dtype=jnp.bfloat16):
    return draw(0, (rows, width), (keys, width), (keys, values), dtype=dtype)


def heads(**sizes):
    return [jnp.stack([jnp.stack([array] * N, axis=1)] * B) for array in one_head(**sizes)]


# Calls that the kernel cannot compute: operands, options of `dot_product_attention`, the reason.
REFUSED = {
    "float32": ({"dtype": jnp.float32}, {}, "dtype is float32.*bfloat16 or float16"),
    "bias": ({}, {"bias": jnp.zeros((1, N, 1, T))}, "bias or score_mod is given"),
    "score mod": ({}, {"score_mod": lambda logit, i, j: 2 * logit}, "bias or score_mod is given"),
    "array": ({}, {"mask": jnp.ones((1, 1, 1, T), bool)}, "the mask is not causal"),
    "documents": ({}, {"mask": masks.segments(jnp.zeros(T, jnp.int32))}, "mask is not causal"),
    "documents, causal": (
        {},
        {"mask": masks.segments(jnp.zeros(T, jnp.int32)), "is_causal": True},
        "the mask is not causal",
    ),
    "block mask": ({}, {"mask": attn_jax.block_mask(masks.causal(), T, T)}, "mask is not causal"),
    "lengths": ({}, {"key_value_seq_lengths": jnp.array([3, 9])}, "the mask is not causal.*length"),
    "no lengths": ({}, {"query_seq_lengths": jnp.array([0, 9])}, "the mask is not causal.*length"),
    "window": ({}, {"local_window_size": (3, 0)}, "the mask is not causal.*windows"),
    "causal window": ({}, {"local_window_size": 3, "is_causal": True}, "the mask is not causal"),
    "positions": (
        {},
        {"is_causal": True, "query_position": jnp.arange(T), "key_position": jnp.arange(T)},
        "the mask is not causal.*positions",
    ),
    "dropout": (
        {},
        {"dropout_rate": 0.5, "dropout_rng": jax.random.key(0)},
        "dropout_rate is given.*dropout_mask",
    ),
    "other values": ({"values": 8}, {}, "values are 8 wide and queries 16"),
    "odd width": ({"width": 12, "values": 12}, {}, "heads are 12 wide.*multiples of 8"),
    "wide heads": ({"width": 264, "values": 264}, {}, "heads are 264 wide.*up to 256"),
    "part of a tile": ({"rows": 64}, {}, "64 queries and 128 keys.*whole tiles of 128"),
    "half a tile of keys": ({"keys": 192}, {}, "128 queries and 192 keys.*whole tiles of 128"),
    "one query": ({"rows": 1}, {}, "1 queries and 128 keys"),
    "no keys": ({"keys": 0}, {}, "128 queries and 0 keys"),
}


@pytest.mark.parametrize(("sizes", "options", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("hopper")
def test_a_call_that_cudnn_cannot_compute_is_refused_with_the_reason(sizes, options, reason):
    advice = "use implementation=None or 'blockwise'"
    match = (
        rf"(?s)^implementation 'cudnn' cannot take this call: [^;]*{reason}[^;]*; {advice}(\n|$)"
    )
    with pytest.raises(NotImplementedError, match=match):
        attn_jax.dot_product_attention(*heads(**sizes), **options, implementation="cudnn")


@pytest.mark.parametrize(("sizes", "options", "reason"), REFUSED.values(), ids=REFUSED)
def test_without_a_gpu_every_call_is_refused_for_that_and_its_own_reason(sizes, options, reason):
    match = rf"(?s)platform is cpu, and it needs an NVIDIA GPU; .*{reason}.*'blockwise'(\n|$)"
    with pytest.raises(NotImplementedError, match=match):
        attn_jax.dot_product_attention(*heads(**sizes), **options, implementation="cudnn")


@pytest.mark.usefixtures("hopper")
def test_a_score_is_refused_unless_it_is_the_dot_product():
    def refusal(score):
        return dispatch.refusals(prepare(*one_head(), score=score), "cuda").get("cudnn", "")

    assert refusal(scores.dot) == ""
    assert "score is given" in refusal(partial(scores.general, kernel=jnp.eye(H)))


TAKEN = {
    "plain": ({}, {}),
    "float16": ({"dtype": jnp.float16}, {}),
    "causal": ({}, {"mask": masks.causal()}),
    "other lengths": ({"rows": 256}, {}),
    "the widest heads": ({"width": 256, "values": 256}, {}),
    "a scale": ({}, {"scale": 0.3}),
}


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(("sizes", "options"), TAKEN.values(), ids=TAKEN)
def test_a_call_that_cudnn_computes_exactly_is_not_refused(sizes, options):
    refused = dispatch.refusals(prepare(*one_head(**sizes), **options), "cuda")
    assert refused == {"mosaic_tpu": "the platform is cuda, and it needs a TPU"}


@pytest.mark.parametrize(
    ("capability", "width", "reason"),
    [
        (8, 128, ""),
        (8, 256, "heads are 256 wide, and it takes multiples of 8 up to 128"),
        (7, 64, "compute capability 7.x"),
        (10, 64, "compute capability 10.x.*pytorch#193893"),
    ],
)
def test_older_and_newer_gpus_take_less(monkeypatch, capability, width, reason):
    monkeypatch.setattr(cudnn, "_capability", lambda platform: capability)
    call = prepare(*one_head(width=width, values=width))
    refused = dispatch.refusals(call, "cuda").get("cudnn", "")
    assert bool(refused) == bool(reason)
    assert re.search(reason, refused)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(
    ("rows", "keys", "chosen"),
    [(128, 128, "reference"), (1, 128 * 128, "reference"), (128, 256, "blockwise")],
)
def test_small_calls_use_reference_and_all_others_blockwise(rows, keys, chosen):
    assert dispatch.choice(prepare(*one_head(rows=rows, keys=keys)), None) == chosen


@pytest.mark.parametrize(
    ("rows", "dtype", "platform", "chosen"),
    [
        (128, jnp.bfloat16, "tpu", "reference"),
        (256, jnp.bfloat16, "tpu", "mosaic_tpu"),
        (256, jnp.float16, "tpu", "blockwise"),
        (256, jnp.bfloat16, "cuda", "blockwise"),
        (256, jnp.bfloat16, None, "blockwise"),
    ],
)
def test_a_tpu_uses_its_fused_kernel_where_that_can_compute_the_call(rows, dtype, platform, chosen):
    assert dispatch.choice(prepare(*one_head(rows=rows, dtype=dtype)), None, platform) == chosen


NO_TILES = "not chosen: up to 16384 logits a head need no tiles"
ALL_LOGITS = "not chosen: it writes out all T×S logits, and they are more than 16384"


@pytest.mark.parametrize(
    ("rows", "platform", "named", "reasons"),
    [
        (128, "tpu", None, {"blockwise": NO_TILES, "mosaic_tpu": NO_TILES}),
        (
            256,
            "tpu",
            None,
            {
                "reference": ALL_LOGITS,
                "blockwise": "not chosen: 'mosaic_tpu' keeps the logits of a tile on the chip",
            },
        ),
        (
            256,
            "cpu",
            None,
            {
                "reference": ALL_LOGITS,
                "mosaic_tpu": "refused: the platform is cpu, and it needs a TPU",
            },
        ),
        (
            256,
            "tpu",
            "blockwise",
            dict.fromkeys(("reference", "mosaic_tpu"), "not chosen: 'blockwise' was named"),
        ),
    ],
)
def test_the_reason_against_an_implementation_suits_the_one_that_is_chosen(
    rows, platform, named, reasons
):
    others = dispatch.others(prepare(*one_head(rows=rows)), named, platform)
    assert {name: why for name, why in others.items() if name != "cudnn"} == reasons


@pytest.mark.parametrize(
    ("platform", "capability", "major"),
    [("gpu", "9.0", 9), ("gpu", "10.3", 10), ("gpu", "gfx90a", None), ("tpu", None, None)],
)
def test_a_gpu_with_a_compute_capability_is_from_nvidia(monkeypatch, platform, capability, major):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert cudnn._capability(platform) == major


@pytest.mark.parametrize(
    "call", [attn_jax.attend, attn_jax.attend_with_logsumexp, attn_jax.explain]
)
def test_one_head_is_refused_for_the_same_reasons(call):
    with pytest.raises(NotImplementedError, match="'cudnn' cannot take this call: the platform"):
        call(*one_head(), implementation="cudnn")


ARRAY = TableMask(Table(jnp.ones((1, 5), bool), "key", ordered=True))

# T, S, heads of all examples, mask, whether pairs take a vector, and the tile.
TILES = {
    "many short rows": (192, 192, 32, ARRAY, False, (192, 192)),
    "few keys": (1024, 77, 16, None, False, (1024, 77)),
    "16 MiB": (1024, 1024, 4, None, False, (1024, 1024)),
    "more than 16 MiB": (1024, 1024, 5, None, False, (512, 256)),
    "an array of 16 MiB": (1024, 1024, 4, ARRAY, False, (1024, 1024)),
    "causal, 4 MiB": (256, 512, 8, masks.causal(), False, (256, 512)),
    "causal, more than 4 MiB": (256, 512, 9, masks.causal(), False, (256, 256)),
    "many slots": (4, 8192, 8, masks.causal(), False, (4, 2048)),
    "additive": (192, 300, 1, None, True, (192, 112)),
}


@pytest.mark.parametrize(("T", "S", "heads", "mask", "is_wide", "tile"), TILES.values(), ids=TILES)
def test_one_tile_holds_all_pairs_while_the_logits_of_all_heads_fit_a_cache(
    T, S, heads, mask, is_wide, tile
):
    assert tile_shape.choose(T, S, heads, mask=mask, is_wide=is_wide, platform="cpu") == tile


@pytest.mark.parametrize(("examples", "loops"), [(4, False), (16, True)])
def test_examples_that_vmap_adds_count_for_the_tile_in_every_derivative(examples, loops):
    """4 examples have 8 MiB of logits, 16 have 32 MiB."""

    def loss(query, key, value, length):
        out = attn_jax.dot_product_attention(query, key, value, key_value_seq_lengths=length)
        return jnp.sum(out**2)

    def text(function):
        sizes = [(examples, 256, 8, 4)] * 3
        arrays = [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]
        lengths = jax.ShapeDtypeStruct((examples,), jnp.int32)
        return jax.jit(jax.vmap(function)).lower(*arrays, lengths).as_text()

    assert ("stablehlo.while" in text(loss)) == loops
    assert ("stablehlo.while" in text(jax.grad(loss))) == loops
