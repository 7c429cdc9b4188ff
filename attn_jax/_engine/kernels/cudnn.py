"""NVIDIA's fused kernel, by way of `jax.nn`, for the calls that it can honour exactly.

Output and first gradients are the kernel's; log-sum-exp, forward mode and all higher derivatives
are those of the tile engine, so every transform goes through. What the kernel cannot honour, or is
known to get wrong somewhere, is refused with the reason.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax import masks
from attn_jax._base import concrete, young_jax
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Work
from attn_jax._engine.fold import Plan
from attn_jax._engine.online_softmax import online_softmax
from attn_jax._engine.primitive import Primitive
from attn_jax._engine.tile import Read

_KERNEL = "cudnn"  # what `jax.nn` calls it
_WIDEST = {8: 128, 9: 256}  # head by compute capability, as jax checks it
_DTYPES = (jnp.bfloat16, jnp.float16)
_TILE = 128


def refuses(call: Call) -> str | None:
    """Why the kernel cannot honour a call exactly, and what would help; None where it can."""
    reasons = [*_device_reasons(call.query.shape[1]), *_option_reasons(call), *_shape_reasons(call)]
    return "; ".join(reasons) or None


def attend(call: Call) -> tuple[Float[Array, "T V"], Float[Array, " T"]]:
    """Output in the query's dtype, and log-sum-exp.

    The kernel scales by 1/√H; another scale goes into the query before, and rounds it once. The
    log-sum-exp that `jax.nn` returns is rounded to the query's dtype, so it is summed anew where a
    caller uses it.
    """
    wide = call.query.astype(call.scale.dtype)
    query = (wide * (call.scale * math.sqrt(wide.shape[1]))).astype(call.query.dtype)
    is_causal = call.mask is not None
    out = _Attention.on(query, call.key, call.value, is_causal=is_causal, depth=0)
    nothing = jnp.zeros_like(call.value[:, :1])
    _, logsumexp = _read_by_tiles(call.query, call.key, nothing, call.scale, is_causal=is_causal)
    return out, logsumexp


def work(call: Call, heads: int) -> Work:
    """All pairs, or those that a causal query may read: what tiles the kernel has is its own."""
    del heads
    T, S = call.query.shape[0], call.key.shape[0]
    pairs = T * S if call.mask is None else T * (T + 1) // 2
    return Work(jnp.ones((1, 1), bool), pairs=pairs)


def _device_reasons(H: int) -> Iterator[str]:
    capability = _capability()
    if capability is None:
        yield f"the platform is {jax.default_backend()}, and it needs an NVIDIA GPU"
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
    if call.query.dtype not in _DTYPES:
        yield f"the dtype is {call.query.dtype}, and it takes bfloat16 or float16"
    if call.score is not None:
        yield "score is given, and it knows the dot product alone"
    if call.score_mod is not None:
        yield "bias or score_mod is given, and it takes the logits as they are"
    if call.mask is not None and not (call.mask == masks.causal() and call.in_order):
        yield (
            "the mask is not causal() alone on positions 0, 1, 2, …, and it is given no documents, "
            "arrays, lengths, windows or positions"
        )
    if call.dropout is not None:
        yield "dropout_rate is given, and its random bits are not those of dropout_mask"


def _shape_reasons(call: Call) -> Iterator[str]:
    (T, H), (S, V) = call.query.shape, call.value.shape
    if V != H:
        yield f"values are {V} wide and queries {H}, and it takes one width"
    if not concrete.are_numbers(T, S) or T % _TILE or S % _TILE or not T or not S:
        yield (
            f"there are {T} queries and {S} keys, and it is given whole tiles of {_TILE} only: its "
            "gradients were NaN in part of one (pytorch#196678, cudnn-frontend#1072)"
        )


def _capability() -> int | None:
    """The major compute capability of the GPU, or None where there is none of NVIDIA's."""
    if jax.default_backend() not in ("gpu", "cuda"):
        return None
    found = re.match(r"(\d+)\.", str(getattr(jax.local_devices()[0], "compute_capability", "")))
    return int(found[1]) if found else None


class _Kernel(Primitive):
    """What the kernel computes and the tile engine differentiates.

    Arrays have `depth` axes in front, one for each `vmap`, of size 1 where they are shared.
    """

    depth: int
    is_causal: bool

    def __init__(self, in_avals: tuple, **params):
        self.in_avals = in_avals
        self.params = params
        self.__dict__.update(params)
        out = jax.eval_shape(self.by_tiles, *in_avals)
        self.out_aval = jax.tree.map(jax.typeof, out)
        super().__init__()

    @classmethod
    def on(cls, *arrays: Array, **params) -> Any:
        return cls(tuple(map(jax.typeof, arrays)), **params)(*arrays)

    def by_tiles(self, *args):
        """The same function of the same arguments, with derivatives of every order."""
        raise NotImplementedError

    def batch(self, axis_data, args, dims):
        front = [
            jnp.expand_dims(array, 0) if axis is None else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(args, dims, strict=True)
        ]
        out = self.on(*front, **self.params | {"depth": self.depth + 1})
        return out, jax.tree.map(lambda _: 0, out)

    def jvp(self, primals, tangents):
        _, moved = jax.jvp(self.by_tiles, primals, _written_out(tangents))
        return self(*primals), moved

    lin, linearized = young_jax.linearize_from_jvp

    def vjp_fwd(self, nzs_in, /, *args):
        return self(*args), args

    def vjp_bwd_retval(self, res, outgrad, /):
        _, pull = jax.vjp(self.by_tiles, *res)
        return pull(_written_out(outgrad))


