"""`flax.nnx.MultiHeadAttention` with our attention function against the layer with Flax's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.nnx.nn.attention import dot_product_attention_weights

import attn_jax
from attn_jax._dropout import dropout_mask
from attn_jax.modules import flax_attention
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, S, N, K, H = 2, 5, 7, 4, 2, 8
D = 6


def layers(**options):
    """Two layers with equal parameters: one with our attention function, one with Flax's."""
    options = {"num_heads": N, "in_features": D, "qkv_features": N * H, "decode": False} | options
    make = functools.partial(nnx.MultiHeadAttention, **options)
    return (
        make(attention_fn=flax_attention, rngs=nnx.Rngs(0)),
        make(attention_fn=nnx.dot_product_attention, rngs=nnx.Rngs(0)),
    )


def numbers(seed, *shapes, dtype=jnp.float32):
    return draw(seed, *shapes, dtype=dtype)


def booleans(seed, *shape):
    """A mask without fully masked queries."""
    drawn = np.random.default_rng(seed).random(shape) < 0.6
    return jnp.asarray(drawn | (np.arange(shape[-1]) == 2))


def heads(seed, *, batch=(B,), queries=T, keys=S, kv_heads=N):
    shapes = (queries, N, H), (keys, kv_heads, H), (keys, kv_heads, H)
    return numbers(seed, *((*batch, *shape) for shape in shapes))


def test_the_docstring_of_the_layer_holds():
    ours, flaxs = layers(num_heads=8, in_features=5, qkv_features=16)
    q, k, v = numbers(0, *[(4, 3, 2, 5)] * 3)
    for inputs in ((q, k, v), (q, k), (q,)):
        assert_close(ours(*inputs), flaxs(*inputs))
    assert_equal(ours(q, k), ours(q, k, k))
    assert_equal(ours(q), ours(q, q, q))


def test_queries_attend_to_another_sequence():
    ours, flaxs = layers(in_kv_features=3)
    q, k, v = numbers(1, (B, T, D), (B, S, 3), (B, S, 3))
    assert_close(ours(q, k, v), flaxs(q, k, v))


@pytest.mark.parametrize(
    "shape", [(B, N, T, S), (B, 1, T, S), (1, N, 1, S), (B, 1, 1, S), (1, 1, T, S)]
)
@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.float32])
def test_masks_of_all_shapes_and_dtypes(shape, dtype):
    ours, flaxs = layers()
    q, k = numbers(2, (B, T, D), (B, S, D))
    mask = booleans(3, *shape).astype(dtype)
    assert_close(ours(q, k, mask=mask), flaxs(q, k, mask=mask))
    assert_differs(ours(q, k, mask=mask), ours(q, k))


def test_causal_masks_of_flax_and_is_causal_are_the_same():
    ours, flaxs = layers()
    (x,) = numbers(4, (B, T, D))
    expected = flaxs(x, is_causal=True)
    assert_close(ours(x, is_causal=True), expected)
    assert_close(ours(x, mask=nnx.make_causal_mask(x[..., 0])), expected)
    assert_close(ours(x, mask=attn_jax.masks.causal()), expected)
    assert_differs(expected, flaxs(x))


def test_causal_and_padding_masks_both_apply():
    ours, flaxs = layers()
    (x,) = numbers(5, (B, T, D))
    padding = jnp.ones((B, 1, T, T), bool).at[0, :, :, 3:].set(False)
    assert_close(ours(x, mask=padding, is_causal=True), flaxs(x, mask=padding, is_causal=True))


def test_causal_with_different_lengths_requires_positions():
    ours, _ = layers()
    q, k = numbers(6, (B, T, D), (B, S, D))
    with pytest.raises(ValueError, match="query_position"):
        ours(q, k, is_causal=True)


def test_heads_share_keys():
    ours, flaxs = layers(num_kv_heads=K)
    q, k = numbers(7, (B, T, D), (B, S, D))
    mask = booleans(8, B, N, T, S)
    assert_close(ours(q, k, mask=mask), flaxs(q, k, mask=mask))


def test_normalised_queries_and_keys():
    ours, flaxs = layers(normalize_qk=True)
    (x,) = numbers(9, (B, T, D))
    assert_close(ours(x), flaxs(x))


def test_decoding_with_flax_cache_is_the_causal_layer():
    ours, flaxs = layers(decode=True)
    (x,) = numbers(10, (B, T, D))
    expected = flaxs(x, decode=False, is_causal=True)
    ours.init_cache((B, T, D))
    steps = [ours(x[:, t : t + 1]) for t in range(T)]
    assert_close(jnp.concatenate(steps, axis=1), expected)


def test_the_gradients_of_all_parameters_agree():
    (x,) = numbers(11, (B, T, D))

    def gradients(layer):
        return nnx.state(nnx.grad(lambda layer: jnp.mean(layer(x, is_causal=True) ** 2))(layer))

    ours, flaxs = (jax.tree.leaves(gradients(layer)) for layer in layers())
    assert len(ours) == len(flaxs) == 8
    scale = max(float(jnp.abs(leaf).max()) for leaf in flaxs)
    for one, other in zip(ours, flaxs, strict=True):
        # The gradient of the keys' bias is only rounding: one tolerance for all gradients.
        assert float(jnp.abs(one - other).max()) < 4e-6 * scale


