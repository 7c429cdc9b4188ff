"""`modules.MultiHeadAttention`: the paper's formula, every option, and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import caches, masks, positions, score_mods
from attn_jax.modules import MultiHeadAttention, Rotary
from tests.helpers import oracle
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, S, N, K, H, V, D, E = 2, 5, 7, 4, 2, 8, 3, 6, 10
WIDTHS = {"num_kv_heads": K, "head_dim": H, "value_dim": V}
CAUSAL = masks.causal()


def make(**options):
    """A layer with random biases, scales and sinks, so that each changes the output."""
    layer = MultiHeadAttention(D, N, **WIDTHS | {"rngs": nnx.Rngs(0)} | options)
    rng = np.random.default_rng(1)
    for path, parameter in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        if path[-1].startswith("b_") or path[-1] in ("sink", "scale"):
            noise = jnp.asarray(rng.normal(size=parameter.shape), parameter.dtype)
            parameter[...] += noise
    return layer


def tokens(seed=0, *, length=T, width=D, batch=(B,), dtype=jnp.float32):
    return draw(seed, (*batch, length, width), dtype=dtype)[0]


def booleans(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).random(shape) < 0.6)


def by_hand(layer, x, memory, **options):
    """The layer's formula on its parameters, with attention by the oracle; all in float64."""

    def value_of(name):
        parameter = getattr(layer, name)
        return 0.0 if parameter is None else np.asarray(parameter[...], np.float64)

    x, memory = np.asarray(x, np.float64), np.asarray(memory, np.float64)
    query = np.einsum("btd,dnh->btnh", x, value_of("w_query")) + value_of("b_query")
    key = np.einsum("bse,ekh->bskh", memory, value_of("w_key")) + value_of("b_key")
    value = np.einsum("bse,ekv->bskv", memory, value_of("w_value")) + value_of("b_value")
    out = oracle.multi_head(query, key, value, **options)
    return np.einsum("btnv,nvd->btd", out, value_of("w_out")) + value_of("b_out")


def test_self_attention_is_the_papers_formula(x64):
    layer = make(use_bias=True, param_dtype=jnp.float64, mask=CAUSAL, scale=0.7)
    x = tokens(dtype=jnp.float64)
    assert_close(layer(x), by_hand(layer, x, x, is_causal=True, scale=0.7))


def test_cross_attention_is_the_papers_formula(x64):
    layer = make(use_bias=True, memory_dim=E, param_dtype=jnp.float64)
    x, memory = tokens(dtype=jnp.float64), tokens(1, length=S, width=E, dtype=jnp.float64)
    mask = booleans(2, B, N, T, S)
    assert_close(layer(x, memory, mask=mask), by_hand(layer, x, memory, mask=mask))


def test_parameters_have_the_shapes_of_their_letters():
    state = nnx.state(make(use_bias=True, memory_dim=E, use_sink=True, qk_norm=True))
    shapes = {"/".join(path): leaf.shape for path, leaf in nnx.to_flat_state(state)}
    assert shapes == {
        "w_query": (D, N, H),
        "w_key": (E, K, H),
        "w_value": (E, K, V),
        "w_out": (N, V, D),
        "b_query": (N, H),
        "b_key": (K, H),
        "b_value": (K, V),
        "b_out": (D,),
        "sink": (N,),
        "query_norm/scale": (H,),
        "key_norm/scale": (H,),
    }


def test_options_that_are_off_have_no_parameter():
    names = {"w_query", "w_key", "w_value", "w_out"}
    assert set(nnx.state(make())) == names
    assert set(nnx.state(make(use_out_bias=True))) == names | {"b_out"}
    biases = {"b_query", "b_key", "b_value"}
    assert set(nnx.state(make(use_bias=True, use_out_bias=False))) == names | biases


def test_sizes_follow_from_the_model_unless_they_are_chosen():
    layer = MultiHeadAttention(12, 4, rngs=nnx.Rngs(0))
    assert layer.w_query.shape == layer.w_key.shape == layer.w_value.shape == (12, 4, 3)
    assert MultiHeadAttention(12, 4, head_dim=5, rngs=nnx.Rngs(0)).w_out.shape == (4, 5, 12)


@pytest.mark.parametrize("batch", [(), (B,), (3, B)])
def test_any_number_of_batch_axes(batch):
    layer = make(mask=CAUSAL, use_bias=True)
    x = tokens(batch=batch)
    alone = [layer(example) for example in x.reshape(-1, T, D)]
    assert_close(layer(x), jnp.stack(alone).reshape(x.shape))


