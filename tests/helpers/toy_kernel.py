"""A kernel of Pallas: plain attention without options. It shows what the engine does for any."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from attn_jax._base import young_jax
from attn_jax._base.axes import fit, in_front, map_levels
from attn_jax._base.sharding import vary_alike
from attn_jax._base.tables import Table
from attn_jax._engine.call import Work
from attn_jax._engine.tile_sum import where_wanted


class ToyKernel:
    """Plain attention: one head per grid step, all its pairs at once."""

    divided_by = "engine"

    def __init__(self, *, interpret=False):
        self.interpret = interpret
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
        shapes = _shapes(arrays, (L, rows, width), (L, 1, rows))
        out, logsumexp = self._call_with_one_head_per_grid_step(_forward, arrays, shapes)
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
        shapes = _shapes(arrays, *(array.shape for array in arrays[:3]))
        found = self._call_with_one_head_per_grid_step(_backward, arrays, shapes)
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

    def _call_with_one_head_per_grid_step(self, kernel, arrays, shapes):
        def block(array):
            return pl.BlockSpec((1, *array.shape[1:]), lambda n: (n, 0, 0))

        return pl.pallas_call(
            kernel,
            shapes,
            grid=(arrays[0].shape[0],),
            in_specs=[block(array) for array in arrays],
            out_specs=[block(shape) for shape in shapes],
            interpret=self.interpret,
        )(*arrays)


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


def _shapes(arrays, *shapes):
    """Types of results that vary over the manual axes over which one of the arrays does."""
    shape_like = young_jax.shapes_like(vary_alike(arrays)[0])
    return [shape_like(shape, arrays[0].dtype) for shape in shapes]


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