@pytest.mark.parametrize(
    "shape", [(B, N, T, S), (N, T, S), (1, N, T, S), (T, S), (S,), (B, N, T, 1), (T, 1)]
)
def test_a_bias_broadcasts_as_in_flax(shape):
    arrays = heads(12)
    (bias,) = numbers(13, shape)
    with jax.numpy_rank_promotion("allow"):  # Flax adds a bias of any rank to its logits
        weights = dot_product_attention_weights(*arrays[:2], bias=bias, deterministic=True)
    expected = jnp.einsum("BNTS,BSNH->BTNH", weights, arrays[2])
    assert_close(flax_attention(*arrays, bias), expected)


@pytest.mark.parametrize("batch", [(), (B,), (3, B)])
def test_any_number_of_batch_axes(batch):
    arrays = heads(14, batch=batch, kv_heads=K)
    assert_close(flax_attention(*arrays), nnx.dot_product_attention(*arrays))


def test_arrays_are_cast_to_the_dtype_of_the_layer():
    ours, _ = layers(dtype=jnp.bfloat16)
    _, flaxs = layers()
    (x,) = numbers(15, (B, T, D))
    rounded = ours(x)
    assert rounded.dtype == jnp.bfloat16
    error = jnp.abs(rounded.astype(jnp.float32) - flaxs(x)).max()
    assert error < 0.05 * jnp.abs(flaxs(x)).max()


def test_arrays_of_unlike_dtypes_are_cast_to_one():
    query, key, value = heads(25)
    key, value = key.astype(jnp.bfloat16), value.astype(jnp.bfloat16)
    out = flax_attention(query, key, value, dtype=jnp.float32)
    expected = nnx.dot_product_attention(
        query, key.astype(jnp.float32), value.astype(jnp.float32), deterministic=True
    )
    assert_close(out, expected)


def test_a_fully_masked_query_gives_zeros():
    arrays = heads(16)
    mask = jnp.ones((1, 1, T, S), bool).at[:, :, 3].set(False)
    out = flax_attention(*arrays, mask=mask)
    assert_equal(out[:, 3], jnp.zeros((B, N, H)))
    assert_close(out[:, :3], nnx.dot_product_attention(*arrays)[:, :3])


def test_dropped_weights_are_those_of_the_dropout_key():
    query, key, value = heads(17)
    rng, rate = jax.random.key(1), 0.4
    out = flax_attention(
        query, key, value, broadcast_dropout=False, dropout_rng=rng, dropout_rate=rate
    )
    rngs = [jax.random.fold_in(rng, number) for number in range(B * N)]
    keep = jnp.stack([dropout_mask(r, rate, jnp.arange(T), jnp.arange(S)) for r in rngs])
    weights = dot_product_attention_weights(query, key, deterministic=True)
    weights = weights * keep.reshape(B, N, T, S).astype(jnp.float32) / (1 - rate)
    assert_close(out, jnp.einsum("BNTS,BSNH->BTNH", weights, value))


def test_a_layer_with_dropout_drops_only_while_it_trains():
    ours, flaxs = layers(dropout_rate=0.5, broadcast_dropout=False)
    (x,) = numbers(18, (B, T, D))
    assert_close(ours(x, deterministic=True), flaxs(x, deterministic=True))
    first, second = (ours(x, deterministic=False, rngs=nnx.Rngs(seed)) for seed in (1, 2))
    assert_differs(first, second)
    assert_equal(first, ours(x, deterministic=False, rngs=nnx.Rngs(1)))


def test_our_own_options_are_passed_by_partial():
    capped = functools.partial(flax_attention, score_mod=attn_jax.score_mods.soft_cap(0.5))
    arrays = heads(19, keys=T)
    expected = attn_jax.dot_product_attention(*arrays, score_mod=attn_jax.score_mods.soft_cap(0.5))
    assert_equal(capped(*arrays), expected)
    assert_differs(capped(*arrays), flax_attention(*arrays))


def test_the_layer_runs_under_jit():
    ours, _ = layers()
    (x,) = numbers(20, (B, T, D))
    assert_close(
        nnx.jit(lambda layer, x: layer(x, is_causal=True))(ours, x), ours(x, is_causal=True)
    )


def test_all_heads_and_examples_drop_the_same_weights_with_broadcast_dropout():
    query, key, value = heads(21)
    rng, rate = jax.random.key(1), 0.4
    out = flax_attention(query, key, value, dropout_rng=rng, dropout_rate=rate)
    keep = dropout_mask(rng, rate, jnp.arange(T), jnp.arange(S)).astype(jnp.float32)
    weights = dot_product_attention_weights(query, key, deterministic=True)
    weights = weights * keep[None, None] / (1 - rate)
    assert_close(out, jnp.einsum("BNTS,BSNH->BTNH", weights, value))
    old = flax_attention(query, key, value, dropout_rng=jax.random.PRNGKey(1), dropout_rate=rate)
    assert_equal(old, out)


