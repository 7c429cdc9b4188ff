"""A new kernel is one class: here one of Pallas, in interpret mode, added to the engine's table.

It has no rule for `vmap` or derivatives. Still every transform has the right numbers, and the
forward and backward passes are those of the kernel.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from attn_jax._base.axes import Axes
from attn_jax._engine import dispatch, partition
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close
from tests.helpers.toy_kernel import ToyKernel

B, T, S, N, K, H, V = 2, 5, 7, 6, 3, 4, 8


@pytest.fixture
def toy(monkeypatch, no_type_hook):  # the hook allows the names of our own kernels only
    kernel = ToyKernel(interpret=True)
    row = dispatch.Candidate(kernel, "it is a toy")
    monkeypatch.setitem(dispatch._CANDIDATES, "toy", row)
    jax.clear_caches()
    yield kernel
    jax.clear_caches()


def attention(name):
    return partial(attn_jax.dot_product_attention, implementation=name)


def rows():
    return draw(0, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)


def loss(function, *arrays):
    return jnp.sum(jnp.sin(function(*arrays)))


def gradients(function, *arrays):
    return jax.jit(jax.grad(partial(loss, function), argnums=(0, 1, 2)))(*arrays)


def gradients_by_vmap(function, *arrays):
    """Gradients of the examples by `vmap` of a gradient."""
    return jax.vmap(jax.grad(partial(loss, function), argnums=(0, 1, 2)))(*arrays)


def of_checkpoint(function, *arrays):
    return gradients(jax.checkpoint(lambda *rows: function(*map(jnp.cos, rows))), *arrays)


PASSES = {
    "gradients": gradients,
    "vmap of a gradient": gradients_by_vmap,
    "a gradient of a checkpoint": of_checkpoint,
}


@pytest.mark.parametrize("transform", PASSES.values(), ids=PASSES)
def test_both_passes_are_those_of_the_kernel_and_each_is_traced_once(toy, transform):
    arrays = rows()
    ours = transform(attention("toy"), *arrays)
    assert sorted(toy.passes) == ["backward", "forward"]
    for one, wanted in zip(ours, transform(attention("reference"), *arrays), strict=True):
        assert_close(one, wanted, gradient=True, roundings=2)


def test_forward_mode_and_second_derivatives_are_sums_over_tiles(toy):
    arrays = rows()

    def second(function, *arrays):
        moved = jax.jvp(jax.grad(partial(loss, function)), arrays, arrays)[1]
        return moved, jax.jvp(function, arrays, arrays)[1]

    for one, wanted in zip(
        second(attention("toy"), *arrays), second(attention("reference"), *arrays), strict=True
    ):
        assert_close(one, wanted, gradient=True, roundings=2)
    assert set(toy.passes) == {"forward", "backward"}


def test_a_gradient_of_the_key_alone_is_that_of_all(toy):
    arrays = rows()
    alone = jax.jit(jax.grad(partial(loss, attention("toy")), argnums=1))(*arrays)
    assert_close(alone, gradients(attention("reference"), *arrays)[1], gradient=True, roundings=2)
    assert sorted(toy.passes) == ["backward", "forward"]


GATHERED = re.compile(r"\b(all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


@pytest.mark.parametrize(("key_heads", "gathers"), [(4, 0), (2, 2), (1, 0)])
def test_on_a_mesh_each_device_computes_the_heads_that_it_holds(toy, key_heads, gathers):
    """Key heads that several devices share have gradients that are summed over these devices.

    Gradients of two key heads on four devices are gathered: the mesh has no axis of two for heads.
    """
    mesh = jax.make_mesh((2, 4), ("data", "heads"), axis_types=(AxisType.Auto, AxisType.Auto))
    arrays = draw(1, (2, T, 4, H), (2, S, key_heads, H), (2, S, key_heads, V), dtype=jnp.float32)
    specs = [("data", None, "heads" if heads == 4 else None) for heads in (4, key_heads, key_heads)]
    sharded = [
        jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
        for array, spec in zip(arrays, specs, strict=True)
    ]
    step = jax.jit(jax.value_and_grad(partial(loss, attention("toy")), argnums=(0, 1, 2)))
    compiled = step.lower(*sharded).compile()
    assert len(GATHERED.findall(compiled.as_text())) == gathers
    assert toy.heads[-2:] == [1, 1]
    ours, wanted = compiled(*sharded), gradients(attention("reference"), *arrays)
    for one, other in zip(ours[1], wanted, strict=True):
        assert_close(one, other, gradient=True, roundings=2)


def test_gradients_of_half_precision_are_summed_over_devices_in_float32():
    gradient = jax.ShapeDtypeStruct((S, H), jnp.bfloat16)
    summed = partial(partition._summed, own=Axes((None,)), over=[("heads",)])
    jaxpr = jax.make_jaxpr(summed, axis_env=[("heads", 2)])(gradient)
    (added,) = [eqn for eqn in jaxpr.eqns if "psum" in eqn.primitive.name]
    assert [var.aval.dtype for var in added.invars] == [jnp.float32]
    assert jaxpr.out_avals[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("split", ["batch", "heads", "both", "neither"])
def test_explicit_axes_say_how_the_kernel_is_divided(toy, split, key_heads):
    """Nothing is gathered: four heads on four devices, whose axes key heads and groups share."""
    names, kind = ("data", "of_keys", "of_groups"), AxisType.Explicit
    mesh = jax.make_mesh((2, 2, 2), names, axis_types=(kind, kind, kind))
    over = {4: names[1:], 2: names[1:2], 1: None}[key_heads]
    by_batch = "data" if split in ("batch", "both") else None
    by_head = split in ("heads", "both")
    spec = PartitionSpec(by_batch, None, names[1:] if by_head else None)
    of_keys = PartitionSpec(by_batch, None, over if by_head else None)
    arrays = draw(3, (2, T, 4, H), (2, S, key_heads, H), (2, S, key_heads, V), dtype=jnp.float32)
    placed = [
        jax.device_put(array, NamedSharding(mesh, each))
        for array, each in zip(arrays, (spec, of_keys, of_keys), strict=True)
    ]
    step = jax.jit(jax.value_and_grad(partial(loss, attention("toy")), argnums=(0, 1, 2)))
    compiled = step.lower(*placed).compile()
    text = compiled.as_text()
    assert not GATHERED.findall(text)
    heads = 2 * 4 // {"batch": 2, "heads": 4, "both": 8, "neither": 1}[split]
    assert toy.heads == [heads, heads]  # custom partitioning would trace all heads first
    ours, wanted = compiled(*placed), gradients(attention("reference"), *arrays)
    for one, other, array in zip(ours[1], wanted, placed, strict=True):
        assert one.sharding.is_equivalent_to(array.sharding, one.ndim)
        assert_close(one, other, gradient=True, roundings=2)


def test_a_vmap_says_how_the_kernel_is_divided(toy):
    """By explicit axes of its arguments, or by `spmd_axis_name` along automatic ones."""
    arrays = draw(4, (4, T, H), (4, S, H), (4, S, V), dtype=jnp.float32)
    attend = partial(attn_jax.attend, implementation="toy")
    wanted = jax.vmap(partial(attn_jax.attend, implementation="reference"))(*arrays)
    for kind, options in ((AxisType.Explicit, {}), (AxisType.Auto, {"spmd_axis_name": "data"})):
        mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
        placed = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data")))
        toy.heads.clear()
        with jax.set_mesh(mesh):
            compiled = jax.jit(jax.vmap(attend, **options)).lower(*placed).compile()
        assert toy.heads == [1]
        assert not GATHERED.findall(compiled.as_text())
        assert_close(compiled(*placed), wanted, roundings=2)


def test_where_one_mesh_axis_is_automatic_the_compiler_says_how_to_divide(toy):
    kinds = (AxisType.Explicit, AxisType.Auto)
    mesh = jax.make_mesh((2, 4), ("data", "heads"), axis_types=kinds)
    arrays = draw(5, (2, T, 4, H), (2, S, 4, H), (2, S, 4, V), dtype=jnp.float32)
    placed = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data", None, "heads")))
    compiled = jax.jit(attention("toy")).lower(*placed).compile()
    assert toy.heads == [8, 1]
    assert not GATHERED.findall(compiled.as_text())
    assert_close(compiled(*placed), attention("reference")(*arrays), roundings=2)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_inside_of_shard_map_it_is_called_as_it_is(toy, kind):
    arrays = rows()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    spec = PartitionSpec("data")
    mapped = jax.shard_map(
        partial(gradients, attention("toy")),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=False,  # the interpreter of Pallas fails with it; test_tpu_compile.py has both
    )
    placed = jax.device_put(arrays, NamedSharding(mesh, spec))
    for one, wanted in zip(
        mapped(*placed), gradients(attention("reference"), *arrays), strict=True
    ):
        assert_close(one, wanted, gradient=True, roundings=2)
    assert toy.heads == [N, N]


def test_automatic_axes_on_tpus_are_a_reason_against_the_kernel(toy, monkeypatch):
    del toy
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    arrays = draw(6, (2, T, 4, H), (2, S, 4, H), (2, S, 4, V), dtype=jnp.float32)
    reasons = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        placed = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data")))
        reasons[kind] = attn_jax.explain(*placed).others["toy"]
    assert re.match("refused: .*several TPUs.*explicit.*shard_map", reasons[AxisType.Auto])
    assert reasons[AxisType.Explicit] == "not chosen: it is a toy"


def test_the_refusal_names_the_argument_and_explain_gives_the_reason(toy):
    query, key, value = rows()
    with pytest.raises(NotImplementedError, match="'toy' cannot take this call: mask is given"):
        attention("toy")(query, query, query, is_causal=True)
    seen = attn_jax.explain(query, key, value, implementation="toy")
    assert seen.implementation == "toy"
    assert attn_jax.explain(query, key, value).others["toy"] == "not chosen: it is a toy"
    assert not [name for name in toy.passes if name == "backward"]
