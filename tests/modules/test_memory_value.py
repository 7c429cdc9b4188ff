"""`layer(x, memory, memory_value)`: keys are projected from one array, values from another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import masks
from attn_jax.modules import MultiHeadAttention, from_flax, to_flax
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, S, N, K, H, V, D, E, F = 2, 5, 7, 4, 2, 8, 3, 6, 10, 9


def make(**options):
    sizes = {"num_kv_heads": K, "head_dim": H, "value_dim": V, "memory_dim": E}
    return MultiHeadAttention(
        D, N, **sizes, memory_value_dim=F, use_bias=True, **options, rngs=nnx.Rngs(0)
    )


def arrays(seed=0):
    return draw(seed, (B, T, D), (B, S, E), (B, S, F), dtype=jnp.float32)


def test_values_of_another_width_follow_the_formula():
    layer, (x, memory, source) = make(), arrays()
    mask = jnp.asarray(np.random.default_rng(1).random((B, 1, T, S)) < 0.7)
    layer.b_value[...] = draw(2, (K, V), dtype=jnp.float32)[0]
    query = jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...])
    key = jnp.einsum("BSE,EKH->BSKH", memory, layer.w_key[...])
    value = jnp.einsum("BSF,FKV->BSKV", source, layer.w_value[...])
    value = value + layer.b_value[...][None, None]
    out = attn_jax.dot_product_attention(query, key, value, mask=mask)
    out = jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...])
    assert_close(layer(x, memory, source, mask=mask), out)
    steps = [
        layer.attend_to_memory(
            x[:, t : t + 1], *layer.project_memory(memory, source), mask=mask[:, :, t : t + 1]
        )
        for t in range(T)
    ]
    assert_close(jnp.concatenate(steps, axis=1), out)


def test_one_array_of_values_may_be_shared_by_all_examples():
    layer, (x, memory, source) = make(), arrays(3)
    copies = jnp.broadcast_to(source[:1], source.shape)
    assert_close(layer(x, memory, source[:1]), layer(x, memory, copies))


def test_memory_value_may_be_the_memory_itself():
    layer = MultiHeadAttention(D, N, head_dim=H, memory_dim=E, rngs=nnx.Rngs(0))
    x, memory, _ = arrays(4)
    other = draw(5, (B, S, E), dtype=jnp.float32)[0]
    assert_equal(layer(x, memory, memory), layer(x, memory))
    assert_differs(layer(x, memory, other), layer(x, memory))


def test_gradients_reach_memory_value():
    layer, (x, memory, source) = make(mask=masks.key_padding(5)), arrays(6)
    gradient = jax.grad(lambda source: jnp.sum(layer(x, memory, source) ** 2))(source)
    assert (jnp.abs(gradient[:, :5]).max(axis=(1, 2)) > 1e-4).all()
    assert_equal(gradient[:, 5:], jnp.zeros((B, 2, F)))


def test_the_weights_depend_on_keys_alone():
    layer, (x, memory, _) = make(), arrays(7)
    stats = layer.stats(x, memory, top=1)
    assert_close(stats.received.sum(axis=-1), jnp.full((B, N), T, jnp.float32))


def test_flaxs_layer_is_called_with_three_arrays_and_so_is_ours():
    flaxs = nnx.MultiHeadAttention(
        N, D, qkv_features=N * H, in_kv_features=E, decode=False, rngs=nnx.Rngs(0)
    )
    x, keys, values = draw(8, (B, T, D), (B, S, E), (B, S, E), dtype=jnp.float32)
    ours = from_flax(flaxs)
    assert_close(ours(x, keys, values), flaxs(x, keys, values))
    assert_differs(ours(x, keys, values), ours(x, keys))
    with pytest.raises(ValueError, match="memory_value_dim"):
        to_flax(make(use_out_bias=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x, m, s: f(x, m), r"memory_value is needed: .* 9 wide, .* 10 wide"),
        (lambda f, x, m, s: f(x, None, s), r"memory is needed with memory_value"),
        (lambda f, x, m, s: f(x, m, s[:, :3]), r"memory_value must have .*S = 7.*got \[2, 3, 9\]"),
        (lambda f, x, m, s: f(x, m, m), r"memory_value must be 9 wide; got \[2, 7, 10\]"),
        (lambda f, x, m, s: f(x, s, s), r"memory must be 10 wide; got \[2, 7, 9\]"),
    ],
)
@pytest.mark.usefixtures("no_type_hook")
def test_wrong_arguments_of_a_call_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(make(), *arrays())
