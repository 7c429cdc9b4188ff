"""NVIDIA's fused kernel, by way of `jax.nn`, for the calls that it can honour exactly.

Output and first gradients come from the kernel, log-sum-exp from a sum over tiles. The kernel
refuses what it cannot compute exactly, or is known to get wrong, with the reason.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attn_jax import masks
from attn_jax._base import concrete
from attn_jax._base.axes import Axes, Layout, fit, in_front, map_levels
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine import online_softmax
from attn_jax._engine.call import Call, Operands, Pairs, Work
from attn_jax._engine.online_softmax import Residuals

_KERNEL = "cudnn"  # what `jax.nn` calls it
_WIDEST = {8: 128, 9: 256}  # head by compute capability, as jax checks it
_DTYPES = (jnp.bfloat16, jnp.float16)
_TILE = 128
divided_by = "kernel"


def refuses(call: Call, platform: str | None) -> str | None:
    """Why the kernel cannot compute a call exactly; None where it can."""
    H = call.operands.query.values.shape[1]
    device = () if platform is None else _device_reasons(H, platform)
    return "; ".join([*device, *_option_reasons(call), *_shape_reasons(call)]) or None


def forward(call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
    """Output and log-sum-exp, both in the accumulation dtype.

    The log-sum-exp that `jax.nn` returns is rounded to the query's dtype, so it is summed anew; the
    compiler removes that sum from a program that does not use it.
    """
    pairs, operands = call
    is_causal, axes = pairs.mask is not None, layout.inputs[1]
    arrays, own = _arrays(operands), _arrays(axes)
    out = _by_kernel(arrays, own, layout.outputs[0].values, layout.sizes, is_causal=is_causal)
    S = operands.key.values.shape[own[1].core(operands.key.values.ndim)[0]]
    nothing = Table(jnp.zeros((S, 1), operands.value.values.dtype), "key")
    shared = Table(Axes((None,) * len(layout.sizes)), "key")
    keys = Call(pairs, dataclasses.replace(operands, value=nothing))
    inputs = layout.inputs[0], dataclasses.replace(axes, value=shared)
    _, logsumexp = online_softmax.forward(keys, layout._replace(inputs=inputs), tile)
    return Table(out.astype(operands.scale.dtype), "query"), logsumexp


def backward(
    pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
) -> Operands:
    """The gradients that are wanted, and None for the others."""
    is_causal, (_, axes) = pairs.mask is not None, layout.inputs
    operands, to = residuals.operands, _arrays(layout.outputs)
    own = tuple(map(_with_levels_of, _arrays(axes.operands), to))
    sides = zip(_arrays(operands), _arrays(axes.operands), own, strict=True)
    arrays = [_spread(array, given, wide, layout.sizes) for array, given, wide in sides]
    out_axes = axes.d_out.values
    full = out_axes.like(residuals.d_out.values.ndim, 2)

    def attend(*arrays: Array) -> Array:
        return _by_kernel(arrays, own, full, layout.sizes, is_causal=is_causal)

    out, pull = jax.vjp(attend, *arrays)
    d_out = residuals.d_out.values.astype(out.dtype)
    each = pull(_spread(d_out, out_axes, full, layout.sizes))
    query, key, value, scale = map(fit, each, own, to)
    found = dataclasses.replace(
        operands,
        query=Table(query, "query"),
        key=Table(key, "key"),
        value=Table(value, "key"),
        scale=scale,
    )
    if residuals.d_logsumexp.values is None:
        return found
    alone = residuals._replace(d_out=jax.tree.map(jnp.zeros_like, residuals.d_out))
    return jax.tree.map(jnp.add, found, online_softmax.backward(pairs, alone, layout, wanted))


def work(call: Call, heads: int, platform: str) -> Work:
    """All pairs, or those that a causal mask leaves; the tiles of the kernel are not known."""
    del heads, platform
    T, S = call.sizes
    pairs = T * S if call.pairs.mask is None else T * (T + 1) // 2
    return Work(jnp.ones((1, 1), bool), pairs_per_tile=pairs)


def _device_reasons(H: int, platform: str) -> Iterator[str]:
    capability = _capability(platform)
    if capability is None:
        yield f"the platform is {platform}, and it needs an NVIDIA GPU"
    elif capability not in _WIDEST:
        yield (
            f"the GPU has compute capability {capability}.x, and it is used on 8.x and 9.x only: "
            "older ones lack the kernel, newer ones were wrong with few key/value heads "
            "(pytorch#193893)"
        )
    widest = _WIDEST.get(capability or 0, max(_WIDEST.values()))
    if H % 8 or not 0 < H <= widest:
        yield f"heads are {H} wide, and it takes multiples of 8 up to {widest}"


def _option_reasons(call: Call) -> Iterator[str]:
    pairs, operands = call
    if operands.query.values.dtype not in _DTYPES:
        yield f"the dtype is {operands.query.values.dtype}, and it takes bfloat16 or float16"
    if operands.score is not None:
        yield "score is given, and it knows the dot product alone"
    if operands.score_mod is not None:
        yield "bias or score_mod is given, and it takes the logits as they are"
    if pairs.mask is not None and not (pairs.mask == masks.causal() and pairs.in_order):
        yield (
            "the mask is not causal() alone on positions 0, 1, 2, …, and it is given no documents, "
            "arrays, lengths, windows or positions"
        )
    if operands.dropout is not None:
        yield "dropout_rate is given, and its random bits are not those of dropout_mask"


def _shape_reasons(call: Call) -> Iterator[str]:
    (T, S), H, V = (
        call.sizes,
        call.operands.query.values.shape[1],
        call.operands.value.values.shape[1],
    )
    if V != H:
        yield f"values are {V} wide and queries {H}, and it takes one width"
    if not concrete.are_numbers(T, S) or T % _TILE or S % _TILE or not T or not S:
        yield (
            f"there are {T} queries and {S} keys, and it is given whole tiles of {_TILE} only: its "
            "gradients were NaN in part of one (pytorch#196678, cudnn-frontend#1072)"
        )


def _capability(platform: str) -> int | None:
    """The major compute capability of the GPU, or None where there is none of NVIDIA's."""
    if platform not in ("gpu", "cuda") or jax.default_backend() not in ("gpu", "cuda"):
        return None
    found = re.match(r"(\d+)\.", str(getattr(jax.local_devices()[0], "compute_capability", "")))
    return int(found[1]) if found else None