def test_kernels_are_glorot_uniform_over_all_heads():
    layer = MultiHeadAttention(64, 8, head_dim=16, value_dim=32, memory_dim=32, rngs=nnx.Rngs(0))
    ends = {"w_query": 64 + 128, "w_key": 32 + 128, "w_value": 32 + 256, "w_out": 256 + 64}
    for name, both in ends.items():
        limit = np.sqrt(6 / both)
        assert 0.99 * limit < jnp.max(jnp.abs(getattr(layer, name)[...])) <= limit


@pytest.mark.parametrize("kind", [True, "layer"])
def test_norms_of_queries_and_keys_are_those_of_each_head(kind):
    layer, x = make(qk_norm=kind), tokens(3)
    assert set(nnx.state(layer.query_norm)) == {"scale"}

    def normed(heads, scale):
        centre = heads.mean(-1, keepdims=True) if kind == "layer" else 0.0
        size = jnp.sqrt(jnp.mean((heads - centre) ** 2, -1, keepdims=True) + 1e-6)
        return (heads - centre) / size * scale[...][None, None, None, :]

    query = normed(jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...]), layer.query_norm.scale)
    key = normed(jnp.einsum("BTD,DKH->BTKH", x, layer.w_key[...]), layer.key_norm.scale)
    value = jnp.einsum("BTD,DKV->BTKV", x, layer.w_value[...])
    out = attn_jax.dot_product_attention(query, key, value)
    assert_close(layer(x), jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...]))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotary_rotates_queries_and_keys_and_not_values(layout):
    scaling = positions.YarnScaling(4.0, 16)
    layer = make(mask=CAUSAL, rotary=Rotary(100.0, layout, scaling, fraction=0.5))
    x, place = tokens(4), jnp.asarray([[0, 1, 2, 3, 4], [7, 8, 30, 31, 32]])
    frequencies = positions.rotary_frequencies(H // 2, base=100.0, scaling=scaling)
    turn = functools.partial(
        positions.rotary, layout=layout, amplitude=scaling.amplitude, frequencies=frequencies
    )
    query = turn(jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...]), place)
    key, value = layer.project_memory(x)
    key = turn(jnp.einsum("BTD,DKH->BTKH", x, layer.w_key[...]), place)
    out = attn_jax.dot_product_attention(
        query, key, value, is_causal=True, query_position=place, key_position=place
    )
    expected = jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...])
    assert_close(layer(x, query_position=place), expected)
    assert_differs(layer(x)[1], expected[1])


def test_rotary_depends_on_distances_only():
    layer, x = make(mask=CAUSAL, rotary=Rotary()), tokens(5)
    shifted = layer(x, query_position=jnp.arange(64, 64 + T))
    assert float(jnp.abs(shifted - layer(x)).max()) < 2e-5
    assert_differs(layer(x), make(mask=CAUSAL)(x))


def test_rotary_in_cross_attention_requires_query_positions():
    layer, x, memory = make(rotary=Rotary()), tokens(), tokens(1, length=S)
    with pytest.raises(ValueError, match="rotary compares positions"):
        layer(x, memory)
    assert layer(
        x, memory, query_position=jnp.arange(S - T, S), key_position=jnp.arange(S)
    ).shape == (B, T, D)


def test_the_mask_of_a_call_is_combined_with_that_of_the_layer():
    x, array = tokens(6), booleans(7, B, 1, T, T)
    rule = masks.sliding_window(2, 2)
    expected = make()(x, mask=array & jnp.tril(jnp.ones((T, T), bool))[None, None])
    assert_close(make(mask=CAUSAL)(x, mask=array), expected)
    assert_close(make(mask=lambda i, j: j <= i)(x, mask=array), expected)
    assert_close(make(mask=CAUSAL)(x, mask=rule), make(mask=CAUSAL & rule)(x))
    assert_close(make(mask=lambda i, j: j <= i)(x, mask=rule), make(mask=CAUSAL & rule)(x))
    assert_differs(make(mask=CAUSAL)(x, mask=rule), make(mask=CAUSAL)(x))


def test_a_block_mask_is_refused_by_a_layer_with_a_mask():
    x, block = tokens(), attn_jax.block_mask(CAUSAL, T, T, tile=(2, 2))
    assert_close(make()(x, mask=block), make(mask=CAUSAL)(x))
    with pytest.raises(ValueError, match="BlockMask"):
        make(mask=CAUSAL)(x, mask=block)


def test_a_mask_of_arrays_belongs_to_the_layer_and_goes_through_jit():
    documents = jnp.array([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    layer, x = make(mask=masks.segments(documents[:, None])), tokens(8)
    same = documents[:, :, None] == documents[:, None, :]
    assert_close(nnx.jit(lambda layer, x: layer(x))(layer, x), make()(x, mask=same[:, None]))
    assert set(nnx.state(layer, nnx.Param)) == set(nnx.state(make()))


def test_a_score_mod_changes_the_logits():
    x, slopes = tokens(9), score_mods.alibi_slopes(N)
    mod = score_mods.alibi(slopes[None]) >> score_mods.soft_cap(2.0)
    distance = abs(np.arange(T)[:, None] - np.arange(T)).astype(np.float32)
    bias = -slopes[:, None, None] * distance[None]
    layer = make()
    key, value = layer.project_memory(x)
    query = jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...])
    capped = score_mods.soft_cap(2.0)
    out = attn_jax.dot_product_attention(query, key, value, bias[None], score_mod=capped)
    assert_close(make(score_mod=mod)(x), jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...]))


