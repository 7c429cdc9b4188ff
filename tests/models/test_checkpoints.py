"""Checkpoints that `transformers` wrote (tests/data/hf) give its logits; others are refused."""

import dataclasses
import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from attn_jax.models import GPT, DecoderConfig, load_hf, save_hf
from tests.helpers.tolerance import assert_equal, assert_within

DATA = Path(__file__).resolve().parents[1] / "data" / "hf"
FAMILIES = ("gpt2", "llama", "mistral", "qwen3", "qwen3_windows", "gemma2")
EACH = pytest.mark.parametrize("family", FAMILIES)


def expected(family):
    with np.load(DATA / family / "expected.npz") as arrays:
        return {name: jnp.asarray(array) for name, array in arrays.items()}


@EACH
def test_logits_are_those_of_the_library_that_wrote_it(family):
    wanted = expected(family)
    assert_within(load_hf(DATA / family)(wanted["tokens"]), wanted["logits"], atol=1e-5)


@EACH
def test_decoding_with_caches_gives_the_logits_of_transformers(family):
    wanted = expected(family)
    model, generated = load_hf(DATA / family), wanted["tokens"]
    extend = nnx.jit(lambda model, tokens, caches: model.extend(tokens, caches))
    new, caches = generated, model.init_caches(2, 25, kind="sliding", chunk=2)
    while generated.shape[1] < wanted["greedy"].shape[1]:
        hidden, caches = extend(model, new, caches)
        new = model.readout(hidden[:, -1]).argmax(-1)[:, None]
        generated = jnp.concatenate([generated, new], axis=1)
    assert_equal(generated, wanted["greedy"])


