"""Missing keys of config.json have the defaults of `transformers`; damaged files are refused."""

import json
import math
import pickle
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.flax import load_file as load_flax
from safetensors.flax import save_file as save_flax
from safetensors.numpy import load_file, save_file

from attn_jax.models import GPT, DecoderConfig, load_hf, save_hf
from attn_jax.models.checkpoints._configs import read_config, write_config
from attn_jax.modules import Rotary
from tests.helpers.tolerance import assert_equal, assert_within
from tests.models.test_checkpoints import DATA, EACH, expected, shards

SPARSE = json.loads((DATA / "defaults.json").read_text())


@pytest.fixture
def copied(tmp_path):
    """Makes a copy of a checkpoint, which a test may change."""
    return lambda family: Path(shutil.copytree(DATA / family, tmp_path / family))


def change_config(folder, *without, **values):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: config[key] for key in config if key not in without}))


def change_tensors(folder, **changed):
    file = folder / "model.safetensors"
    save_file({**load_file(file), **changed}, file)


def read(family, **given):
    return read_config({"model_type": family, **given})[1]


@pytest.mark.parametrize("case", SPARSE, ids=lambda case: f"{case['family']}-{case['given']}")
def test_what_is_left_out_is_what_the_library_fills_in(case):
    assert read(case["family"], **case["given"]) == read_config(case["filled"])[1]


def test_gemma_2_alternates_windows_and_caps_by_default():
    config = read("gemma2", num_hidden_layers=3)
    assert config.windows == (4095, None, 4095)
    assert (config.logits_soft_cap, config.final_soft_cap) == (50.0, 30.0)
    assert config.activation == "gelu_tanh"
    assert config.is_tied
    narrow = read("gemma2", head_dim=64)
    assert narrow.scale == pytest.approx(1 / 16)
    assert config.scale is None  # 256 is the width of its heads, too


def test_mistral_has_a_window_unless_it_is_null():
    assert read("mistral", num_hidden_layers=2).windows == (4095, 4095)
    assert read("mistral", sliding_window=None).windows is None
    assert read("mistral").kv_heads == 8


def test_qwen3_has_windows_from_a_layer_on_where_it_uses_them():
    choice = {"num_hidden_layers": 4, "sliding_window": 7, "max_window_layers": 3}
    assert read("qwen3", **choice).windows is None
    assert read("qwen3", **choice, use_sliding_window=True).windows == (None, None, None, 6)
    assert read("qwen3").head_width == 128


@pytest.mark.parametrize("family", ["gemma2", "qwen3_windows"])
def test_windows_that_only_defaults_tell_give_the_librarys_logits(family, copied):
    folder = copied(family)
    change_config(folder, "layer_types")
    wanted = expected(family)
    assert_within(load_hf(folder)(wanted["tokens"]), wanted["logits"], atol=1e-5)


@EACH
def test_a_configuration_is_written_and_read_as_the_same(family):
    _, config = read_config(json.loads((DATA / family / "config.json").read_text()))
    name, written = write_config(config)
    assert (name, read_config(written)[1]) == (family.removesuffix("_windows"), config)


def test_a_scale_that_rounding_moves_is_still_written():
    _, config = read_config(json.loads((DATA / "gemma2" / "config.json").read_text()))
    for scale in (0.3, 0.1, 1 / 7, 12.0**-0.5):
        changed = DecoderConfig(**{**vars(config), "scale": scale})
        assert read_config(write_config(changed)[1])[1].scale == pytest.approx(scale)


def test_gemma_2_without_windows_is_written_as_the_library_can_run_it():
    _, config = read_config(json.loads((DATA / "gemma2" / "config.json").read_text()))
    _, written = write_config(DecoderConfig(**{**vars(config), "windows": None}))
    assert written["layer_types"] == ["full_attention"] * 3
    assert written["sliding_window"] >= 1


