"""The self-attention layers: the functions they wrap, their parameters, and Flax's transforms."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax.modules import CausalSelfAttention, MultiHeadSelfAttention, SelfAttention
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

T, D, H, V, N = 5, 4, 3, 6, 2

LAYERS = {
    "full": lambda: SelfAttention(D, H, V, rngs=nnx.Rngs(1)),
    "causal": lambda: CausalSelfAttention(D, H, V, rngs=nnx.Rngs(1)),
    "heads": lambda: MultiHeadSelfAttention(N, D, H, V, rngs=nnx.Rngs(1)),
    "causal heads": lambda: MultiHeadSelfAttention(N, D, H, V, causal=True, rngs=nnx.Rngs(1)),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def tokens(seed=0, dtype=jnp.float32):
    return draw(seed, (T, D), dtype=dtype)[0]


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (SelfAttention, attn_jax.self_attention),
        (CausalSelfAttention, attn_jax.causal_self_attention),
    ],
)
def test_a_layer_is_its_function_on_its_parameters(layer, function):
    layer, x = layer(D, H, V, rngs=nnx.Rngs(0)), tokens()
    weights = layer.w_query[...], layer.w_key[...], layer.w_value[...]
    assert [weight.shape for weight in weights] == [(D, H), (D, H), (D, V)]
    assert_equal(layer(x), function(x, *weights))


@pytest.mark.parametrize("causal", [False, True])
def test_a_multi_head_layer_is_its_function_on_its_parameters(causal):
    layer, x = MultiHeadSelfAttention(N, D, H, V, causal=causal, rngs=nnx.Rngs(0)), tokens()
    layer.b_out[...] = jnp.arange(D, dtype=jnp.float32)
    weights = layer.w_query[...], layer.w_key[...], layer.w_value[...], layer.w_out[...]
    shapes = [(D, N, H), (D, N, H), (D, N, V), (N, V, D)]
    assert [weight.shape for weight in weights] == shapes
    out = attn_jax.multi_head_self_attention(x, *weights, causal=causal)
    assert_equal(layer(x), out + layer.b_out[...][None])


def test_without_a_bias_there_is_no_bias_parameter():
    layer = MultiHeadSelfAttention(N, D, use_out_bias=False, rngs=nnx.Rngs(0))
    assert set(nnx.state(layer)) == {"w_query", "w_key", "w_value", "w_out"}
    assert_equal(layer(jnp.zeros((T, D))), jnp.zeros((T, D)))


def test_widths_follow_from_the_model_unless_they_are_chosen():
    rngs = nnx.Rngs(0)
    assert SelfAttention(D, rngs=rngs).w_value.shape == (D, D)
    assert SelfAttention(D, H, rngs=rngs).w_value.shape == (D, H)
    assert MultiHeadSelfAttention(N, D, rngs=rngs).w_value.shape == (D, N, D // N)
    assert MultiHeadSelfAttention(3, D, H, rngs=rngs).w_out.shape == (3, H, D)


@every_layer
def test_gradients_reach_every_parameter(make):
    layer, x = make(), tokens()
    (weight,) = draw(1, layer(x).shape, dtype=jnp.float32)
    gradients = nnx.grad(lambda layer: jnp.sum(weight * layer(x)))(layer)
    assert jax.tree.structure(gradients) == jax.tree.structure(nnx.state(layer))
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()
        assert (jnp.max(jnp.abs(gradient), axis=0) > 0).all()


@every_layer
def test_a_layer_that_is_split_and_merged_is_the_same(make):
    layer, x = make(), tokens()
    graphdef, state = nnx.split(layer)
    assert_equal(nnx.merge(graphdef, state)(x), layer(x))
    zeros = jax.tree.map(jnp.zeros_like, state)
    assert_differs(layer(x), nnx.merge(graphdef, zeros)(x))


@pytest.mark.parametrize("graph", [False, True])
@every_layer
def test_a_layer_goes_through_jit_as_a_graph_and_as_a_tree(make, graph):
    layer, x = make(), tokens()
    jitted = nnx.jit(lambda layer, x: layer(x), graph=graph)
    assert_close(jitted(layer, x), layer(x))


@every_layer
def test_a_batch_is_vmap(make):
    layer = make()
    (batch,) = draw(2, (3, T, D), dtype=jnp.float32)
    assert_close(jax.vmap(layer)(batch), jnp.stack([layer(x) for x in batch]))


@every_layer
def test_a_layer_computes_in_the_dtype_of_its_input(make):
    layer, x = make(), tokens()
    half = layer(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert jnp.max(jnp.abs(half.astype(jnp.float32) - layer(x))) < 0.05 * jnp.max(jnp.abs(layer(x)))


def test_parameters_are_kept_in_param_dtype():
    for layer in (SelfAttention, CausalSelfAttention):
        state = nnx.state(layer(D, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16)}
    state = nnx.state(MultiHeadSelfAttention(N, D, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16)}


def test_kernels_are_glorot_uniform_over_all_heads():
    layer = MultiHeadSelfAttention(8, 64, 16, 32, rngs=nnx.Rngs(0))
    for kernel, fan_out in ((layer.w_query, 128), (layer.w_key, 128), (layer.w_value, 256)):
        limit = np.sqrt(6 / (64 + fan_out))
        assert 0.99 * limit < jnp.max(jnp.abs(kernel[...])) <= limit
    limit = np.sqrt(6 / (256 + 64))
    assert 0.99 * limit < jnp.max(jnp.abs(layer.w_out[...])) <= limit


def test_parameters_differ_from_each_other_and_follow_the_seed():
    layer = SelfAttention(D, rngs=nnx.Rngs(0))
    assert_differs(layer.w_query[...], layer.w_key[...])
    assert_differs(layer.w_key[...], layer.w_value[...])
    assert_differs(SelfAttention(D, rngs=nnx.Rngs(1)).w_query[...], layer.w_query[...])
    assert_equal(SelfAttention(D, rngs=nnx.Rngs(0)).w_query[...], layer.w_query[...])


def test_the_shapes_of_a_large_layer_cost_no_memory():
    layer = nnx.eval_shape(lambda: MultiHeadSelfAttention(96, 12_288, rngs=nnx.Rngs(0)))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(layer))]
    assert sum(sizes) == 4 * 12_288**2 + 12_288


def test_heads_that_do_not_divide_the_model_are_refused():
    with pytest.raises(ValueError, match=r"num_heads=3 must divide model_dim=4; pass head_dim"):
        MultiHeadSelfAttention(3, 4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("head_dim", [None, 2])
def test_zero_heads_are_refused(head_dim):
    with pytest.raises(ValueError, match=r"num_heads must be at least 1; got 0"):
        MultiHeadSelfAttention(0, 4, head_dim, rngs=nnx.Rngs(0))


def test_a_batch_that_is_not_mapped_is_refused():
    layer = SelfAttention(D, rngs=nnx.Rngs(0))
    with pytest.raises((ValueError, TypeError), match="x"):
        layer(jnp.zeros((2, T, D)))


def test_the_former_module_of_the_layers_still_has_them():
    former = importlib.import_module("attn_jax.modules.self_attention")
    assert former.SelfAttention is attn_jax.lecture.SelfAttention
    assert former.CausalSelfAttention is attn_jax.lecture.CausalSelfAttention
    assert former.MultiHeadSelfAttention is attn_jax.lecture.MultiHeadSelfAttention
