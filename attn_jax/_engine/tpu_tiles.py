"""The size of tiles of a fused kernel on each TPU: assumed or predicted, not measured.

Each number of the table says where it comes from. A tile that the user measured with
`attn_jax.tune` comes before the table.
"""

from typing import NamedTuple

import jax.numpy as jnp

from attn_jax._base.grid import TileShape
from attn_jax._engine import measured_tiles

LANES = 128  # both sides of a tile are multiples of it


class _Choice(NamedTuple):
    """The side of square tiles, and the memory of one kernel: its scoped VMEM."""

    side: int
    vmem_bytes: int
    raises_limit: bool = False


_MIB = 2**20
_CHOICES = {
    # Predicted by the roofline: reading keys takes no longer than matmuls from 240 queries a tile.
    # The compiler refused 1024×1024 with the default limit of 16 MiB.
    "v5e": _Choice(512, 16 * _MIB),
    # Predicted by the roofline: the same from 560 queries. The compiler took 1024×1024 with a limit
    # of 64 MiB, half of the memory.
    "v6e": _Choice(1024, 64 * _MIB, raises_limit=True),
    # Predicted by the roofline: the same from 312, 166 and 224 queries. The limit is assumed.
    "tpu7x": _Choice(512, 16 * _MIB),
    "v5p": _Choice(512, 16 * _MIB),
    "v4": _Choice(512, 16 * _MIB),
}
_UNKNOWN = _Choice(512, 16 * _MIB)  # assumed

# Assumed: arrays of one tile in float32 that the backward pass holds at the same time. It agrees
# with the compiler that 1024×1024 does not fit 16 MiB, and that 512×512 does.
_LIVE_ARRAYS = 6
_BUFFERS = 2  # rows of the next tile are copied while those of this one are used
_ROW_ARRAYS = 4  # of queries or keys: operand, cotangent, and two results

_CHIPS = {
    "TPU v4": "v4",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def present_chip() -> str | None:
    """The TPU that a program is compiled for, such as "v5e"; None if it is not a known TPU.

    Under `jax.sharding.use_abstract_mesh` it may be a chip that is not in this machine.
    """
    return _CHIPS.get(measured_tiles.device_kind("tpu") or "")


def tile_of(
    chip: str | None, *, head_dim: int, value_dim: int, dtype: str, T: int, S: int
) -> TileShape:
    """The size of tiles on a chip: the one that the user measured, else that of `shipped_tile`."""
    measured = _measured(head_dim=head_dim, value_dim=value_dim, dtype=dtype, T=T, S=S)
    if measured is not None:
        return TileShape(_within(measured.queries, T), _within(measured.keys, S))
    return shipped_tile(chip, head_dim=head_dim, value_dim=value_dim, dtype=dtype, T=T, S=S)


def shipped_tile(
    chip: str | None, *, head_dim: int, value_dim: int, dtype: str, T: int, S: int
) -> TileShape:
    """The size of tiles by the table, in multiples of 128, no larger than T and S rounded up.

    The side from the table is halved until the tile's arrays fit the memory of a kernel. An unknown
    chip (None) gets up to 512×512.
    """
    choice = _CHOICES.get(chip or "", _UNKNOWN)
    itemsize, side = jnp.dtype(dtype).itemsize, choice.side
    while side > LANES and _bytes(side, head_dim + value_dim, itemsize) > choice.vmem_bytes:
        side //= 2
    return TileShape(_within(side, T), _within(side, S))


def vmem_limit_bytes(chip: str | None) -> int | None:
    """The memory that a kernel has to ask the compiler for; None: the default is enough."""
    choice = _CHOICES.get(chip or "", _UNKNOWN)
    return choice.vmem_bytes if choice.raises_limit else None


def _measured(*, head_dim: int, value_dim: int, dtype: str, T: int, S: int) -> TileShape | None:
    """The tile that `attn_jax.tune` found on the present kind of device."""
    device = measured_tiles.device_kind("tpu")
    if device is None:
        return None
    situation = measured_tiles.Situation.of(
        "mosaic_tpu", device, dtype=dtype, widths=(head_dim, value_dim), sizes=(T, S)
    )
    return measured_tiles.tile_of(situation)


def _bytes(side: int, widths: int, itemsize: int) -> int:
    """The memory that a square tile takes in the backward pass, about."""
    sums = 4 * side * widths  # dk and dv, added up in float32
    rows = _BUFFERS * _ROW_ARRAYS * side * widths * itemsize
    return _LIVE_ARRAYS * 4 * side * side + rows + sums


def _within(side: int, length: int) -> int:
    """A multiple of 128, no greater than the side and than the length, both rounded up."""
    return LANES * -(-min(side, max(length, 1)) // LANES)
