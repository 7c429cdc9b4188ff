"""Arrays sharded over examples, heads or both: the same numbers without an all-gather."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.cases import IMPLEMENTATIONS
from tests.helpers.draws import draw

B, T, N, K, H, V = 4, 40, 6, 2, 8, 5
RNG = np.random.default_rng(0)
DOCUMENTS = jnp.asarray(RNG.integers(0, 2, (B, 1, T)).cumsum(-1), jnp.int32)
SLOPES = score_mods.alibi_slopes(N)
OPTIONS = {
    "all": {},
    "causal": {"is_causal": True},
    "documents": {"mask": masks.segments(DOCUMENTS) & masks.causal()},
    "slopes": {"is_causal": True, "score_mod": score_mods.alibi(SLOPES[None])},
    "mask for heads": {"mask": jnp.asarray(RNG.random((1, N, T, T)) < 0.6)},
}
SPECS = {
    "examples": PartitionSpec("data"),
    "heads": PartitionSpec(None, None, "heads"),
    "both": PartitionSpec("data", None, "heads"),
}
# Explicit axes are automatic inside an attention call, so each layout is compiled once.
LAYOUTS = [*((AxisType.Explicit, spec) for spec in SPECS), (AxisType.Auto, "both")]
COLLECTIVES = re.compile(
    r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def make_mesh(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "heads"), axis_types=(kind, kind))


def operands(dtype=jnp.float32) -> list[jax.Array]:
    return draw(1, (B, T, N, H), (B, T, K, H), (B, T, K, V), (B, T, N, V), dtype=dtype)


def with_gradients(attention):
    """Output and gradients of all arguments of an attention function; the cotangent is first."""

    def output_and_gradients(cotangent, *arguments):
        out, transpose = jax.vjp(attention, *arguments)
        return out, *transpose(cotangent)

    return jax.jit(output_and_gradients)


def collectives(compiled) -> Counter:
    return Counter(COLLECTIVES.findall(compiled.as_text()))


def assert_as_on_one_device(got, wanted) -> None:
    """To 1e-6 of the greatest entry, or to one rounding where the dtype is coarser."""
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        tolerance = 2**-7 if one.dtype == jnp.bfloat16 else 1e-6
        one, other = (np.asarray(array, np.float64) for array in (one, other))
        assert np.max(np.abs(one - other)) <= tolerance * np.max(np.abs(other))


@functools.cache
def read_with_gradients(option: str, implementation: str):
    attention = functools.partial(
        attn_jax.dot_product_attention, implementation=implementation, **OPTIONS[option]
    )
    return with_gradients(attention)


@functools.cache
def on_one_device(option: str, implementation: str):
    *arrays, cotangent = operands()
    return read_with_gradients(option, implementation)(cotangent, *arrays)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(("kind", "spec"), LAYOUTS, ids=lambda part: getattr(part, "name", part))
def test_output_and_gradients_stay_where_the_inputs_are(kind, spec, option, implementation, tiles):
    tiles(16, 16)
    sharding = NamedSharding(make_mesh(kind), SPECS[spec])
    *arrays, cotangent = jax.device_put(operands(), sharding)
    function = read_with_gradients(option, implementation)
    compiled = function.lower(cotangent, *arrays).compile()
    assert not collectives(compiled)  # although masks differ between shards
    got = compiled(cotangent, *arrays)
    for array in got:
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    assert_as_on_one_device(got, on_one_device(option, implementation))


def test_shards_exchange_once_which_tiles_their_documents_need(tiles):
    """Once before the loop, not in each step, for the output and for the gradients."""
    tiles(16, 16)
    sharding = NamedSharding(make_mesh(AxisType.Auto), SPECS["examples"])

    def attention(query, key, value, documents):
        mask = masks.segments(documents[:, None]) & masks.causal()
        options = {"mask": mask, "implementation": "blockwise"}
        return attn_jax.dot_product_attention(query, key, value, **options)

    *arrays, cotangent = jax.device_put(operands(), sharding)
    documents = jax.device_put(DOCUMENTS[:, 0], sharding)
    function = jax.jit(lambda *arrays: jax.vjp(attention, *arrays)[1](cotangent)[:3])
    compiled = function.lower(*arrays, documents).compile()
    _, once = compiled.as_text().split("ENTRY ")
    assert collectives(compiled) == {"all-reduce": 2}
    assert len(COLLECTIVES.findall(once)) == 2
    assert len(re.findall(r"= \(pred\S+ pred\S+ all-reduce\(", once)) == 2


def heads_of_examples(query, key, value, slopes, documents, implementation):
    """`attend` under explicit `vmap`, with user functions that capture mapped arrays."""

    def head(query, key, value, slope, documents):
        return attn_jax.attend(
            query,
            key,
            value,
            mask=lambda i, j: (documents[i] == documents[j]) & (j <= i),
            score_mod=lambda logit, i, j: logit - slope * abs(i - j).astype(logit.dtype),
            query_position=jnp.arange(T),
            key_position=jnp.arange(T),
            implementation=implementation,
        )

    over_heads = jax.vmap(head, in_axes=(1, 1, 1, 0, None), out_axes=1)
    over_examples = jax.vmap(over_heads, in_axes=(0, 0, 0, None, 0))
    return over_examples(query, key, value, slopes, documents)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_attend_can_be_mapped_over_explicit_axes(implementation, run, tiles):
    tiles(16, 16)
    shapes = [(B, T, N, width) for width in (H, H, V, V)]
    arrays = draw(2, *shapes, dtype=jnp.float32)

    def attention(query, key, value, slopes, documents):
        return heads_of_examples(query, key, value, slopes, documents, implementation)

    mesh = make_mesh(AxisType.Explicit)
    sharding = NamedSharding(mesh, SPECS["both"])
    placed = jax.device_put(arrays, sharding)
    slopes = jax.device_put(SLOPES, NamedSharding(mesh, PartitionSpec("heads")))
    documents = jax.device_put(DOCUMENTS[:, 0], NamedSharding(mesh, PartitionSpec("data")))

    def output_and_gradients(query, key, value, cotangent, slopes, documents):
        out, transpose = jax.vjp(
            lambda *floats: attention(*floats, documents), query, key, value, slopes
        )
        return out, *transpose(cotangent)

    got = run(output_and_gradients)(*placed, slopes, documents)
    for array in got[:-1]:
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    assert got[-1].sharding.is_equivalent_to(slopes.sharding, 1)
    wanted = jax.jit(output_and_gradients)(*arrays, SLOPES, DOCUMENTS[:, 0])
    assert_as_on_one_device(got, wanted)


def test_weights_and_stats_are_sharded_as_the_queries_are():
    sharding = NamedSharding(make_mesh(AxisType.Explicit), PartitionSpec("data"))
    query, key = draw(3, (B, T, H), (B, T, H), dtype=jnp.float32)
    placed = jax.device_put((query, key), sharding)
    for function in (attn_jax.attention_weights, attn_jax.attention_stats):
        attention = jax.vmap(functools.partial(function, mask=masks.causal()))
        got, wanted = jax.tree.leaves(attention(*placed)), jax.tree.leaves(attention(query, key))
        assert_as_on_one_device(got, wanted)
        assert all(array.sharding.is_equivalent_to(sharding, array.ndim) for array in got)


@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [("reference", jnp.float32), ("blockwise", jnp.float32), ("blockwise", jnp.bfloat16)],
)
def test_inside_shard_map_each_shard_visits_its_own_tiles(implementation, dtype, tiles):
    tiles(16, 16)

    def attention(query, key, value, slopes, documents):
        return attn_jax.dot_product_attention(
            query,
            key,
            value,
            mask=masks.segments(documents) & masks.causal(),
            score_mod=score_mods.alibi(slopes),
            implementation=implementation,
        )

    spec, by_example, by_head = SPECS["both"], PartitionSpec("data"), PartitionSpec(None, "heads")
    sharded = jax.shard_map(
        attention,
        mesh=make_mesh(AxisType.Auto),
        in_specs=(spec, spec, spec, by_head, by_example),
        out_specs=spec,
    )

    def function(attention):
        return with_gradients(lambda *floats: attention(*floats, DOCUMENTS))

    *arrays, cotangent = operands(dtype)
    compiled = function(sharded).lower(cotangent, *arrays, SLOPES[None]).compile()
    assert collectives(compiled) == {"all-reduce": 1}  # the gradient of slopes, over examples
    got = compiled(cotangent, *arrays, SLOPES[None])
    wanted = function(attention)(cotangent, *arrays, SLOPES[None])
    assert_as_on_one_device(got, wanted)