class _Attention(_Kernel):
    """Output [*L T H] of query [*L T H], key and value [*L S H]."""

    def expand(self, *args):
        return _by_kernel(*args, depth=self.depth, is_causal=self.is_causal)

    def by_tiles(self, *args):
        return _by_tiles(*args, depth=self.depth, is_causal=self.is_causal)

    def vjp_bwd_retval(self, res, outgrad, /):
        cotangent = _written_out(outgrad)
        return _Gradients.on(*res, cotangent, own=self.depth, **self.params)


class _Gradients(_Kernel):
    """Gradients of query, key and value, given them and the cotangent of the output.

    The last `own` leading axes are those of the read, over which what is shared sums its gradient;
    the axes before came by `vmap` of the gradient, and have one gradient an entry.
    """

    own: int

    def expand(self, *args):
        added = self.depth - self.own
        each = jnp.broadcast_shapes(*(array.shape[:added] for array in args))
        args = [jnp.broadcast_to(array, each + array.shape[added:]) for array in args]
        *operands, cotangent = args
        read = functools.partial(_by_kernel, depth=self.depth, is_causal=self.is_causal)
        return jax.vjp(read, *operands)[1](cotangent)

    def by_tiles(self, *args):
        def gradients(query, key, value, cotangent):
            read = functools.partial(_by_tiles, depth=self.own, is_causal=self.is_causal)
            return jax.vjp(read, query, key, value)[1](cotangent)

        return _map_leading(gradients, self.depth - self.own)(*args)


def _by_kernel(query: Array, key: Array, value: Array, *, depth: int, is_causal: bool) -> Array:
    """Folds the leading axes into the kernel's own: B T N H, with N/K queries a key head.

    Axes that keys and values share become groups of query heads, the last of the others key heads,
    the rest the batch. So nothing is repeated that was shared, and `vmap` never meets the batching
    rule of jax for this kernel, which merges axes by the shape of another operand.
    """
    leading = jnp.broadcast_shapes(*(array.shape[:depth] for array in (query, key, value)))
    groups = [axis for axis in range(depth) if key.shape[axis] == value.shape[axis] == 1]
    others = [axis for axis in range(depth) if axis not in groups]
    order = (*others[:-1], depth, *others[-1:], *groups, depth + 1)

    def fold(array: Array, sizes: tuple[int, ...]) -> Array:
        array = jnp.broadcast_to(array, sizes + array.shape[depth:]).transpose(order)
        batch, heads = len(others[:-1]), array.shape[len(others[:-1]) + 1 : -1]
        lengths = (math.prod(array.shape[:batch]), array.shape[batch], math.prod(heads))
        return array.reshape(*lengths, array.shape[-1])

    shared = tuple(1 if axis in groups else size for axis, size in enumerate(leading))
    out, _ = jax.nn.dot_product_attention(
        fold(query, leading),
        fold(key, shared),
        fold(value, shared),
        is_causal=is_causal,
        implementation=_KERNEL,
        return_residual=True,  # as its gradient asks for: one call serves both
    )
    sizes = (*leading, *query.shape[depth:])
    out = out.reshape([sizes[axis] for axis in order])
    return out.transpose([order.index(axis) for axis in range(depth + 2)])


def _by_tiles(query: Array, key: Array, value: Array, *, depth: int, is_causal: bool) -> Array:
    """The same by the tile engine."""

    def head(query, key, value):
        scale = jnp.float32(1 / math.sqrt(query.shape[1]))
        out, _ = _read_by_tiles(query, key, value, scale, is_causal=is_causal)
        return out.astype(query.dtype)

    return _map_leading(head, depth)(query, key, value)


def _read_by_tiles(query, key, value, scale, *, is_causal: bool) -> tuple[Array, Array]:
    """Output and log-sum-exp in float32 of one head."""
    i, j = (jnp.arange(rows.shape[0], dtype=jnp.int32) for rows in (query, key))
    read = Read(
        query=Table(query, "query"),
        key=Table(key, "key"),
        value=Table(value, "key"),
        query_position=Table(i, "query"),
        key_position=Table(j, "key"),
        scale=scale,
        score=None,
        score_mod=None,
        dropout=None,
        product_dtype=str(query.dtype),
    )
    out, logsumexp = online_softmax(Plan(masks.causal() if is_causal else None, i, j), read)
    return out.values, logsumexp.values


def _map_leading(function: Callable, depth: int) -> Callable:
    """Maps over `depth` leading axes; one of size 1 is shared by all."""
    if depth == 0:
        return function
    inner = _map_leading(function, depth - 1)

    def mapped(*arrays):
        axes = tuple(None if array.shape[0] == 1 else 0 for array in arrays)
        arrays = [array[0] if array.shape[0] == 1 else array for array in arrays]
        if all(axis is None for axis in axes):
            return jax.tree.map(lambda leaf: leaf[None], inner(*arrays))
        return jax.vmap(inner, in_axes=axes)(*arrays)

    return mapped


def _written_out(changes: Any) -> Any:
    """Tangents or cotangents with symbolic zeros as arrays."""

    def is_zero(change):
        return isinstance(change, young_jax.Zero)

    return jax.tree.map(
        lambda change: young_jax.instantiate_zeros(change) if is_zero(change) else change,
        changes,
        is_leaf=is_zero,
    )