def gradients(layer, x, **options):
    """Gradients of all parameters, for a cotangent without symmetry."""
    (weight,) = draw(99, x.shape, dtype=jnp.float32)
    return nnx.grad(lambda layer: jnp.sum(weight * layer(x, **options)))(layer)


def test_a_score_mod_of_parameters_is_trained_with_the_layer():
    constant = score_mods.alibi(score_mods.alibi_slopes(N)[None])
    trained = make(score_mod=jax.tree.map(nnx.Param, constant))
    x = tokens(10)
    assert_close(trained(x), make(score_mod=constant)(x))
    slopes = jax.tree.leaves(gradients(trained, x)["score_mod"])
    assert [gradient.shape for gradient in slopes] == [(1, N)]
    assert (jnp.abs(slopes[0]) > 0).all()
    assert "score_mod" not in nnx.state(make(score_mod=constant), nnx.Param)


class Falling(nnx.Module):
    """A user's score mod with one parameter for all heads."""

    def __init__(self):
        self.slope = nnx.Param(jnp.float32(0.3))

    def __call__(self, logit, i, j):
        return logit - self.slope[...] * abs(i - j).astype(logit.dtype)


def test_a_module_is_a_score_mod():
    x, layer = tokens(11), make(score_mod=Falling())
    assert_close(layer(x), make(score_mod=score_mods.alibi(0.3))(x))
    assert abs(float(gradients(layer, x)["score_mod"]["slope"][...])) > 1e-3


def test_each_head_has_a_sink_with_a_share_of_its_weights():
    layer, x = make(use_sink=True, mask=CAUSAL), tokens(12)
    key, value = layer.project_memory(x)
    query = jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...])
    out = attn_jax.dot_product_attention(query, key, value, is_causal=True, sink=layer.sink[...])
    assert_close(layer(x), jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...]))
    assert_differs(layer(x), make(mask=CAUSAL)(x))


def test_weights_are_dropped_only_if_a_call_has_a_dropout_key():
    x, rng = tokens(13), jax.random.key(3)
    layer = make(dropout_rate=0.4)
    assert_equal(layer(x), make()(x))
    key, value = layer.project_memory(x)
    query = jnp.einsum("BTD,DNH->BTNH", x, layer.w_query[...])
    out = attn_jax.dot_product_attention(query, key, value, dropout_rate=0.4, dropout_rng=rng)
    assert_close(layer(x, rng=rng), jnp.einsum("BTNV,NVD->BTD", out, layer.w_out[...]))
    assert_differs(layer(x, rng=rng), layer(x, rng=jax.random.key(4)))
    assert_equal(make()(x, rng=rng), make()(x))


def test_the_keys_of_a_memory_can_be_projected_once():
    layer = make(memory_dim=E, use_bias=True, qk_norm=True)
    x, memory, mask = tokens(14), tokens(15, length=S, width=E), booleans(16, B, 1, T, S)
    key, value = layer.project_memory(memory)
    assert (key.shape, value.shape) == ((B, S, K, H), (B, S, K, V))
    steps = [
        layer.attend_to_memory(x[:, t : t + 1], key, value, mask=mask[:, :, t : t + 1])
        for t in range(T)
    ]
    assert_close(jnp.concatenate(steps, axis=1), layer(x, memory, mask=mask))


def decoder(**options):
    """A layer with all options that depend on positions or heads."""
    mod = score_mods.alibi(score_mods.alibi_slopes(N)[None])
    known = {"rotary": Rotary(), "score_mod": mod, "qk_norm": True, "use_sink": True}
    return make(mask=CAUSAL & masks.sliding_window(3, 0), **known | options)


@pytest.mark.parametrize("kind", ["contiguous", "sliding", "paged"])
def test_chunks_with_a_cache_give_the_output_of_the_whole_sequence(kind):
    layer, x, out = decoder(), tokens(20), []
    if kind == "sliding":
        cache = caches.sliding(B, 3, K, H, V, chunk=2)
    else:
        cache = getattr(caches, kind)(B, T, K, H, V)
    for chunk in jnp.split(x, [2, 3], axis=1):
        attention, cache = jax.jit(layer.extend)(chunk, cache)
        out.append(attention)
    assert_close(jnp.concatenate(out, axis=1), layer(x))
    assert cache.lengths.tolist() == [T, T]


