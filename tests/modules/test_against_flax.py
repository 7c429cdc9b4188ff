"""Cases in which `flax.nnx.MultiHeadAttention` fails and ours works, and the conversion of layers.

Each test first shows the failure of flax 0.12.12, so that a version without it is noticed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax import caches, masks
from attn_jax.modules import MultiHeadAttention, Rotary, flax_attention, from_flax, to_flax
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, S, N, K, H, D, E = 2, 5, 7, 4, 2, 8, 6, 10
CAUSAL = masks.causal()


def flax_layer(**options):
    """Flax's layer with biases that are not zero."""
    sizes = {"num_heads": N, "in_features": D, "qkv_features": N * H, "decode": False}
    layer = nnx.MultiHeadAttention(**sizes | options, rngs=nnx.Rngs(0))
    for seed, (path, parameter) in enumerate(nnx.to_flat_state(nnx.state(layer, nnx.Param))):
        if path[-1] in ("bias", "scale"):
            parameter[...] = draw(seed, parameter.shape, dtype=parameter.dtype)[0]
    return layer


def pair(**options):
    """Flax's layer, and ours with its parameters."""
    layer = flax_layer(**options)
    return layer, from_flax(layer)


def causal(layer):
    """The same layer with a causal mask."""
    layer.mask = CAUSAL
    return layer


def tokens(seed=0, *, length=T, width=D, batch=(B,)):
    return draw(seed, (*batch, length, width), dtype=jnp.float32)[0]


def test_a_padding_mask_and_a_causal_mask_both_apply():
    flaxs, ours = pair(dropout_rate=0.5, deterministic=True)
    x, length = tokens(), jnp.array([4, 2])
    padding = (jnp.arange(T)[None] < length[:, None])[:, None, None]
    # Flax broadcasts its causal mask to the shape of the mask that it is given.
    with pytest.raises(ValueError, match="broadcasting"):
        flaxs(x, mask=padding, is_causal=True)
    both = padding & jnp.tril(jnp.ones((T, T), bool))[None, None]
    assert_close(causal(ours)(x, mask=padding), flaxs(x, mask=both))
    assert_close(ours(x, mask=CAUSAL & masks.key_padding(length[:, None])), flaxs(x, mask=both))


def test_a_mask_may_be_shared_along_any_batch_axis():
    flaxs, ours = pair()
    x, mask = tokens(1, batch=(3, B)), jnp.asarray(np.random.default_rng(2).random((3, 1, 1, T, T)))
    mask = (mask < 0.6) | jnp.eye(T, dtype=bool)[None, None, None]
    with pytest.raises(TypeError, match="incompatible shapes"):
        flaxs(x, mask=mask)
    assert_close(ours(x, mask=mask), flaxs(x, mask=jnp.broadcast_to(mask, (3, B, N, T, T))))


def test_values_may_have_a_width_of_their_own():
    layer = MultiHeadAttention(D, N, head_dim=H, value_dim=3, rngs=nnx.Rngs(0))
    x = tokens(3)
    key, value = layer.project_memory(x)
    with pytest.raises(ValueError, match="value shape"):
        nnx.dot_product_attention(key, key, value)
    assert layer.attend_to_memory(x, key, value).shape == (B, T, D)
    # Values padded with zeros have the width that flax's function requires, and the same output.
    query = jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...])
    padded = jnp.pad(value, [(0, 0)] * 3 + [(0, H - 3)])
    out = nnx.dot_product_attention(query, key, padded)[..., :3]
    assert_close(layer(x), jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...]))


def test_a_causal_layer_decodes_any_number_of_tokens_at_once():
    flaxs, ours = pair(decode=True)
    x, out = tokens(4), []
    flaxs.init_cache((B, T, D))
    with pytest.raises(ValueError, match="cache shape error"):
        flaxs(x[:, :2])
    cache = caches.contiguous(B, T, N, H)
    for chunk in jnp.split(x, [2, 3], axis=1):
        of_chunk, cache = causal(ours).extend(chunk, cache)
        out.append(of_chunk)
    # Earlier versions let `is_causal=True` hide all keys of a step but the first one; 0.12.12
    # ignores it there.
    assert_close(jnp.concatenate(out, axis=1), flaxs(x, decode=False, is_causal=True))


def test_a_token_beyond_the_capacity_is_refused_and_overwrites_nothing():
    flaxs, ours = pair(decode=True)
    x = tokens(5)
    flaxs.init_cache((B, 3, D))
    for t in range(4):
        flaxs(x[:, t : t + 1])
    last = flaxs.cached_key[...][:, 2]
    assert_close(last, flaxs.key(x[:, 3]))  # the fourth token overwrote the third one
    _, cache = ours.extend(x[:, :3], caches.contiguous(B, 3, N, H))
    with pytest.raises(caches.CacheOverflow, match="capacity is 3"):
        ours.extend(x[:, 3:4], cache)
    _, cache = jax.jit(ours.extend)(x[:, 3:4], cache)
    assert cache.overflowed.tolist() == [True] * B
    assert_close(cache.key[:, :, 2], flaxs.key(x[:, 2]))


