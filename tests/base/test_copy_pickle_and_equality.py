"""Masks, caches, layers and models can be copied, pickled, compared and sent to a process."""

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import caches, masks, models, modules, positions, score_mods
from attn_jax._base.value import Value
from tests.helpers.tolerance import assert_equal

T, H = 5, 4
IDS = np.array([0, 0, 2, 2, 5])
WRITTEN = np.random.default_rng(0).random((T, T)) < 0.5
TABLE, BIAS = np.arange(8, dtype=np.float32), np.ones((T, T), np.float32)


def later(i, j):
    return j > i


def combined_mask() -> masks.Mask:
    return ~(masks.causal() & masks.segments(IDS)) | masks.from_array(WRITTEN)


def combined_score_mod() -> score_mods.ScoreMod:
    bias = score_mods.dense_bias(BIAS) >> score_mods.relative_bias(TABLE, bidirectional=True)
    return score_mods.alibi(0.5) >> score_mods.soft_cap(3.0) >> bias


def filled(cache: caches.Cache) -> caches.Cache:
    rows = jnp.arange(2 * 3 * 2 * H, dtype=jnp.float32).reshape(2, 3, 2, H)
    return cache.append(rows, rows + 1)[0]


def gpt() -> models.GPT:
    config = models.DecoderConfig(
        vocab_size=7,
        model_dim=8,
        num_layers=1,
        num_heads=2,
        max_length=6,
        rotary=modules.Rotary(scaling=positions.LinearScaling(2.0)),
    )
    return models.GPT(config, rngs=nnx.Rngs(0))


PYTREES = {
    "mask": masks.causal,
    "mask with a hidden side": lambda: ~masks.causal(),
    "masks combined": combined_mask,
    "mask and function": lambda: masks.prefix(2) & later,
    "mask of arrays": lambda: masks.as_pytree(masks.key_padding(2) & masks.dilated(1, 2, 3)),
    "score mods": combined_score_mod,
    "block mask": lambda: attn_jax.block_mask(combined_mask(), T, T, tile=(2, 2)),
    "contiguous cache": lambda: filled(caches.contiguous(2, 6, 2, H)),
    "sliding cache": lambda: caches.sliding(2, 3, 2, H, chunk=3),
    "paged cache of eight bits": lambda: caches.paged(2, 8, 2, H, page=4, int8=True),
    "what a cache holds": lambda: caches.contiguous(1, 2, 1, 1).append(
        *[jnp.ones((1, 1, 1, 1))] * 2
    )[1],
}
MODULES = {
    "attention": lambda: modules.MultiHeadAttention(
        8, 2, mask=combined_mask(), score_mod=combined_score_mod(), rngs=nnx.Rngs(0)
    ),
    "attention by a function": lambda: modules.MultiHeadAttention(
        8, 2, mask=masks.causal() | later, rngs=nnx.Rngs(0)
    ),
    "GPT": gpt,
    "Transformer": lambda: models.Transformer(
        models.TransformerConfig(7, 9, 8, num_heads=2, num_layers=1, hidden_dim=6),
        rngs=nnx.Rngs(0),
    ),
    "Bahdanau's": lambda: models.EncoderDecoder(
        models.EncoderDecoderConfig(7, 9, 4, 6, 5, 4), rngs=nnx.Rngs(0)
    ),
    "Luong's": lambda: models.EncoderDecoder(
        models.EncoderDecoderConfig(7, 9, 4, 6, decoder="luong", cell="lstm", score="general"),
        rngs=nnx.Rngs(0),
    ),
    "draft": lambda: models.DraftModel(gpt()),
}
RECORDS = {
    "Sampling": models.Sampling(top_k=3),
    "DecoderConfig": models.DecoderConfig(windows=(None, 3), num_layers=2),
    "Rotary": modules.Rotary(scaling=positions.LinearScaling(2.0)),
}


def through_the_tree(value):
    leaves, structure = jax.tree.flatten(value)
    return jax.tree.unflatten(structure, leaves)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": lambda v, p=p: pickle.loads(pickle.dumps(v, p)) for p in (2, 3, 4, 5)},
}
OF_PYTREES = COPIES | {"tree": through_the_tree}
OF_MODULES = COPIES | {"clone": nnx.clone, "split": lambda module: nnx.merge(*nnx.split(module))}


@pytest.mark.parametrize("name", PYTREES)
def test_a_copy_of_a_pytree_is_the_same_program_on_the_same_numbers(name):
    value = PYTREES[name]()
    for way, duplicate in OF_PYTREES.items():
        twin = duplicate(value)
        assert jax.tree.structure(twin) == jax.tree.structure(value), way
        jax.tree.map(assert_equal, twin, value)
        assert twin == value, way


@pytest.mark.parametrize("name", MODULES)
def test_a_copy_of_a_module_is_the_same_program_on_the_same_numbers(name):
    definition, state = nnx.split(MODULES[name]())
    for way, duplicate in OF_MODULES.items():
        other, numbers = nnx.split(duplicate(nnx.merge(definition, state)))
        assert other == definition, way
        jax.tree.map(assert_equal, numbers, state)


