from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import Encoder
from tests.helpers.tiny_models import EMBED, HIDDEN, SOURCE, all_tokens, drawn, tiny_config
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal


@pytest.fixture(scope="module")
def encoder():
    return drawn(Encoder(tiny_config(), rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def encode(encoder):
    return jax.jit(encoder.__call__)


def test_d15_a_reversed_source_with_swapped_weights_swaps_the_halves(encoder):
    graphdef, state = nnx.split(encoder)
    swapped = nnx.merge(graphdef, state)
    swapped.cells = nnx.List([encoder.cells[1], encoder.cells[0]])
    swapped.inputs = nnx.List([encoder.inputs[1], encoder.inputs[0]])
    annotations, _ = encoder(SOURCE, all_tokens(SOURCE))
    mirrored, _ = swapped(SOURCE[::-1], all_tokens(SOURCE))
    ahead, back = jnp.split(mirrored[::-1], 2, axis=1)
    assert_close(jnp.concatenate([back, ahead], axis=1), annotations)
    assert_differs(mirrored[::-1], annotations)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_network_of_torch_gives_the_same_in_both_directions(cell):
    golden = np.load(Path(__file__).parents[1] / "data" / "torch_recurrent.npz")
    encoder = drawn(Encoder(tiny_config(cell=cell), rngs=nnx.Rngs(0)), dtype=jnp.float64)
    inputs = jnp.asarray(golden["inputs"], jnp.float64)
    encoder.embedding[...] = encoder.embedding[...].at[SOURCE].set(inputs)
    for cell_of, project, end in zip(encoder.cells, encoder.inputs, ("", "_reverse"), strict=True):
        for layer, part in ((project, "ih"), (cell_of.cell.dense_h, "hh")):
            layer.kernel[...] = jnp.asarray(golden[f"{cell}.weight_{part}_l0{end}"].T, jnp.float64)
            layer.bias[...] = jnp.asarray(golden[f"{cell}.bias_{part}_l0{end}"], jnp.float64)
    annotations, _ = encoder(SOURCE, all_tokens(SOURCE))
    assert_close(annotations, golden[f"{cell}.outputs"])


def test_padding_on_either_side_and_in_between_changes_no_annotation(encode):
    annotations, summary = encode(SOURCE, all_tokens(SOURCE))
    padded = jnp.array([9, 9, 4, 10, 9, 7, 5, 8, 9, 2, 9])
    is_token = padded != 9
    with_padding, same_summary = encode(padded, is_token)
    assert_close(with_padding[is_token], annotations)
    assert_close(same_summary, summary)


def test_a_padded_position_repeats_the_state_before_it(encode):
    padded = jnp.concatenate([SOURCE, jnp.array([0])])
    annotations, _ = encode(padded, padded != 0)
    assert_equal(annotations[-1, :HIDDEN], annotations[-2, :HIDDEN])
    assert not annotations[-1, HIDDEN:].any()  # the backward recurrence has not started


def test_the_summary_is_the_last_state_of_the_last_direction(encode):
    annotations, summary = encode(SOURCE, all_tokens(SOURCE))
    assert_equal(summary, annotations[0, HIDDEN:])
    for context, first in (("final", -1), ("luong", 0)):
        choice = (
            {"context": "final"} if context == "final" else {"decoder": "luong", "score": "dot"}
        )
        one_way = drawn(Encoder(tiny_config(**choice), rngs=nnx.Rngs(0)))
        annotations, summary = one_way(SOURCE, all_tokens(SOURCE))
        assert annotations.shape == (SOURCE.size, HIDDEN)
        assert_equal(summary, annotations[first])


def test_both_directions_share_one_embedding(encoder):
    tables = [leaf for leaf in jax.tree.leaves(nnx.state(encoder)) if leaf.shape[0] == 11]
    assert [table.shape for table in tables] == [(11, EMBED)]


def test_a_forward_state_does_not_depend_on_later_tokens(encode):
    annotations, _ = encode(SOURCE, all_tokens(SOURCE))
    changed, _ = encode(SOURCE.at[3].set(9), all_tokens(SOURCE))
    assert_equal(changed[:3, :HIDDEN], annotations[:3, :HIDDEN])
    assert_equal(changed[4:, HIDDEN:], annotations[4:, HIDDEN:])
    assert_differs(changed[3:, :HIDDEN], annotations[3:, :HIDDEN])
