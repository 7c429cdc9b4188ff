"""What README's table says of jax.nn, flax and Splash is what the installed versions do.

Tokamax and PyTorch are not installed; README links the sources of their columns.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from tests.helpers.tolerance import assert_close

B, T, N, H = 2, 8, 4, 16
PEERS = [jax.nn.dot_product_attention, nnx.dot_product_attention]
both = pytest.mark.parametrize("peer", PEERS, ids=["jax.nn", "flax"])


@pytest.fixture
def query_key_value():
    return jax.random.normal(jax.random.key(0), (3, B, T, N, H))


@both
def test_jax_and_flax_have_no_score_mod_and_no_score(peer):
    names = set(inspect.signature(peer).parameters)
    assert {"bias", "mask", "is_causal"} <= names
    assert not {"score", "score_mod"} & names


def test_windows_and_lengths_are_arguments_of_jax_and_not_of_flax():
    of_jax, of_flax = (set(inspect.signature(peer).parameters) for peer in PEERS)
    wanted = {"local_window_size", "query_seq_lengths", "key_value_seq_lengths"}
    assert wanted <= of_jax
    assert not wanted & of_flax


@both
def test_jax_and_flax_return_the_mean_of_the_values_for_a_fully_masked_query(peer, query_key_value):
    query, key, value = query_key_value
    nothing = jnp.zeros((1, 1, T, T), bool)
    mean = jnp.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
    assert_close(peer(query, key, value, mask=nothing), mean)
    assert jnp.all(attn_jax.dot_product_attention(query, key, value, mask=nothing) == 0)


@both
def test_jax_and_flax_have_forward_mode_and_second_derivatives(peer, query_key_value):
    def loss(query):
        return jnp.sum(peer(query, *query_key_value[1:]) ** 2)

    query = query_key_value[0]
    _, tangent = jax.jvp(jax.grad(loss), (query,), (query,))
    assert jnp.all(jnp.isfinite(tangent))
    assert jnp.any(tangent != 0)


@both
def test_jax_and_flax_compute_arrays_that_are_sharded_along_the_sequence(peer, query_key_value):
    mesh = jax.make_mesh((4,), ("sequence",), axis_types=(AxisType.Auto,))
    along_T = NamedSharding(mesh, PartitionSpec(None, "sequence"))
    sharded = jax.jit(peer)(*(jax.device_put(array, along_T) for array in query_key_value))
    assert_close(jax.device_get(sharded), jax.device_get(peer(*query_key_value)))


@pytest.fixture(scope="module")
def splash():
    """Splash on a CPU: query 5 and all queries of the second tile are fully masked."""
    mask = np.tri(256, dtype=bool)
    mask[5] = mask[128:] = False
    heads = splash_attention_mask.MultiHeadMask([splash_attention_mask.NumpyMask(mask)])
    return splash_attention_kernel.make_splash_mha(
        heads, head_shards=1, q_seq_shards=1, interpret=True
    )


@pytest.fixture(scope="module")
def arrays():
    return jax.random.normal(jax.random.key(1), (3, 1, 256, 128))


def test_splash_returns_the_mean_of_a_tile_or_nan_for_a_fully_masked_query(splash, arrays):
    out = splash(*arrays)
    assert_close(out[0, 5], arrays[2, 0, :128].mean(axis=0))
    assert jnp.all(jnp.isnan(out[0, 200]))


def test_splash_has_first_derivatives_in_reverse_mode_only(splash, arrays):
    query, key, value = arrays

    def loss(query):
        return jnp.sum(splash(query, key, value)[:, :128] ** 2)

    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(loss, (query,), (query,))
    with pytest.raises(NotImplementedError):
        jax.grad(lambda query: jnp.sum(jax.grad(loss)(query) ** 2))(query)


def test_splash_has_a_soft_cap_and_no_score_mod_and_no_bias():
    names = set(inspect.signature(splash_attention_kernel.make_splash_mha).parameters)
    assert "attn_logits_soft_cap" in names
    assert not {"score", "score_mod", "bias"} & names