def test_weights_are_sown_as_flaxs_are():
    ours, flaxs = layers(num_kv_heads=K, dropout_rate=0.5)
    q, k = numbers(26, (B, T, D), (B, S, D))
    options = {"mask": booleans(27, B, 1, T, S), "sow_weights": True}
    for layer in (ours, flaxs):
        layer(q, k, **options, deterministic=False, rngs=nnx.Rngs(0))
    mine, theirs = ours.attention_weights[0], flaxs.attention_weights[0]
    assert mine.shape == (B, N, T, S)
    assert_close(mine, theirs)


def test_weights_with_a_sink_are_not_sown():
    ours, _ = layers(attention_fn=None)
    ours.attention_fn = functools.partial(flax_attention, sink=jnp.zeros(N))
    with pytest.raises(NotImplementedError, match="sink; leave sow_weights"):
        ours(*numbers(28, (B, T, D)), sow_weights=True)


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_a_precision_reaches_every_matmul_forward_and_backward(implementation):
    arrays = heads(29)

    def loss(precision, *arrays):
        attention = functools.partial(
            flax_attention, precision=precision, implementation=implementation
        )
        return jnp.sum(attention(*arrays) ** 2)

    def products(precision):
        gradients = jax.jit(jax.grad(functools.partial(loss, precision), argnums=(0, 1, 2)))
        text = gradients.lower(*arrays).as_text()
        return [line for line in text.splitlines() if "dot_general" in line]

    for precision in ("highest", jax.lax.Precision.HIGHEST, ("highest", "highest")):
        found = products(precision)
        assert len(found) >= 5  # two forward, and three or more backward
        assert all("HIGHEST, HIGHEST" in line for line in found)
    assert not any("HIGHEST" in line for line in products(None))


def test_the_precision_around_a_call_reaches_its_gradient_too():
    arrays = heads(30)

    def loss(*arrays):
        with jax.default_matmul_precision("highest"):
            out = attn_jax.dot_product_attention(*arrays, implementation="blockwise")
        return jnp.sum(out**2)

    text = jax.jit(jax.grad(loss)).lower(*arrays).as_text()
    found = [line for line in text.splitlines() if "dot_general" in line]
    assert all("HIGHEST, HIGHEST" in line for line in found)


@pytest.mark.parametrize("name", ["fastest", "high", "bfloat16_3x", "tensorfloat32", "float32"])
def test_a_precision_has_all_the_names_that_flax_takes(name):
    ours, flaxs = layers(precision=name)
    (x,) = numbers(31, (B, T, D))
    assert_close(ours(x), flaxs(x))


def test_a_precision_for_each_operand_of_a_matmul_is_refused():
    with pytest.raises(NotImplementedError, match="not one name for all matmuls"):
        flax_attention(*heads(32), precision=("high", "highest"))


def linen_layers(**options):
    options = {"num_heads": N, "qkv_features": N * H, "out_features": D} | options
    make = functools.partial(linen.MultiHeadDotProductAttention, **options)
    return make(attention_fn=flax_attention), make()


def test_the_layer_of_linen_takes_our_function_too():
    ours, flaxs = linen_layers()
    q, k, v = numbers(33, (B, T, D), (B, S, D), (B, S, D))
    mask = booleans(34, B, 1, T, S)
    variables = flaxs.init(jax.random.key(0), q, k, v)
    wanted, sown = flaxs.apply(
        variables, q, k, v, mask=mask, sow_weights=True, mutable=["intermediates"]
    )
    out, mine = ours.apply(
        variables, q, k, v, mask=mask, sow_weights=True, mutable=["intermediates"]
    )
    assert_close(out, wanted)
    assert_close(jax.tree.leaves(mine)[0], jax.tree.leaves(sown)[0])


def test_the_layer_of_linen_drops_with_old_and_new_keys():
    ours, _ = linen_layers(dropout_rate=0.5, deterministic=False)
    (x,) = numbers(35, (B, T, D))
    variables = ours.init(jax.random.key(0), x)
    old, new = (
        ours.apply(variables, x, rngs={"dropout": make(7)})
        for make in (jax.random.PRNGKey, jax.random.key)
    )
    assert_equal(old, new)
    assert_differs(new, ours.apply(variables, x, rngs={"dropout": jax.random.key(8)}))


def test_positions_for_rotary_embeddings_are_refused():
    ours, _ = layers()
    (x,) = numbers(22, (B, T, D))
    with pytest.raises(TypeError, match="input_positions"):
        ours(x, input_positions=jnp.arange(T))


def test_dropout_without_a_key_is_an_error():
    with pytest.raises(ValueError, match="dropout_rng"):
        flax_attention(*heads(23), dropout_rate=0.5, broadcast_dropout=False)


def test_a_default_precision_by_any_name_is_taken():
    arrays = heads(24)
    for precision in (None, "default", jax.lax.Precision.DEFAULT):
        assert_equal(flax_attention(*arrays, precision=precision), flax_attention(*arrays))