@pytest.mark.parametrize("name", RECORDS)
def test_a_copy_of_a_record_is_equal_and_has_the_same_hash(name):
    value = RECORDS[name]
    for duplicate in COPIES.values():
        assert duplicate(value) == value
        assert hash(duplicate(value)) == hash(value)


def test_a_copied_layer_has_the_mask_of_the_original():
    layer = modules.MultiHeadAttention(8, 2, mask=~masks.causal(), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, T, 8))
    for implementation in ("reference", "blockwise"):
        layer.implementation = implementation
        assert_equal(copy.deepcopy(layer)(x), layer(x))


def test_a_traced_function_refuses_to_be_pickled_in_one_sentence():
    for value in (masks.as_pytree(later), attn_jax.block_mask(later, T, T)):
        assert copy.deepcopy(value) == value
        with pytest.raises(TypeError, match="a traced function cannot be pickled: pickle the"):
            pickle.dumps(value)


def test_a_pickled_mask_is_the_same_in_another_process(tmp_path):
    program = """
import pickle, sys
from attn_jax import masks
mask = pickle.load(open(sys.argv[1], "rb"))
print(masks.draw(mask, 5, 5))
"""
    (tmp_path / "mask").write_bytes(pickle.dumps(combined_mask()))
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "mask"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == masks.draw(combined_mask(), 5, 5)


TRUTHS = {
    "mask": (masks.causal, "a mask has no truth value: write a & b, a | b and ~a"),
    "combined mask": (combined_mask, "a mask has no truth value"),
    "score mod": (combined_score_mod, "a score mod has no truth value: write a >> b"),
    "block mask": (PYTREES["block mask"], "a block mask has no truth value: combine masks with &"),
    "traced function": (lambda: masks.as_pytree(later), "has no truth value"),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_and_or_not_and_if_refuse_a_mask_as_operands_of_logic(name):
    value, message = TRUTHS[name]
    for sentence in (lambda x: x and x, lambda x: x or x, lambda x: not x, lambda x: 1 if x else 0):
        with pytest.raises(TypeError, match=message):
            sentence(value())


UNEQUAL = {
    "operator": (masks.causal() & later, masks.causal() | later),
    "order": (~masks.causal() & later, masks.causal() & ~masks.key_padding(2)),
    "entry": (masks.from_array(WRITTEN), masks.from_array(~WRITTEN)),
    "sizes": (masks.segments(IDS), masks.segments(IDS[:4])),
    "which side": (masks.segments(IDS, IDS + 1), masks.segments(IDS + 1, IDS)),
    "dtype": (score_mods.dense_bias(BIAS), score_mods.dense_bias(BIAS.astype(np.float16))),
    "array or number": (masks.key_padding(2), masks.key_padding(jnp.int32(2))),
    "kind": (masks.causal(), score_mods.alibi(1.0)),
    "no value of ours": (masks.from_array(WRITTEN), WRITTEN.tolist()),
    "cache": (PYTREES["contiguous cache"](), caches.contiguous(2, 6, 2, H)),
    "tiles": (attn_jax.block_mask(later, T, T, tile=(2, 2)), attn_jax.block_mask(later, T, T)),
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_values_that_differ_are_not_equal(name):
    one, other = UNEQUAL[name]
    assert one != other
    assert other != one


def test_a_traced_array_equals_only_itself():
    compared = []

    @jax.jit
    def trace(length):
        mask = masks.key_padding(length)
        compared.extend([mask == masks.key_padding(length), mask == masks.key_padding(length + 0)])
        return length

    trace(jnp.int32(3))
    assert compared == [True, False]


def test_a_mask_without_arrays_is_a_static_argument_and_one_with_arrays_is_refused():
    traces = []

    def count(mask):
        traces.append(mask)
        return masks.evaluate(mask, jnp.arange(3), jnp.arange(4)).sum()

    static = jax.jit(count, static_argnums=0)
    for mask in (
        masks.causal() & ~masks.sliding_window(1, 0),
        masks.causal() & ~masks.sliding_window(1, 0),
    ):
        assert int(static(mask)) == 1
    assert len(traces) == 1
    assert (
        len({masks.causal(), copy.deepcopy(masks.causal()), masks.prefix(3), masks.prefix(3)}) == 2
    )
    with pytest.raises(
        TypeError, match="holds arrays and has no hash: pass it to jit as an argument"
    ):
        hash(masks.segments(IDS))


def every_subclass(kind: type) -> set[type]:
    own = set(kind.__subclasses__())
    return own.union(*map(every_subclass, own))


def test_every_value_class_uses_the_comparison_of_value():
    kinds = every_subclass(Value)
    assert len(kinds) > 20
    assert {kind.__eq__ for kind in kinds} == {Value.__eq__}
    assert {kind.__hash__ for kind in kinds} == {Value.__hash__}