@EACH
def test_saved_again_it_is_the_same_to_the_bit(family, tmp_path):
    save_hf(load_hf(DATA / family), tmp_path / "again")
    ours, theirs = (
        load_file(at / "model.safetensors") for at in (tmp_path / "again", DATA / family)
    )
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        if family == "gemma2" and "norm" in name:  # w is kept as 1 + w
            assert_within(ours[name], tensor, atol=1e-7)
        else:
            assert_equal(ours[name], tensor)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (
        config["architectures"]
        == json.loads((DATA / family / "config.json").read_text())["architectures"]
    )


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None,
    reason="transformers and torch are not installed; tests/data/hf has their results",
)
@EACH
def test_transformers_loads_what_we_save(family, tmp_path):
    transformers, torch = (importlib.import_module(name) for name in ("transformers", "torch"))
    save_hf(load_hf(DATA / family), tmp_path / "again")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    wanted = expected(family)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.array(wanted["tokens"], np.int64))).logits
    assert_within(logits.numpy(), wanted["logits"], atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    """A copy of the llama checkpoint, which a test may change."""
    return Path(shutil.copytree(DATA / "llama", tmp_path / "model"))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shards(folder):
    """A copy in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


BESIDE = {
    "generation_config.json": b'{"eos_token_id": [3, 4], "bos_token_id": 1}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
    "special_tokens_map.json": b"{}",
    "merges.txt": b"a b",
    "tokenizer.model": b"\x00\xff",
    "chat_template.jinja": b"{{ bos_token }}",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
}
IDS = {"bos_token_id": 1, "eos_token_id": [3, 4], "pad_token_id": 5, "attention_dropout": 0.1}


def test_saved_again_it_has_all_files_that_transformers_reads(folder, tmp_path):
    change_config(folder, **IDS, id2label={"0": "no"}, torch_dtype="float32")
    (folder / "additional_chat_templates").mkdir()
    for name, content in BESIDE.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("not read")
    model = load_hf(folder)
    theirs = json.loads((folder / "config.json").read_text())
    shutil.rmtree(folder)
    for copy in (model, nnx.clone(model), pickle.loads(pickle.dumps(model))):
        save_hf(copy, again := tmp_path / "again")
        assert json.loads((again / "config.json").read_text()) == theirs
        files = {p.relative_to(again).as_posix(): p for p in again.rglob("*") if p.is_file()}
        assert set(files) == {*BESIDE, "config.json", "model.safetensors"}
        assert all(files[name].read_bytes() == content for name, content in BESIDE.items())
        shutil.rmtree(again)
    assert "tokenizer.json" in repr(model.origin)
    assert "version" not in repr(model.origin)


def test_a_model_made_from_a_loaded_one_can_have_its_origin(folder, tmp_path):
    change_config(folder, **IDS)
    loaded = load_hf(folder)
    changed = GPT(dataclasses.replace(loaded.config, norm_eps=1e-3), rngs=nnx.Rngs(0))
    changed.origin = loaded.origin
    save_hf(changed, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-3
    assert {key: config[key] for key in IDS} == IDS
    assert load_hf(tmp_path / "again").config == changed.config


def test_a_mistral_without_a_window_stays_a_mistral(tmp_path):
    shutil.copytree(DATA / "mistral", folder := tmp_path / "mistral")
    change_config(folder, sliding_window=None)
    save_hf(load_hf(folder), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == "mistral"


def test_several_files_are_one_model(folder):
    shards(folder)
    tokens = expected("llama")["tokens"]
    assert_equal(load_hf(folder)(tokens), load_hf(DATA / "llama")(tokens))


def test_gpt2s_older_names_and_buffers_are_known(tmp_path):
    folder = Path(shutil.copytree(DATA / "gpt2", tmp_path / "model"))

    def change(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = np.ones((1, 1, 40, 40), np.float32)
        tensors["lm_head.weight"] = tensors["wte.weight"]

    change_tensors(folder, change)
    wanted = expected("gpt2")
    assert_within(load_hf(folder)(wanted["tokens"]), wanted["logits"], atol=1e-5)


def test_the_dtype_can_be_chosen_and_norms_stay_wide():
    model = load_hf(DATA / "llama", dtype=jnp.bfloat16)
    assert model.blocks[0].attention.w_query.dtype == model.embedding.table.dtype == jnp.bfloat16
    assert model.norm.scale.dtype == jnp.float32
    wanted = expected("llama")
    assert_within(model(wanted["tokens"]).astype(jnp.float32), wanted["logits"], atol=0.1)


def test_it_is_loaded_into_its_shards():
    kinds = (AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), kinds, devices=jax.devices()[:4])
    model = load_hf(DATA / "mistral", sharding=mesh)
    kernel = model.blocks[0].attention.w_query[...]
    assert kernel.sharding.spec == PartitionSpec(None, "tensor", None)
    assert kernel.addressable_shards[0].data.shape[1] == kernel.shape[1] // 2
    assert model.embedding.table.sharding.spec == PartitionSpec(None, None)  # 61 tokens
    wanted = expected("mistral")
    logits = nnx.jit(lambda model, tokens: model(tokens))(model, wanted["tokens"])
    assert_within(logits, wanted["logits"], atol=1e-5)


def test_one_sharding_for_all_is_taken_as_it_is():
    everywhere = NamedSharding(
        jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]), PartitionSpec()
    )
    model = load_hf(DATA / "llama", sharding=everywhere)
    assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(nnx.state(model)))


CONFIG = {
    "another architecture": (
        {"model_type": "mamba"},
        r"model_type='mamba' is unknown; known are gpt2",
    ),
    "an unknown key": ({"attention_chunk": 3}, r"attention_chunk of llama is unknown"),
    "a bias": ({"attention_bias": True}, r"attention_bias=True is not supported; only False is"),
    "an activation": ({"hidden_act": "xielu"}, r"hidden_act='xielu' is not supported; known are"),
    "rotations": (
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 10.0}},
        r"rope_type='longrope' is not supported; known are default, linear, llama3, yarn",
    ),
    "half of a scaling": (
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10.0}},
        r"rope_type='linear' needs factor",
    ),
    "an unknown part of a scaling": (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "twist": 1}},
        r"twist of rope_type='linear' is unknown",
    ),
    "other sizes": (
        {"intermediate_size": 30},
        r"mlp\.\w+\.weight must have shape \[\d+, \d+\] by config\.json; got",
    ),
    "fewer layers": ({"num_hidden_layers": 2}, r"has the tensor model\.layers\.2\..*does not have"),
    "more layers": (
        {"num_hidden_layers": 4},
        r"lacks the tensor model\.layers\.3\..*9 are missing",
    ),
}


@pytest.mark.parametrize("mistake", CONFIG)
def test_an_unknown_configuration_is_refused_by_name(mistake, folder):
    values, message = CONFIG[mistake]
    change_config(folder, **values)
    with pytest.raises(ValueError, match=message):
        load_hf(folder)


def test_older_spellings_of_rotations_mean_the_same(folder):
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_hf(folder).config == load_hf(DATA / "llama").config


def test_a_tensor_too_few_too_many_or_of_another_shape_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.update(extra=np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match=r"has the tensor extra, which llama does not have"):
        load_hf(folder)
    change_tensors(folder, lambda tensors: (tensors.pop("extra"), tensors.pop("model.norm.weight")))
    with pytest.raises(ValueError, match=r"lacks the tensor model\.norm\.weight"):
        load_hf(folder)
    change_tensors(
        folder, lambda tensors: tensors.update({"model.norm.weight": np.zeros(5, np.float32)})
    )
    with pytest.raises(ValueError, match=r"model\.norm\.weight must have shape \[24\].*got \[5\]"):
        load_hf(folder)


def test_a_file_that_is_cut_or_a_pickle_is_refused_and_never_opened(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 5, 300, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"is not a complete safetensors file: .*; download it again"
        ):
            load_hf(folder)
    sentinel = folder / "was run"
    file.write_bytes(pickle.dumps(_Bomb(str(sentinel))))
    with pytest.raises(ValueError, match=r"starts like a pickle, which is never opened"):
        load_hf(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: a pickle .* is never opened"):
        load_hf(folder)
    assert not sentinel.exists()


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_an_index_lists_files_of_its_own_folder_with_their_tensors(folder):
    weight_map = shards(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../model.safetensors"}}))
    with pytest.raises(ValueError, match=r"names '\.\./model\.safetensors', which is outside"):
        load_hf(folder)
    file = weight_map["lm_head.weight"]
    index.write_text(json.dumps({"weight_map": weight_map | {"lost.weight": file}}))
    with pytest.raises(ValueError, match=r"lacks lost\.weight, which .* lists for it"):
        load_hf(folder)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file} is missing"):
        load_hf(folder)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing; pass the folder"):
        load_hf(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_hf(tmp_path)


def test_a_model_that_no_architecture_has_is_not_saved(tmp_path):
    config = DecoderConfig(7, 8, 1, 2, max_length=9, final_soft_cap=2.0)
    with pytest.raises(ValueError, match=r"no known architecture computes .* \(gpt2, llama"):
        save_hf(GPT(config, rngs=nnx.Rngs(0)), tmp_path / "model")
    assert not (tmp_path / "model").exists()
