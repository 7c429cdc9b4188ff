"""The size of tiles: measured on CPUs (docs/adr/0008 and 0014), assumed on accelerators.

A tile that the user measured with `attn_jax.tune` comes before both.
"""

from typing import Any

from attn_jax import masks
from attn_jax._base import concrete
from attn_jax._base.grid import TileShape
from attn_jax._engine import measured_tiles
from attn_jax._engine.call import Operands

_MOST_KEYS = 2048
_SHARED_CACHE = 32 * 2**20  # bytes that the cores of today's servers share
# The logits of one tile of all heads take at most half of that cache. They take at most an eighth
# of it where a mask compares positions (it leaves more of the smaller tiles empty), or in a loop.
_MOST_BYTES = _SHARED_CACHE // 2
_MOST_BYTES_OF_MANY = _SHARED_CACHE // 8
_SIDES = (512, 256, 128)
# On an accelerator a loop of small matmuls is slow, and there is memory for larger ones.
_MOST_BYTES_BESIDE_CPU = 512 * 2**20
_SIDE_BESIDE_CPU = 1024


def choose(
    T: int,
    S: int,
    heads: int,
    *,
    mask: Any,
    is_wide: bool,
    platform: str,
    operands: Operands | None = None,
) -> TileShape:
    """The tile that the user measured for such operands; where there is none, the library's own.

    All pairs as one tile while the logits of all heads are few, else equal smaller tiles.

    On a CPU the limit is 16 MiB, or 4 MiB and 2048 keys where the mask compares positions
    (adr/0014). Above it the side of a tile is the greatest of 512, 256 and 128 with which the
    logits of all heads take at most 4 MiB (adr/0008). Without a mask tiles have twice as many
    queries, or more keys where there are fewer queries than that. On any other platform the limit
    is 512 MiB, and a tile is 1024×1024.

    Tiles are 128×128 where the score is not the dot product (`is_wide`), and where a size is a
    symbol of `jax.export`.
    """
    if not concrete.are_numbers(T, S, heads):
        return TileShape(*(min(L, 128) if concrete.are_numbers(L) else 128 for L in (T, S)))
    is_cut = mask is not None and masks.is_aligned(mask)
    if (measured := _measured(T, S, heads, operands, platform, is_cut)) is not None:
        return TileShape(_even_part(T, measured.queries), _even_part(S, measured.keys))
    if not is_wide and 4 * heads * T * S <= _most_bytes(S, is_cut, platform):
        return TileShape(T, S)
    side = 128 if is_wide else _side(heads, platform)
    t = _even_part(T, 2 * side if mask is None else side)
    return TileShape(t, _even_part(S, max(side, min(side * side // max(t, 1), _MOST_KEYS))))


def _measured(
    T: int, S: int, heads: int, operands: Operands | None, platform: str, is_cut: bool
) -> TileShape | None:
    """The tile that `attn_jax.tune` found for calls like this one on this kind of device."""
    device = measured_tiles.device_kind(platform)
    if operands is None or device is None:
        return None
    situation = measured_tiles.Situation.of(
        "blockwise",
        device,
        dtype=operands.product_dtype,
        widths=(operands.query.values.shape[-1], operands.value.values.shape[-1]),
        sizes=(T, S),
        heads=heads,
        compares_positions=is_cut,
    )
    return measured_tiles.tile_of(situation)


def _most_bytes(S: int, is_cut: bool, platform: str) -> int:
    if platform != "cpu":
        return _MOST_BYTES_BESIDE_CPU
    if is_cut and S > _MOST_KEYS:  # slots of a cache, of which few may hold anything
        return 0
    return _MOST_BYTES_OF_MANY if is_cut else _MOST_BYTES


def _side(heads: int, platform: str) -> int:
    if platform != "cpu":
        return _SIDE_BESIDE_CPU
    fitting = (side for side in _SIDES if 4 * heads * side * side <= _MOST_BYTES_OF_MANY)
    return next(fitting, _SIDES[-1])


def _even_part(L: int, limit: int) -> int:
    """The size of equal parts of L, none above the limit, with little padding."""
    parts = max(1, -(-L // limit))
    return L if parts == 1 else -(-L // (16 * parts)) * 16