def test_padding_on_either_side_changes_nothing_in_a_cache():
    layer, x = decoder(), tokens(21)
    is_real = jnp.array([[False, False, True, True, True], [True, True, True, True, False]])
    out, cache = layer.extend(x, caches.contiguous(B, T, K, H, V), is_real=is_real)
    assert_close(out[:1, 2:], layer(x[:1, 2:]))
    assert_close(out[1:, :4], layer(x[1:, :4]))
    more, _ = layer.extend(x[:, :1], cache.rewind(jnp.array([2, 2])))
    assert_close(more[:1], layer(x[:1, jnp.array([2, 3, 0])])[:, 2:])


def test_stats_are_those_of_each_head():
    slopes, x = score_mods.alibi_slopes(N), tokens(17)
    layer = make(mask=CAUSAL, score_mod=score_mods.alibi(slopes[None]), qk_norm=True)
    stats = layer.stats(x, top=2)
    assert stats.top_weight.shape == (B, N, T, 2)
    key, _ = layer.project_memory(x)
    query = layer.query_norm(jnp.einsum("...D,DNH->...NH", x, layer.w_query[...]))
    for b, n in np.ndindex(B, N):
        head = query[b, :, n], key[b, :, n // (N // K)]
        mod = score_mods.alibi(slopes[n])
        alone = attn_jax.attention_stats(*head, mask=CAUSAL, score_mod=mod, top=2)
        for got, wanted in zip(stats[:-1], alone[:-1], strict=True):
            assert_close(got[b, n], wanted)
        assert_equal(stats.top_key[b, n], alone.top_key)


def test_stats_include_the_sink_of_each_head():
    layer, x = make(use_sink=True, mask=CAUSAL), tokens(18)
    stats, key = layer.stats(x, top=2), layer.project_memory(x)[0]
    query = layer.project_query(x)
    for n in range(N):
        head, sink = (query[1, :, n], key[1, :, n // (N // K)]), layer.sink[n]
        alone = attn_jax.attention_stats(*head, mask=CAUSAL, sink=sink, top=2)
        assert_close(stats.logsumexp[1, n], alone.logsumexp)
        assert_close(stats.received[1, n], alone.received)
    assert_differs(stats.received, make(mask=CAUSAL).stats(x, top=2).received)


def test_a_layer_computes_in_the_dtype_of_its_input():
    layer, x = make(qk_norm=True, rotary=Rotary(), use_bias=True, use_sink=True), tokens(18)
    half = layer(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    error = jnp.abs(half.astype(jnp.float32) - layer(x)).max()
    assert error < 0.05 * jnp.abs(layer(x)).max()


def test_parameters_are_kept_in_param_dtype():
    layer = make(use_bias=True, use_sink=True, qk_norm=True, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype(jnp.bfloat16)}
    assert layer(tokens()).dtype == jnp.float32


def test_gradients_reach_every_parameter():
    layer = make(use_bias=True, use_sink=True, qk_norm=True, rotary=Rotary(), mask=CAUSAL)
    found = nnx.jit(gradients)(layer, tokens(19))
    assert jax.tree.structure(found) == jax.tree.structure(nnx.state(layer))
    for gradient in jax.tree.leaves(found):
        assert np.isfinite(gradient).all()
        assert jnp.abs(gradient).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ({"head_dim": None}, "num_heads=4 must divide model_dim=6; pass head_dim"),
        ({"num_kv_heads": 0}, "num_kv_heads must be at least 1"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"scale": 0.0}, "scale"),
        ({"qk_norm": "batch"}, "qk_norm"),
        ({"mask": jnp.ones((1, 1, T, T), bool)}, "mask of a layer must be a function"),
        ({"score_mod": 3.0}, "score_mod of a layer must be a function"),
    ],
)
def test_invalid_options_of_a_layer_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message.split()[0].split("=")[0]) as error:
        make(**options)
    assert message in str(error.value) or "Type-check" in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer: layer(tokens(width=D + 1)), "x must be 6 wide"),
        (lambda layer: layer(tokens(), tokens(width=D + 1)), "memory must be 6 wide"),
        (lambda layer: layer(tokens(), tokens(length=S)), "query_position is needed"),
        (lambda layer: layer(tokens(), mask=jnp.ones((B, T, T), bool)), "mask must be 4-D"),
        (lambda layer: layer(tokens(), mask=jnp.ones((1, 1, T, T))), "mask must be bool"),
    ],
)
def test_wrong_arguments_of_a_call_are_refused(call, message):
    with pytest.raises((ValueError, TypeError)) as error:
        call(make(mask=CAUSAL))
    assert message in str(error.value) or "Type-check" in str(error.value)