def test_an_additive_mask_is_refused_and_not_inverted():
    flaxs, ours = pair()
    x, unmasked = tokens(6), jnp.tril(jnp.ones((T, T), bool))[None, None]
    additive = jnp.where(unmasked, 0.0, -1e9)
    assert_close(flaxs(x, mask=additive), flaxs(x, mask=~unmasked))
    with pytest.raises(TypeError, match="mask"):
        ours(x, mask=additive)


def test_each_head_of_each_example_drops_its_own_weights():
    """All heads and examples are equal before dropout, so that only dropout makes them differ."""
    flaxs = flax_layer(in_features=N * 2, qkv_features=N * 2, use_bias=False, dropout_rate=0.5)
    for part in (flaxs.query, flaxs.key, flaxs.value):
        part.kernel[...] = jnp.broadcast_to(part.kernel[:, :1], (N * 2, N, 2))
    flaxs.out.kernel[...] = jnp.eye(N * 2).reshape(N, 2, N * 2)
    x = jnp.broadcast_to(tokens(7, width=N * 2, batch=(1,)), (B, T, N * 2))
    theirs = flaxs(x, deterministic=False, rngs=nnx.Rngs(0)).reshape(B, T, N, 2)
    mine = from_flax(flaxs)(x, rng=jax.random.key(0)).reshape(B, T, N, 2)
    for b, n in np.ndindex(B, N):
        assert_equal(theirs[b, :, n], theirs[0, :, 0])
        if (b, n) != (0, 0):
            assert_differs(mine[b, :, n], mine[0, :, 0])


def assert_same_parameters(one, other):
    one, other = (nnx.state(layer, nnx.Param) for layer in (one, other))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert_equal(leaf, same)


def test_converted_parameters_keep_their_dtype():
    flaxs = flax_layer(param_dtype=jnp.bfloat16)
    assert from_flax(flaxs).w_key[...].dtype == jnp.bfloat16
    assert_same_parameters(to_flax(from_flax(flaxs)), flaxs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": K, "in_kv_features": E},
        {"use_bias": False, "normalize_qk": True},
        {"attention_fn": flax_attention, "dropout_rate": 0.3},
    ],
    ids=["plain", "grouped, across", "normalised", "dropout"],
)
def test_parameters_go_from_flax_to_ours_and_back(options):
    flaxs = flax_layer(**options, deterministic=True)
    ours = from_flax(flaxs)
    back = to_flax(ours)
    assert_same_parameters(back, flaxs)
    assert (ours.dropout_rate, back.dropout_rate) == (flaxs.dropout_rate,) * 2
    x, memory = tokens(8), tokens(9, length=S, width=flaxs.in_kv_features)
    mask = jnp.asarray(np.random.default_rng(10).random((B, N, T, S)) < 0.6).at[..., 2].set(True)
    assert_close(ours(x, memory, mask=mask), flaxs(x, memory, mask=mask))
    assert_close(back(x, memory, mask=mask, deterministic=True), flaxs(x, memory, mask=mask))


def test_query_and_key_norms_are_not_swapped():
    flaxs = flax_layer(normalize_qk=True)
    assert_equal(from_flax(flaxs).query_norm.scale[...], flaxs.query_ln.scale[...])
    assert_differs(flaxs.query_ln.scale[...], flaxs.key_ln.scale[...])


def test_a_layer_from_flax_is_sharded_by_its_axis_names_and_trained():
    ours = from_flax(flax_layer())
    assert ours.w_out.out_sharding == ("heads", "head", "model")
    (weight,) = draw(11, (B, T, D), dtype=jnp.float32)
    found = nnx.grad(lambda layer, x: jnp.sum(weight * layer(x)))(ours, tokens(12))
    assert jax.tree.structure(found) == jax.tree.structure(nnx.state(ours, nnx.Param))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"out_features": D + 1}, "out_features"),
        ({"attention_fn": functools.partial(flax_attention, scale=0.1)}, "attention_fn"),
        ({"precision": "highest"}, "precision"),
    ],
)
def test_a_layer_of_flax_without_our_equivalent_is_refused(options, name):
    with pytest.raises(ValueError, match=f"layer has {name}="):
        from_flax(flax_layer(**options))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"mask": CAUSAL, "use_sink": True}, "mask, sink"),
        ({"score_mod": lambda logit, i, j: logit / 2}, "score_mod"),
        ({"rotary": Rotary(), "scale": 0.1}, "rotary, scale"),
        ({"value_dim": 3}, "value_dim"),
        ({"qk_norm": True}, "qk_norm"),
        ({"qk_norm": "layer", "norm_eps": 1e-5}, "qk_norm"),
        ({"use_out_bias": True}, "use_out_bias"),
    ],
)
def test_a_layer_without_an_equivalent_in_flax_is_refused(options, names):
    layer = MultiHeadAttention(D, N, head_dim=H, **options, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f"lacks: {names}$"):
        to_flax(layer)
