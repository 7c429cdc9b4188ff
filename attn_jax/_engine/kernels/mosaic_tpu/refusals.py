"""Why the kernel cannot compute a call exactly."""

from collections.abc import Iterator

import jax.numpy as jnp

from attn_jax._base import concrete
from attn_jax._base.axes import unmapped
from attn_jax._engine.call import Call
from attn_jax._engine.kernels.mosaic_tpu.arrays import PRECISIONS, rules_of
from attn_jax._engine.rules import Refused

_DTYPES = (jnp.float32, jnp.bfloat16)
_WIDEST = 512
_LANES = 128


def of(call: Call) -> Iterator[str]:
    """Every reason against the kernel on a TPU."""
    yield from _of_sizes(call)
    yield from _of_options(call)
    yield from _of_rules(call)


def _of_sizes(call: Call) -> Iterator[str]:
    H, V = call.operands.query.values.shape[1], call.operands.value.values.shape[1]
    if not concrete.are_numbers(*call.sizes):
        yield "a size is a symbol of jax.export, and it needs numbers"
    if max(H, V) > _WIDEST or min(H, V) == 0:
        yield f"query and value are {H} and {V} wide, and it takes 1 to {_WIDEST}"
    tile = call.pairs.tile
    if tile is not None and any(side % _LANES for side in tile):
        yield f"the block mask has tiles of {tile[0]}×{tile[1]}, and it takes multiples of {_LANES}"


def _of_options(call: Call) -> Iterator[str]:
    operands = call.operands
    dtypes = {str(x.values.dtype) for x in (operands.query, operands.key, operands.value)}
    if not dtypes <= {str(jnp.dtype(dtype)) for dtype in _DTYPES}:
        yield f"the dtype is {', '.join(sorted(dtypes))}, and it takes float32 or bfloat16"
    if operands.score is not None:
        yield "score is given, and it knows the dot product alone"
    if operands.precision not in PRECISIONS:
        known = ", ".join(str(name) for name in PRECISIONS)
        yield f"the matmul precision is {operands.precision!r}, and it takes {known}"


def _of_rules(call: Call) -> Iterator[str]:
    try:
        rules_of(call, unmapped(tuple(call)))
    except Refused as reason:
        yield str(reason)