REFUSED = {
    "a null size": ("llama", {"rms_norm_eps": None}, r"rms_norm_eps must be a number; got null"),
    "a null head": ("qwen3", {"head_dim": None}, r"head_dim must be a whole number.*; got null"),
    "text": ("llama", {"hidden_size": "24"}, r"hidden_size must be a whole number.*; got \"24\""),
    "half a layer": ("llama", {"num_hidden_layers": 1.5}, r"num_hidden_layers must be a whole"),
    "a word for tied": ("gpt2", {"tie_word_embeddings": "no"}, r"tie_word_embeddings must be true"),
    "a window of nothing": ("mistral", {"sliding_window": 0}, r"sliding_window must be .*; got 0"),
    "sliding without width": (
        "gemma2",
        {"sliding_window": None},
        r"layer_types has sliding layers, but sliding_window is null",
    ),
    "sliding that is not used": (
        "qwen3",
        {"num_hidden_layers": 1, "sliding_window": 4, "layer_types": ["sliding_attention"]},
        r"layer_types has sliding layers, but use_sliding_window is false",
    ),
    "types of other layers": (
        "gemma2",
        {"layer_types": ["full_attention"]},
        r"layer_types must have one entry a layer, 26; got 1",
    ),
    "an unknown type": (
        "gemma2",
        {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
        r"layer_types has 'chunked_attention'; known are full_attention",
    ),
    "types in a word": ("gemma2", {"layer_types": "full_attention"}, r"layer_types must be a list"),
    "heads that do not fit": (
        "llama",
        {"num_attention_heads": 4, "num_key_value_heads": 3},
        r"config\.json: num_kv_heads=3 must divide num_heads=4",
    ),
    "no theta": ("llama", {"rope_theta": None}, r"rope_theta must be a number; got null"),
    "rotations in a word": ("llama", {"rope_scaling": "linear"}, r"rope_scaling must be an object"),
    "a factor in a word": (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": "2"}},
        r"factor must be a number; got \"2\"",
    ),
    "a factor below one": (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": 0.5}},
        r"config\.json: factor",
    ),
    "quantised": ("llama", {"quantization_config": {"bits": 4}}, r"quantization_config of llama"),
    "no family": ("", {}, r"model_type='' is unknown"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_an_invalid_value_is_refused_by_its_key(mistake):
    family, given, message = REFUSED[mistake]
    with pytest.raises(ValueError, match=message):
        read(family, **given)


def test_false_and_null_are_the_same_no():
    assert read("gemma2", use_bidirectional_attention=False) == read("gemma2")


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.bool_])
def test_integers_in_a_checkpoint_are_refused(dtype, copied):
    folder = copied("llama")
    change_tensors(folder, **{NAME: np.ones((36, 24), dtype)})
    with pytest.raises(ValueError, match=rf"{re.escape(NAME)} is stored as \w+, .*; supported are"):
        load_hf(folder)


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, bool, jnp.complex64, "words"])
def test_a_dtype_that_is_no_float_is_refused(dtype):
    with pytest.raises(ValueError, match=r"dtype must be float32, .*; got"):
        load_hf(DATA / "llama", dtype=dtype)


def test_float64_is_not_narrowed_in_silence(copied):
    folder = copied("llama")
    tensors = load_file(folder / "model.safetensors")
    change_tensors(folder, **{name: array.astype(np.float64) for name, array in tensors.items()})
    with pytest.raises(ValueError, match=r"float64, which needs jax_enable_x64; pass dtype="):
        load_hf(folder)
    assert load_hf(folder, dtype=jnp.float32).embedding.table.dtype == jnp.float32
    with jax.enable_x64(True):
        assert load_hf(folder).embedding.table.dtype == jnp.float64


def test_a_tensor_in_two_files_is_refused(copied):
    folder = copied("llama")
    first, second = sorted(set(shards(folder).values()))
    tensors = load_file(folder / second)
    twice = next(iter(load_file(folder / first)))
    save_file({**tensors, twice: load_file(folder / first)[twice]}, folder / second)
    with pytest.raises(ValueError, match=rf"{re.escape(twice)} is both in {first} and in {second}"):
        load_hf(folder)


@pytest.mark.parametrize(
    "index",
    [
        "[1",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"model.norm.weight": 1}}',
        '{"weight_map": {"model.norm.weight": ".."}}',
    ],
)
def test_a_malformed_index_is_refused_by_its_name(index, copied):
    folder = copied("llama")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        load_hf(folder)


TWICE = '{"a": 1, "a": 2}'
JSON = {
    "named twice": (TWICE, "a occurs twice"),
    "named twice within": ('{"rope_parameters": {"a": 1, "a": 1}}', "a occurs twice"),
    "nested too deeply": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "a number of 5000 digits": (f'{{"vocab_size": {"9" * 5000}}}', "is not JSON: Exceeds"),
}


@pytest.mark.parametrize("case", JSON)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_has_a_name_twice_or_is_malformed_is_refused(case, name, copied):
    text, message = JSON[case]
    folder = copied("llama")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.* {message}"):
        load_hf(folder)


