"""Blocks sharded over a mesh by the names of their parameters' axes: the same numbers, with only
the collectives of tensor and data parallelism.

Megatron-LM (Shoeybi et al. 2019, section 3, https://arxiv.org/abs/1909.08053): a block sums its
tokens over the devices twice forward and twice backward.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attn_jax import masks
from attn_jax.modules import (
    Embedding,
    FeedForward,
    MultiHeadAttention,
    Rotary,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
    sharding_rules,
)
from tests.helpers.draws import draw

B, T, D, N, K, H, A, P, BLOCKS = 4, 6, 16, 8, 4, 2, 24, 32, 2
MESHES = {
    "tensor": {"tensor": 4},
    "data and tensor": {"data": 2, "tensor": 4},
    "all three": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp": {"fsdp": 4},
}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
# One operation may carry several arrays: those of a tuple are counted one by one.
COLLECTIVE = re.compile(
    r"= (?P<type>\([^)]*\)|\S+) "
    r"(?P<kind>all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
SHAPE = re.compile(r"f32\[([\d,]*)\]")


class Stack(nnx.Module):
    """Two blocks of a language model."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        def block():
            options = {"num_kv_heads": K, "head_dim": H, "qk_norm": True, "use_bias": True}
            rules = {"mask": masks.causal(), "rotary": Rotary(), "use_sink": True}
            attention = MultiHeadAttention(D, N, **options, **rules, rngs=rngs)
            return TransformerEncoderBlock(attention, FeedForward(D, A, rngs=rngs), rngs=rngs)

        self.blocks = nnx.List([block() for _ in range(BLOCKS)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def make_mesh(sizes: dict[str, int], kind: str = "auto") -> jax.sharding.Mesh:
    return jax.make_mesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(KINDS[kind],) * len(sizes)
    )


def placements(state, mesh, **overrides):
    """The shardings of parameters and tokens on a mesh."""
    rules = sharding_rules(mesh, **overrides)
    with nnx.logical_axis_rules(rules):
        parameters = nnx.get_named_sharding(state, mesh)
    return parameters, NamedSharding(mesh, PartitionSpec(dict(rules)["batch"]))


GRAPH, STATE = nnx.split(Stack(nnx.Rngs(0)))
X, COTANGENT = draw(1, (B, T, D), (B, T, D), dtype=jnp.float32)


def forward(state, x):
    return nnx.merge(GRAPH, state)(x)


def forward_and_gradient(state, x, cotangent):
    out, transpose = jax.vjp(functools.partial(forward, x=x), state)
    return out, transpose(cotangent)[0]


@functools.cache
def on_one_device():
    return jax.jit(forward_and_gradient)(STATE, X, COTANGENT)


def collectives(compiled) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and shape of every array that devices exchange."""
    found = []
    for match in COLLECTIVE.finditer(re.sub(r"/\*.*?\*/", "", compiled.as_text())):
        for sizes in SHAPE.findall(match["type"]):
            found.append((match["kind"], tuple(int(n) for n in sizes.split(",") if n)))
    return found


def assert_as_on_one_device(got):
    """Equal within 1e-5 of the greatest entry of the output, and of the greatest gradient."""
    for one, other in zip(got, on_one_device(), strict=True):
        one, other = (jax.tree.leaves(jax.device_get(tree)) for tree in (one, other))
        scale = max(np.abs(leaf).max() for leaf in other)
        for leaf, wanted in zip(one, other, strict=True):
            assert np.abs(leaf - wanted).max() <= 1e-5 * scale


def compiled_step(mesh):
    parameters, tokens = placements(STATE, mesh)
    state = jax.device_put(STATE, parameters)
    arrays = jax.device_put((X, COTANGENT), tokens)
    step = jax.jit(forward_and_gradient, out_shardings=(tokens, parameters))
    compiled = step.lower(state, *arrays).compile()
    return compiled, compiled(state, *arrays)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "auto") for name in MESHES), ("all three", "explicit")]
)
def test_a_step_on_a_mesh_is_the_step_on_one_device(name, kind):
    mesh = make_mesh(MESHES[name], kind)
    _, got = compiled_step(mesh)
    assert_as_on_one_device(got)
    kernel = got[1]["blocks"][0]["attention"]["w_query"].get_value()
    assert kernel.addressable_shards[0].data.size * mesh.size == kernel.size * MESHES[name].get(
        "data", 1
    )


@pytest.mark.parametrize("kind", KINDS)
def test_tensor_parallel_blocks_sum_tokens_and_nothing_else(kind):
    mesh = make_mesh(MESHES["tensor"], kind)
    parameters, tokens = placements(STATE, mesh)
    state, x = jax.device_put(STATE, parameters), jax.device_put(X, tokens)
    alone = jax.jit(forward).lower(state, x).compile()
    assert collectives(alone) == [("all-reduce", (B, T, D))] * 2 * BLOCKS
    # Backward, the three products of the attention each have a term of its input's gradient; XLA
    # for CPUs sums each term over the devices, XLA for TPUs adds the terms first.
    both, _ = compiled_step(mesh)
    of_tokens = [shape for _, shape in collectives(both) if shape == (B, T, D)]
    assert {kind for kind, _ in collectives(both)} == {"all-reduce"}
    assert len(of_tokens) == 2 * BLOCKS + (1 + 3) * BLOCKS


def test_explicit_axes_exchange_what_automatic_ones_do():
    found = []
    for kind in KINDS:
        parameters, tokens = placements(STATE, make_mesh(MESHES["all three"], kind))
        placed = jax.device_put(STATE, parameters), jax.device_put(X, tokens)
        found.append(sorted(collectives(jax.jit(forward).lower(*placed).compile())))
    assert found[0] == found[1]


def test_data_parallel_blocks_add_the_gradient_of_each_parameter_once():
    both, _ = compiled_step(make_mesh({"data": 4}))
    assert [kind for kind, _ in collectives(both)] == ["all-reduce"] * len(jax.tree.leaves(STATE))


def test_fully_sharded_parameters_are_gathered_where_they_are_used():
    both, _ = compiled_step(make_mesh(MESHES["fsdp"]))
    gathered = [shape for kind, shape in collectives(both) if kind == "all-gather"]
    parameters = [parameter for _, parameter in nnx.to_flat_state(STATE)]
    matrices = [leaf.shape for leaf in parameters if "model" in leaf.out_sharding]
    assert set(gathered) <= set(matrices)


def everything():
    """Layers with a parameter of every kind."""
    rngs = nnx.Rngs(0)
    self_attention = MultiHeadAttention(
        D, N, use_bias=True, use_sink=True, qk_norm="layer", rngs=rngs
    )
    cross_attention = MultiHeadAttention(D, N, memory_dim=12, num_kv_heads=K, rngs=rngs)
    gated = FeedForward(D, A, gated=True, rngs=rngs)
    return nnx.List(
        [
            TransformerDecoderBlock(
                self_attention, cross_attention, gated, placement="both", rngs=rngs
            ),
            Embedding(P, D, rngs=rngs),
        ]
    )


def test_every_axis_of_every_parameter_has_a_name():
    known = {name for name, _ in sharding_rules(make_mesh({"data": 8}))}
    for path, parameter in nnx.to_flat_state(nnx.state(everything())):
        assert len(parameter.out_sharding) == parameter.ndim, path
        assert set(parameter.out_sharding) <= known, path


def test_a_model_is_initialised_directly_into_its_shards():
    mesh = make_mesh(MESHES["all three"])
    graph, abstract = nnx.split(nnx.eval_shape(everything))
    parameters, _ = placements(abstract, mesh)
    made = jax.jit(lambda: nnx.state(everything()), out_shardings=parameters)()
    for leaf, whole in zip(*map(jax.tree.leaves, (made, nnx.state(everything()))), strict=True):
        np.testing.assert_array_equal(jax.device_get(leaf), whole)
    table = nnx.merge(graph, made)[1].table.get_value()
    assert table.sharding.spec == PartitionSpec("tensor", "fsdp")
    assert table.addressable_shards[0].data.shape == (P // 2, D // 2)


def test_the_optimiser_state_is_sharded_like_the_parameters():
    mesh, stack = make_mesh(MESHES["all three"]), Stack(nnx.Rngs(0))
    optimiser = nnx.Optimizer(stack, optax.adam(1e-3), wrt=nnx.Param)
    parameters, _ = placements(STATE, mesh)
    moments, _ = placements(nnx.state(optimiser), mesh)
    for moment in ("mu", "nu"):
        one = jax.tree.leaves(moments["opt_state"][0][moment])
        assert one == jax.tree.leaves(parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_embedding_is_split_by_its_vocabulary(kind):
    def loss(state, tokens):
        embedding = nnx.merge(graph, state)
        return jnp.sum(jax.nn.log_softmax(embedding.attend(embedding(tokens))) ** 2)

    graph, state = nnx.split(Embedding(P, D, rngs=nnx.Rngs(0)))
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, P, (B, T)))
    wanted = jax.grad(loss)(state, tokens)["table"].get_value()
    parameters, batch = placements(state, make_mesh(MESHES["all three"], kind))
    placed = jax.device_put(state, parameters), jax.device_put(tokens, batch)
    got = jax.device_get(jax.jit(jax.grad(loss))(*placed)["table"].get_value())
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_does_not_depend_on_the_mesh(kind):
    rngs = nnx.Rngs(0)
    parts = MultiHeadAttention(D, N, dropout_rate=0.5, rngs=rngs), FeedForward(D, A, rngs=rngs)
    graph, state = nnx.split(TransformerEncoderBlock(*parts, dropout_rate=0.5, rngs=rngs))

    def call(state, x, rng):
        return nnx.merge(graph, state)(x, rng=rng)

    wanted = call(state, X, jax.random.key(3))
    parameters, batch = placements(state, make_mesh(MESHES["data and tensor"], kind))
    placed = jax.device_put(state, parameters), jax.device_put(X, batch)
    got = jax.device_get(jax.jit(call)(*placed, jax.random.key(3)))
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_fewer_key_heads_than_devices_are_replicated_on_request():
    mesh = make_mesh({"tensor": 8})
    parameters, tokens = placements(STATE, mesh)
    with pytest.raises(ValueError, match="evenly divide"):
        jax.device_put(STATE, parameters)
    parameters, tokens = placements(STATE, mesh, kv_heads=None)
    step = jax.jit(forward_and_gradient, out_shardings=(tokens, parameters))
    placed = jax.device_put((X, COTANGENT), tokens)
    assert_as_on_one_device(step(jax.device_put(STATE, parameters), *placed))


@pytest.mark.parametrize(
    ("sizes", "overrides", "message"),
    [
        ({"x": 8}, {}, "mesh has the axes"),
        ({"data": 8}, {"width": "data"}, "width is no logical axis"),
    ],
)
def test_impossible_sharding_rules_are_refused(sizes, overrides, message):
    with pytest.raises(ValueError, match=message):
        sharding_rules(make_mesh(sizes), **overrides)
