"""`python -m attn_jax.benchmark --predict`: the time of attention on chips, by a roofline.

Nothing is measured. Beside this library's kernels stand two others, counted by the same formulas:

- splash: `jax.experimental.pallas.ops.tpu.splash_attention` of JAX 0.12. Its default tile is
  128×128; tiles are an option, so it is also counted with this library's. It evaluates the mask in
  full tiles, too. Documents are segment ids, by which it leaves out no tile. There is no score mod
  and no bias. Read in splash_attention_kernel.py.
- tokamax (https://github.com/openxla/tokamax, commit 783ea95), `dot_product_attention`, with the
  tiles that it has without tuning. On a TPU they are 128×128; one gradient kernel has five matmuls
  and writes dq for each tile, which is added up later; there is no bias; a window or documents are
  a T×S array of booleans. On Hopper two tiles of 64 rows lie side by side; ALiBi is a T×S bias in
  bfloat16, and documents are an array of booleans, by which no tile is left out. Read in
  tokamax/_src/ops/attention: pallas_mosaic_tpu.py, pallas_mosaic_gpu_kernel_sm90.py, and their vjp.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from attn_jax import masks, score_mods
from attn_jax._base.grid import TileShape
from attn_jax._roofline import (
    BY_KEY,
    BY_QUERY,
    CHIPS,
    FORWARD,
    Call,
    Chip,
    Pass,
    Widths,
    Work,
    predict,
    tile_shape_of,
    tiles_of,
    work_of,
)

T, H = 8192, 128
WINDOW = 1023
DOCUMENTS = (3000, 500, 1800, 200, 1700, 992)  # lengths, in tokens


def calls() -> dict[str, Call]:
    """One head of each class of options, in bfloat16."""
    ids = jnp.repeat(jnp.arange(len(DOCUMENTS)), jnp.array(DOCUMENTS), total_repeat_length=T)
    causal = masks.causal()
    rules: dict[str, tuple[Any, Any]] = {
        "full": (None, None),
        "causal": (causal, None),
        "causal, ALiBi": (causal, score_mods.alibi(0.5)),
        "window": (masks.sliding_window(WINDOW, 0), None),
        "documents": (causal & masks.segments(ids), None),
    }
    return {name: Call(T, T, H, H, 2, *rule) for name, rule in rules.items()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a library computes a call in one direction: its kernels and their tiles.

    `visits` is the mask by which it leaves out tiles, where that is not the mask of the call.
    """

    passes: tuple[tuple[Pass, TileShape], ...]
    call: Call
    visits: Any


def ours(chip: str, call: Call, backward: bool) -> Plan:
    """This library's kernels: two gradient kernels with seven matmuls together."""
    shape = tile_shape_of(chip, call)
    passes = (BY_QUERY, BY_KEY) if backward else (FORWARD,)
    return Plan(tuple((one, shape) for one in passes), call, call.mask)


def splash(chip: str, name: str, call: Call, backward: bool, shape: TileShape) -> Plan | str:
    """JAX's splash attention with tiles of a shape, or why it cannot compute the call."""
    if not CHIPS[chip].streams:
        return "TPU only"
    if call.score_mod is not None:
        return "cannot"
    passes = (BY_QUERY, BY_KEY) if backward else (FORWARD,)
    alike = tuple((dataclasses.replace(one, masks_full_tiles=True), shape) for one in passes)
    return Plan(alike, call, masks.causal() if name == "documents" else call.mask)


def tokamax(chip: str, name: str, call: Call, backward: bool) -> Plan | str:
    """tokamax with its untuned tiles, or why it cannot compute the call."""
    if not CHIPS[chip].streams:
        return _tokamax_hopper(name, call, backward)
    if call.score_mod is not None:
        return "cannot"
    shape = TileShape(128, 128)
    # dq is written and read again for each tile, beside the tile's query and cotangent.
    fused = dataclasses.replace(BY_KEY, matmuls=Widths(3, 2), streamed=Widths(3, 1))
    has_array = name in ("window", "documents")
    one = dataclasses.replace(fused if backward else FORWARD, pair_bytes=int(has_array))
    return Plan(((one, shape),), call, call.mask)


def _tokamax_hopper(name: str, call: Call, backward: bool) -> Plan:
    pair_bytes = {"causal, ALiBi": 2, "documents": 1}.get(name, 0)
    forward = ((FORWARD, TileShape(128, 128)),)
    gradients = (BY_QUERY, TileShape(128, 64)), (BY_KEY, TileShape(64, 128))
    passes = tuple(
        (dataclasses.replace(one, pair_bytes=pair_bytes), shape)
        for one, shape in (gradients if backward else forward)
    )
    visits = masks.causal() if name == "documents" else call.mask
    return Plan(passes, call._replace(score_mod=None), visits)


def work(chip: str, plan: Plan) -> tuple[int, Work]:
    """How many tiles the largest kernel of a plan visits, and the work of all its kernels."""
    total, most = Work(), 0
    for kernel, shape in plan.passes:
        tiles = tiles_of(plan.visits, plan.call.T, plan.call.S, shape)
        total += work_of(kernel, plan.call, tiles, streams=CHIPS[chip].streams)
        most = max(most, tiles.visited)
    return most, total


HEADER = (
    f"{'one head':24}{'tile':>6}{'tiles':>7}{'matrix':>8}{'memory':>8}{'vector':>8}{'exp':>8}"
    f"{'µs':>8} {'bound by':12}{'in turns':>8}{'splash':>14}{'same tiles':>14}{'tokamax':>14}"
)


def lines() -> list[str]:
    """The table of every chip: a row for each class of options and direction."""
    found = [
        f"Predicted; nothing was measured. Microseconds of one head, T=S={T}, H={H}, bfloat16, on",
        "one TPU core or one H100, without the cost of starting a kernel or a tile. In turns: if",
        "matmuls, vector operations and exponentials do not overlap. Others: time (tiles visited).",
    ]
    for chip, rates in CHIPS.items():
        found += ["", _title(chip, rates), HEADER]
        for name, call in calls().items():
            found += [row(chip, name, call, backward=backward) for backward in (False, True)]
    return found


def _title(chip: str, rates: Chip) -> str:
    return (
        f"{chip}, predicted: {rates.matmul_flops / 1e12:.0f} TFLOP/s, "
        f"{rates.bandwidth / 1e9:.0f} GB/s, and in a second "
        f"{rates.vector_operations / 1e12:.1f} T vector operations, "
        f"{rates.exponentials / 1e12:.1f} T exponentials"
    )


def row(chip: str, name: str, call: Call, *, backward: bool) -> str:
    """One line of the table."""
    shape = tile_shape_of(chip, call)
    visited, total = work(chip, ours(chip, call, backward))
    time = predict(chip, total)
    others = (
        splash(chip, name, call, backward, TileShape(128, 128)),
        splash(chip, name, call, backward, shape),
        tokamax(chip, name, call, backward),
    )
    direction = "backward" if backward else "forward"
    parts = "".join(f"{1e6 * seconds:8.1f}" for seconds in time)
    return (
        f"{f'{name}, {direction}':24}{f'{shape.queries}²':>6}{visited:7,}{parts}"
        f"{1e6 * time.seconds:8.1f} {time.bound:12}{1e6 * time.seconds_in_turns:8.1f}"
        + "".join(f"{_cell(chip, other):>14}" for other in others)
    )


def _cell(chip: str, plan: Plan | str) -> str:
    if isinstance(plan, str):
        return plan
    visited, total = work(chip, plan)
    return f"{1e6 * predict(chip, total).seconds:.0f} ({visited:,})"