def _arrays(operands: Operands) -> tuple[Any, Any, Any, Any]:
    """The operands of the kernel: query, key, value and scale, or their axes."""
    return operands.query.values, operands.key.values, operands.value.values, operands.scale


def _with_levels_of(own: Axes, to: Axes | None) -> Axes:
    """The axes of an operand while its gradient is computed: `to`, or all, to be summed."""
    if to is None:
        return own
    lacks = any(t is None and a is not None for t, a in zip(to.at, own.at, strict=True))
    return in_front(len(own.at)) if lacks else to


def _spread(array: Array, own: Axes, to: Axes, sizes: tuple[int, ...]) -> Array:
    """An array with the vmapped axes of `to`: repeated along those that it lacked."""
    return map_levels(lambda core: core, (own,), to, sizes)(array)


def _by_kernel(
    arrays: tuple[Array, ...],
    axes: tuple[Axes, ...],
    out_axes: Axes,
    sizes: tuple[int, ...],
    *,
    is_causal: bool,
) -> Array:
    """Folds all levels into the kernel's own axes: B T N H, with N/K queries a key head.

    Levels that keys and values share become groups of query heads, the innermost of the others key
    heads, the rest the batch; so nothing is repeated that was shared. The kernel scales by 1/√H;
    another scale goes into the query before, and rounds it once.
    """
    (query, key, value, scale), levels = arrays, len(sizes)
    groups = [n for n in range(levels) if axes[1].at[n] is None and axes[2].at[n] is None]
    others = [n for n in range(levels) if n not in groups]
    batch, heads = others[:0:-1], [*others[:1], *groups]

    def folded(array: Array, own: Axes, shared: list[int]) -> Array:
        full = tuple(1 if n in shared else size for n, size in enumerate(sizes))
        array = _spread(array, own, in_front(levels), full)
        front = [[levels - 1 - n for n in of] for of in (batch, heads)]
        array = array.transpose(*front[0], levels, *front[1], levels + 1)
        B, N = (math.prod(full[n] for n in of) for of in (batch, heads))
        return array.reshape(B, array.shape[len(batch)], N, array.shape[-1])

    out, _ = jax.nn.dot_product_attention(
        folded(_scaled(query, scale, axes, sizes), in_front(levels), []),
        folded(key, axes[1], groups),
        folded(value, axes[2], groups),
        is_causal=is_causal,
        implementation=_KERNEL,
        return_residual=True,  # as its gradient asks for: one call serves both
    )
    return _unfolded(out, batch, heads, sizes, out_axes)


def _scaled(query: Array, scale: Array, axes: tuple[Axes, ...], sizes: tuple[int, ...]) -> Array:
    """The query times what the kernel's own scale lacks, with all levels in front."""

    def one(query: Array, scale: Array) -> Array:
        factor = scale * math.sqrt(query.shape[1])
        return (query.astype(scale.dtype) * factor).astype(query.dtype)

    return map_levels(one, (axes[0], axes[3]), in_front(len(sizes)), sizes)(query, scale)


def _unfolded(
    out: Array, batch: list[int], heads: list[int], sizes: tuple[int, ...], axes: Axes
) -> Array:
    """[B T N H] with the axes that a layout wants."""
    _, T, _, H = out.shape
    out = out.reshape(*(sizes[n] for n in batch), T, *(sizes[n] for n in heads), H)
    order = [*batch, None, *heads]
    return fit(out, Axes(tuple(order.index(n) for n in range(len(sizes)))), axes)
