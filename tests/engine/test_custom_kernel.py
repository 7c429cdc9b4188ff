"""A new kernel is one class: here one of Pallas, in interpret mode, added to the engine's table.

It has no rule for `vmap` or derivatives. Still every transform has the right numbers, and the
forward and backward passes are those of the kernel.
"""

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn_jax
from attn_jax._base.axes import Axes, fit, in_front, map_levels
from attn_jax._base.tables import Table
from attn_jax._engine import dispatch, partition
from attn_jax._engine.call import Work
from attn_jax._engine.tile_sum import where_wanted
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close

B, T, S, N, K, H, V = 2, 5, 7, 6, 3, 4, 8


class ToyKernel:
    """Plain attention: one head per grid step, all its pairs at once."""

    divided_by = "engine"

    def __init__(self):
        self.passes = []
        self.heads = []

    def refuses(self, call, platform):
        del platform
        options = {"mask": call.pairs.mask, "score_mod": call.operands.score_mod}
        given = [name for name, option in options.items() if option is not None]
        return f"{given[0]} is given" if given else None

    def forward(self, call, layout, tile):
        del tile
        self.passes.append("forward")
        self.heads.append(math.prod(layout.sizes))
        arrays = [*_folded(call.operands, layout.inputs[1], layout.sizes)]
        L, rows, width = *arrays[0].shape[:2], arrays[2].shape[2]
        shapes = _shapes(arrays[0].dtype, (L, rows, width), (L, 1, rows))
        out, logsumexp = _call_with_one_head_per_grid_step(_forward, arrays, shapes)
        out_axes, row_axes = layout.outputs
        results = (
            _one_as_batch_axes(out, out_axes.values, layout),
            _one_as_batch_axes(logsumexp[:, 0], row_axes.values, layout),
        )
        return tuple(Table(values, "query") for values in results)

    def backward(self, pairs, residuals, layout, wanted):
        del pairs
        self.passes.append("backward")
        self.heads.append(math.prod(layout.sizes))
        assert residuals.d_logsumexp.values is None, "the toy knows no such cotangent"
        given, own = residuals.operands, layout.inputs[1]
        arrays = [*_folded(given, own.operands, layout.sizes)]
        arrays.append(_batch_axes_as_one(residuals.d_out.values, own.d_out.values, layout.sizes))
        shapes = _shapes(arrays[0].dtype, *(array.shape for array in arrays[:3]))
        found = _call_with_one_head_per_grid_step(_backward, arrays, shapes)
        tables = {}
        for name, values in zip(("query", "key", "value"), found, strict=True):
            over, axes = getattr(given, name).over, getattr(layout.outputs, name).values
            tables[name] = Table(
                None if axes is None else _one_as_batch_axes(values, axes, layout), over
            )
        return dataclasses.replace(where_wanted(wanted, given), **tables)

    def work(self, call, heads, platform):
        del heads, platform
        return Work(jnp.ones((1, 1), bool), pairs_per_tile=math.prod(call.sizes))


def _folded(given, axes, sizes):
    """Query, key and value as [heads L width], the scale in the query."""
    for name in ("query", "key", "value"):
        yield _batch_axes_as_one(getattr(given, name).values, getattr(axes, name).values, sizes)


def _batch_axes_as_one(array, axes, sizes):
    """All vmapped axes in front, as one axis; shared arrays are repeated."""
    array = map_levels(lambda core: core, (axes,), in_front(len(sizes)), sizes)(array)
    return array.reshape(math.prod(sizes), *array.shape[len(sizes) :])


def _one_as_batch_axes(array, axes, layout):
    levels = layout.sizes[::-1]
    return fit(array.reshape(*levels, *array.shape[1:]), in_front(len(levels)), axes)


def _shapes(dtype, *shapes):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def _call_with_one_head_per_grid_step(kernel, arrays, shapes):
    def block(array):
        return pl.BlockSpec((1, *array.shape[1:]), lambda n: (n, 0, 0))

    return pl.pallas_call(
        kernel,
        shapes,
        grid=(arrays[0].shape[0],),
        in_specs=[block(array) for array in arrays],
        out_specs=[block(shape) for shape in shapes],
        interpret=True,
    )(*arrays)


def _head(query, key, value):
    logits = jnp.dot(query, key.T, precision="highest") / math.sqrt(query.shape[1])
    logsumexp = jax.nn.logsumexp(logits, axis=1)
    weights = jnp.exp(logits - logsumexp[:, None])
    return jnp.dot(weights, value, precision="highest"), logsumexp


def _forward(query, key, value, out, logsumexp):
    out[0], logsumexp[0, 0] = _head(query[0], key[0], value[0])


def _backward(query, key, value, d_out, d_query, d_key, d_value):
    _, pull = jax.vjp(lambda *rows: _head(*rows)[0], query[0], key[0], value[0])
    d_query[0], d_key[0], d_value[0] = pull(d_out[0])


@pytest.fixture
def toy(monkeypatch, no_type_hook):  # the hook allows the names of our own kernels only
    kernel = ToyKernel()
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


def test_inside_of_shard_map_it_is_called_as_it_is(toy):
    arrays = rows()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    mapped = jax.shard_map(
        partial(gradients, attention("toy")),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=False,  # a Pallas call would have to tell over which axes its results vary
    )
    for one, wanted in zip(
        mapped(*arrays), gradients(attention("reference"), *arrays), strict=True
    ):
        assert_close(one, wanted, gradient=True, roundings=2)
    assert toy.heads == [N, N]


def test_the_refusal_names_the_argument_and_explain_gives_the_reason(toy):
    query, key, value = rows()
    with pytest.raises(NotImplementedError, match="'toy' cannot take this call: mask is given"):
        attention("toy")(query, query, query, is_causal=True)
    seen = attn_jax.explain(query, key, value, implementation="toy")
    assert seen.implementation == "toy"
    assert attn_jax.explain(query, key, value).others["toy"] == "not chosen: it is a toy"
    assert not [name for name in toy.passes if name == "backward"]