NUMBERS = {
    "NaN": ("NaN", "rms_norm_eps", "must be a number; got NaN"),
    "Infinity": ("Infinity", "rms_norm_eps", "must be a number; got Infinity"),
    "beyond float64": ("1" + "0" * 400, "rms_norm_eps", "must be a number; got 1000"),
    "beyond int32": ("3000000000", "vocab_size", "must be a whole number.* got 3000000000"),
    "a base beyond float64": ("1" + "0" * 400, "rope_theta", "must be a number; got 1000"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_no_model_has_are_refused_by_their_key(case, copied):
    number, key, message = NUMBERS[case]
    folder = copied("llama")
    change_config(folder, "rope_parameters", **{key: "HERE"})
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"HERE"', number))
    with pytest.raises(ValueError, match=f"config.json: {key} {message}"):
        load_hf(folder)


def test_a_tensor_named_twice_in_a_header_is_refused(copied):
    folder = copied("llama")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, name = content[8 : 8 + length].rstrip(), b"model.norm.weight"
    start = header.index(b'"' + name + b'"')
    entry = header[start : header.index(b"}", start) + 1]
    twice = header[:-1] + b"," + entry + b"}"
    file.write_bytes(len(twice).to_bytes(8, "little") + twice + content[8 + length :])
    with pytest.raises(ValueError, match=r"model.safetensors.* model.norm.weight occurs twice"):
        load_hf(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_folder_of_pickles_is_refused_with_advice(name, copied):
    folder = copied("llama")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(
        ValueError, match=rf"{re.escape(name)}: .*never opened; .*save_pretrained.*safetensors"
    ):
        load_hf(folder)


@pytest.mark.parametrize("start", [pickle.dumps({}), b"PK\x03\x04" + bytes(60)])
def test_a_pickle_by_the_name_of_safetensors_is_refused(start, copied):
    folder = copied("llama")
    (folder / "model.safetensors").write_bytes(start)
    with pytest.raises(ValueError, match=r"model\.safetensors .*starts like a pickle"):
        load_hf(folder)


def test_a_folder_without_weights_is_refused(copied):
    folder = copied("llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has neither model\.safetensors nor"):
        load_hf(folder)


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("tensor")])
def test_shards_come_from_the_file_and_not_from_the_default_device(spec, copied):
    mesh = jax.make_mesh((2,), ("tensor",), devices=jax.devices()[2:4])
    folder = copied("llama")
    change_config(folder, vocab_size=62)
    tensors = load_file(folder / "model.safetensors")
    longer = {
        name: np.concatenate([tensors[name], tensors[name][:1]])
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    change_tensors(folder, **longer)
    whole = nnx.state(load_hf(folder))
    with jax.transfer_guard_device_to_device("disallow_explicit"):
        model = load_hf(folder, sharding=NamedSharding(mesh, spec))
    for ours, wanted in zip(jax.tree.leaves(nnx.state(model)), jax.tree.leaves(whole), strict=True):
        assert ours.sharding.spec == spec
        assert ours.devices() == set(jax.devices()[2:4])
        assert_equal(np.asarray(ours), np.asarray(wanted))


def test_a_mesh_also_loads_directly_from_the_file():
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), devices=jax.devices()[4:])
    with jax.transfer_guard_device_to_device("disallow_explicit"):
        model = load_hf(DATA / "gemma2", sharding=mesh)
    assert model.blocks[0].feed_forward.w_up[...].addressable_shards[0].data.shape == (24, 18)
    up = load_file(DATA / "gemma2" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert_equal(np.asarray(model.blocks[0].feed_forward.w_up[...]), up.T)


@pytest.mark.usefixtures("no_type_hook")
def test_a_place_that_is_no_sharding_is_refused():
    with pytest.raises(ValueError, match=r"sharding must be a Mesh or a Sharding; got str"):
        load_hf(DATA / "llama", sharding="data")


def test_a_model_does_not_change_with_the_file_it_came_from(copied):
    folder = copied("llama")
    model, file = load_hf(folder), folder / "model.safetensors"
    before = np.array(model.embedding.table[...])
    with file.open("r+b") as opened:
        opened.seek(-(file.stat().st_size // 2), 2)
        opened.write(bytes(file.stat().st_size // 2))
    assert_equal(np.asarray(model.embedding.table[...]), before)


def bits(array):
    return np.asarray(array).view(np.uint16)


@EACH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_come_back_as_they_were(family, dtype, copied, tmp_path):
    folder = copied(family)
    file = folder / "model.safetensors"
    save_flax({name: jnp.asarray(a, dtype) for name, a in load_flax(file).items()}, file)
    theirs = load_flax(file)
    save_hf(load_hf(folder), tmp_path / "again")
    ours = load_flax(tmp_path / "again" / "model.safetensors")
    assert {name: array.dtype for name, array in ours.items()} == dict.fromkeys(theirs, dtype)
    for name, array in theirs.items():
        assert_equal(bits(ours[name]), bits(array))
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == dtype.__name__


def test_a_norm_that_sixteen_bits_cannot_hold_is_saved_wide(tmp_path):
    for dtype, largest in ((jnp.bfloat16, 1.001), (jnp.float16, 1e5)):
        model = load_hf(DATA / "llama", dtype=dtype)
        model.norm.scale[...] = model.norm.scale[...].at[0].set(largest)
        save_hf(model, tmp_path / "model")
        saved = load_flax(tmp_path / "model" / "model.safetensors")
        assert saved["model.embed_tokens.weight"].dtype == dtype
        assert_equal(saved["model.norm.weight"], model.norm.scale[...])


def test_windows_and_rotations_that_no_family_has_are_not_saved(tmp_path):
    _, config = read_config(json.loads((DATA / "mistral" / "config.json").read_text()))
    mixed = DecoderConfig(**{**vars(config), "windows": (None, 4, 3)})
    with pytest.raises(ValueError, match=r"no known architecture computes"):
        save_hf(GPT(mixed, rngs=nnx.Rngs(0)), tmp_path / "model")
    with pytest.raises(ValueError, match=r"no known architecture computes"):
        write_config(DecoderConfig(model_dim=12, num_heads=5, head_dim=4))
    turned = DecoderConfig(**{**vars(config), "rotary": Rotary(layout="interleaved")})
    with pytest.raises(ValueError, match=r"config\.json cannot express Rotary"):
        write_config(turned)


COMMON = {"attention_dropout": 0.0, "torch_dtype": "bfloat16", "use_cache": True}
PUBLISHED = {  # config.json as published, and how many parameters its page counts
    "Mistral-7B-v0.1": (
        {
            **{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336},
            **{"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8},
            **{"max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 10000.0},
            **{"sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000},
        },
        7_241_732_096,
    ),
    "Qwen3-0.6B": (
        {
            **{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072},
            **{"num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8},
            **{"max_window_layers": 28, "head_dim": 128, "rope_scaling": None, "rope_theta": 10**6},
            **{"sliding_window": None, "use_sliding_window": False, "attention_bias": False},
            **{"tie_word_embeddings": True, "vocab_size": 151936},
        },
        596_049_920,
    ),
    "SmolLM2-135M": (
        {
            **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536},
            **{"num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3},
            **{"attention_bias": False, "is_llama_config": True, "rope_interleaved": False},
            **{"pretraining_tp": 1, "rope_scaling": None, "rope_theta": 100000},
            **{"tie_word_embeddings": True, "vocab_size": 49152},
        },
        134_515_008,
    ),
    "gemma-2-2b": (
        {
            **{"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216},
            **{"num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4},
            **{"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
            **{"cache_implementation": "hybrid", "head_dim": 256, "query_pre_attn_scalar": 256},
            **{"sliding_window": 4096, "vocab_size": 256000},
        },
        2_614_341_888,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_have_the_published_parameters(name):
    given, parameters = PUBLISHED[name]
    _, config = read_config({**COMMON, **given})
    state = nnx.state(nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == parameters


def test_defaults_in_numbers():
    config = read("gemma2", head_dim=64)
    assert config.embed_scale == pytest.approx(math.sqrt(2304))
    assert config.norm_eps == 1e-6
    gpt2 = DecoderConfig(num_kv_heads=12, head_dim=64, hidden_dim=3072)
    assert read("gpt2") == gpt2
    assert read("llama", rope_theta=7.0, rope_parameters={"rope_type": "default"}).rotary.base == 7


def test_a_copy_of_a_tied_table_must_be_one(copied):
    folder = copied("qwen3")
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_tensors(folder, **{"lm_head.weight": table})
    tokens = expected("qwen3")["tokens"]
    assert_equal(load_hf(folder)(tokens), load_hf(DATA / "qwen3")(tokens))
    for other in (table + 1, table[1:]):
        change_tensors(folder, **{"lm_head.weight": other})
        with pytest.raises(
            ValueError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"
        ):
            load_hf(folder)


def test_a_tensor_by_its_old_and_its_new_name_is_refused(copied):
    folder = copied("gpt2")
    tensors = load_file(folder / "model.safetensors")
    change_tensors(folder, **{"wte.weight": tensors["transformer.wte.weight"]})
    with pytest.raises(ValueError, match=r"has both transformer\.wte\.weight and"):
        load_hf(folder)
