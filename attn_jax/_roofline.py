"""How long attention would take on a chip, predicted from what it must compute and move.

Williams, Waterman & Patterson, "Roofline" (2009), https://doi.org/10.1145/1498765.1498785. Nothing
here is measured. A kernel has four kinds of work: matmuls, bytes from memory, operations of the
vector unit, and exponentials. If all overlap, the slowest kind is the time.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from attn_jax._base.grid import TileShape
from attn_jax._block_mask import block_mask
from attn_jax._engine import tpu_tiles
from attn_jax._rule_cost import cost_of_mask, cost_of_score_mod

FORWARD_OPERATIONS = 8
"""Assumed operations of the vector unit for each pair in the forward pass.

Maximum, subtraction, sum, conversion to bfloat16, and four more that move matmul results through
the registers. The scale is part of the query, and exp is exp2.
"""
GRADIENT_OPERATIONS = 10
"""The same for each of the two gradient kernels; both compute the weights again."""


class Chip(NamedTuple):
    """What a device of JAX computes and moves in a second.

    `streams` says whether a tile's rows come from memory each time that they are read, as on a TPU,
    or only the first time, as on a GPU with its cache.
    """

    matmul_flops: float
    bandwidth: float
    vector_operations: float
    exponentials: float
    streams: bool


_PER_CYCLE = 8 * 128  # lanes of a TPU's vector unit


def _tpu(matmul_flops: float, bandwidth: float, clock: float) -> Chip:
    """A TPU core; four operations a cycle in each lane, and one exponential (assumed).

    The vector unit is described in https://jax-ml.github.io/scaling-book/tpus, appendix C.
    """
    return Chip(matmul_flops, bandwidth, 4 * _PER_CYCLE * clock, _PER_CYCLE * clock, streams=True)


CHIPS = {
    # https://docs.cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16, 819 GB/s. 1.5 GHz:
    # https://jax-ml.github.io/scaling-book/tpus.
    "v5e": _tpu(197e12, 819e9, 1.5e9),
    # https://docs.cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 1640 GB/s. The clock is assumed: that
    # at which four units of 256×256 reach these FLOP/s.
    "v6e": _tpu(918e12, 1640e9, 1.75e9),
    # https://docs.cloud.google.com/tpu/docs/tpu7x: 2307 TFLOP/s, 7380 GB/s for two cores, each a
    # device of JAX. The clock is assumed as for v6e.
    "tpu7x": _tpu(2307e12 / 2, 7380e9 / 2, 2.2e9),
    # https://resources.nvidia.com/en-us-tensor-core, H100 SXM: 989 TFLOP/s, 3350 GB/s, 132
    # multiprocessors with 128 units, and https://arxiv.org/abs/2407.08608, section 2.2: 3.9 T
    # exponentials a second. The clock that fits both is 1.83 GHz.
    "H100": Chip(989e12, 3350e9, 132 * 128 * 1.83e9, 3.9e12, streams=False),
}


class Widths(NamedTuple):
    """How many arrays, or matmuls, are as wide as the query, and how many as the value."""

    of_query: int
    of_value: int

    def times(self, head_dim: int, value_dim: int) -> int:
        return self.of_query * head_dim + self.of_value * value_dim


@dataclasses.dataclass(frozen=True)
class Pass:
    """One kernel: it goes through rows (or columns) of tiles, and reads the other side's rows.

    `matmuls` are those of a pair. The arrays in `whole` are read or written once, those in
    `streamed` once for each tile; `pair_bytes` are read for each pair of a tile.
    """

    name: str
    over_queries: bool
    matmuls: Widths
    whole: Widths
    streamed: Widths
    operations: int
    has_gradients: bool = True
    masks_full_tiles: bool = False
    pair_bytes: int = 0


FORWARD = Pass(
    "forward",
    over_queries=True,
    matmuls=Widths(1, 1),
    whole=Widths(1, 1),  # query, output
    streamed=Widths(1, 1),  # key, value
    operations=FORWARD_OPERATIONS,
    has_gradients=False,
)
BY_QUERY = Pass(
    "by query",
    over_queries=True,
    matmuls=Widths(2, 1),
    whole=Widths(2, 1),  # query and its gradient, cotangent
    streamed=Widths(1, 1),  # key, value
    operations=GRADIENT_OPERATIONS,
)
BY_KEY = Pass(
    "by key",
    over_queries=False,
    matmuls=Widths(2, 2),
    whole=Widths(2, 2),  # key and value, and their gradients
    streamed=Widths(1, 1),  # query, cotangent
    operations=GRADIENT_OPERATIONS,
)


type Count = Any  # an int, or a number of JAX in a traced program


class Tiles(NamedTuple):
    """How many tiles a kernel visits, how many of them are partial, and their shape."""

    visited: Count
    partial: Count
    shape: TileShape

    @property
    def pairs(self) -> Count:
        return self.visited * self.shape.queries * self.shape.keys


def tiles_of(mask: Any, T: int, S: int, shape: TileShape) -> Tiles:
    """Counts the tiles that a mask leaves, as `block_mask` finds them; None: all, and all full."""
    if mask is None:
        return Tiles(-(-T // shape.queries) * -(-S // shape.keys), 0, shape)
    lists = block_mask(mask, T, S, tile=shape).lists
    full, partial = int(np.sum(lists.full)), int(np.sum(lists.partial))
    return Tiles(full + partial, partial, shape)


class Work(NamedTuple):
    """What a kernel computes and moves for one head."""

    flops: float = 0
    bytes_moved: float = 0
    operations: float = 0
    exponentials: float = 0

    def __add__(self, other: tuple) -> "Work":  # not that of tuples
        return Work(*map(sum, zip(self, other, strict=True)))


class Call(NamedTuple):
    """One head of an attention call."""

    T: int
    S: int
    head_dim: int
    value_dim: int
    itemsize: int
    mask: Any = None
    score_mod: Any = None


def work_of(kernel: Pass, call: Call, tiles: Tiles, *, streams: bool) -> Work:
    """What one kernel computes and moves for one head."""
    t, s = tiles.shape
    widths = call.head_dim, call.value_dim
    own, other = (call.T, call.S) if kernel.over_queries else (call.S, call.T)
    rows = tiles.visited * (s if kernel.over_queries else t) if streams else other
    numbers = own * kernel.whole.times(*widths) + rows * kernel.streamed.times(*widths)
    mod = cost_of_score_mod(call.score_mod, has_gradients=kernel.has_gradients)
    masked = tiles.visited if kernel.masks_full_tiles else tiles.partial
    for_mask = cost_of_mask(call.mask).operations * masked * t * s
    return Work(
        flops=2 * tiles.pairs * kernel.matmuls.times(*widths),
        bytes_moved=call.itemsize * numbers + kernel.pair_bytes * tiles.pairs,
        operations=tiles.pairs * (kernel.operations + mod.operations) + for_mask,
        exponentials=tiles.pairs * (1 + mod.transcendental),
    )


class Prediction(NamedTuple):
    """Predicted seconds for each kind of work; nothing was measured."""

    matrix: float
    memory: float
    vector: float
    exponential: float

    @property
    def seconds(self) -> float:
        """The time if all kinds of work overlap: that of the slowest."""
        return max(self)

    @property
    def seconds_in_turns(self) -> float:
        """The time if matmuls, vector operations and exponentials take turns; copies overlap."""
        return max(self.memory, self.matrix + self.vector + self.exponential)

    @property
    def bound(self) -> str:
        """The slowest kind of work."""
        return max(self._fields, key=functools.partial(getattr, self))


def predict(chip: str, work: Work) -> Prediction:
    """The predicted time of each kind of work."""
    rates = CHIPS[chip][:4]
    return Prediction(*(amount / rate for amount, rate in zip(work, rates, strict=True)))


def tile_shape_of(chip: str, call: Call) -> TileShape:
    """The tiles of this library's kernel: the shipped table; on a GPU 128×128 (assumed)."""
    if not CHIPS[chip].streams:
        return TileShape(128, 128)
    dtype = "bfloat16" if call.itemsize == 2 else "float32"
    widths = {"head_dim": call.head_dim, "value_dim": call.value_dim}
    return tpu_tiles.shipped_tile(chip, **widths, dtype=dtype, T=call.T, S=call.S)


def predicted_seconds(chip: str, call: Call, *, backward: bool = False) -> float:
    """The predicted time of one head on a chip, if everything overlaps; nothing was measured.

    Raises:
      ValueError: the chip is unknown.
    """
    if chip not in CHIPS:
        raise ValueError(f"chip must be one of {', '.join(CHIPS)}; got {chip!r}")
    tiles = tiles_of(call.mask, call.T, call.S, tile_shape_of(chip, call))
    passes = (BY_QUERY, BY_KEY) if backward else (FORWARD,)
    streams = CHIPS[chip].streams
    work = sum((work_of(one, call, tiles, streams=streams) for one in passes), Work())
    return predict(chip, work).seconds
