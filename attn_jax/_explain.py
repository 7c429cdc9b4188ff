"""What an attention call would do, and cost, without running it."""

import dataclasses
import functools
import math
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from attn_jax import _prediction, _roofline
from attn_jax._base import notebook, young_jax
from attn_jax._base.axes import in_front, map_levels
from attn_jax._engine import dispatch, tpu_tiles
from attn_jax._engine.call import Call, Work
from attn_jax._engine.one_head import checked_call, output_jitted
from attn_jax._engine.partition import can_divide
from attn_jax._heads import attend_heads_out, batch_of, lay_out, mesh_axes
from attn_jax._multi_head import checked_heads
from attn_jax._target import Target, made_for, target_of, temporary_bytes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Seen:
    """The facts about one head that are known before compilation."""

    work: Work
    on_chip: _roofline.Work | None
    """What the chip does for the head in the forward pass, where that can be predicted."""
    chip: str | None = dataclasses.field(metadata={"static": True})
    implementation: str = dataclasses.field(metadata={"static": True})
    others: tuple[tuple[str, str], ...] = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation:
    """The chosen implementation, why no other was chosen, and the cost, shown as a table.

    `explain` returns it. Tiles, FLOPs and bytes are those of the forward pass of all heads and
    batch examples. FLOPs are 2 (H + V) for each pair of a visited tile, masked or not. Bytes are
    those of arguments and results, which move at least once. Temporary bytes are what XLA allocates
    in addition; None where no compiler for the platform is here. Predicted seconds are those of the
    fused TPU kernel by a roofline, on one chip, without the start of a kernel. They are None for
    other kernels and chips, for float32, dropout and T×S arrays, and for less than 128 queries.

    Example:
      >>> x = jnp.zeros((512, 8))
      >>> explanation = attn_jax.explain(x, x, x, mask=attn_jax.masks.causal())
      >>> explanation.implementation, sorted(explanation.others)
      ('blockwise', ['cudnn', 'mosaic_tpu', 'reference'])
    """

    implementation: str
    others: dict[str, str]
    tiles_visited: int
    tiles: int
    flops: int
    bytes_moved: int
    temporary_bytes: int | None
    predicted_seconds: float | None
    platform: str

    def __repr__(self) -> str:
        lines = self._lines()
        column = max(map(len, lines)) + 2
        wrap = functools.partial(textwrap.fill, width=100, subsequent_indent=" " * column)
        return "\n".join(wrap(f"{name:{column}}{line}") for name, line in lines.items())

    def _repr_html_(self) -> str:
        return notebook.table("attn_jax.explain", self._lines().items())

    def _lines(self) -> dict[str, str]:
        share = self.tiles_visited / max(self.tiles, 1)
        return {
            "implementation": self.implementation,
            **self.others,
            "tiles": f"{self.tiles_visited:,} of {self.tiles:,} visited ({share:.0%})",
            "work": f"{self.flops / 1e9:.3f} GFLOP forward",
            "traffic": f"{_bytes(self.bytes_moved)} of arguments and results",
            "temporary": self._temporary(),
            **self._predicted(),
        }

    def _predicted(self) -> dict[str, str]:
        if self.predicted_seconds is None:
            return {}
        time = f"{self.predicted_seconds * 1e6:.1f} µs forward"
        return {"predicted": f"{time}, by a roofline; not measured"}

    def _temporary(self) -> str:
        if self.temporary_bytes is None:
            return f"unknown: no compiler for {self.platform} here reports it"
        return f"{_bytes(self.temporary_bytes)} at most, compiled for {self.platform}"


def explain(
    query: Float[Array, "*#B T N H"] | Float[Array, "T H"],
    key: Float[Array, "*#B S K H"] | Float[Array, "S E"],
    value: Float[Array, "*#B S K V"] | Float[Array, "S V"],
    bias: Any = None,
    mask: Any = None,
    *,
    device: jax.Device | str | None = None,
    **options: Any,
) -> Explanation:
    """Reports which implementation an attention call gets, why no other, and what it costs.

    Small calls compute all pairs as one matmul, larger ones go tile by tile (Dao et al. 2022,
    https://arxiv.org/abs/2205.14135): on a TPU in one fused kernel, which refuses some calls, and
    on other platforms by operations of XLA. NVIDIA's kernel is used only where it is named.

      reference where T S <= 128², else mosaic_tpu on a TPU that it can compute the call on, else
      blockwise; FLOPs = 2 (H + V) pairs in the tiles visited

    "blockwise" computes all pairs as one tile, without a loop, while the float32 logits of all
    heads and batch examples are few. The limit, and the size of tiles above it, depend on the
    platform for which the program is lowered:

      CPU     16 MiB, or 4 MiB and 2048 keys where the mask compares positions and so leaves tiles
              empty (docs/adr/0014); then 512×512, 256×256 or 128×128 pairs (docs/adr/0008)
      others  512 MiB; then 1024×1024 pairs (docs/adr/0018)

    A size that is a symbol of `jax.export` gets tiles of 128×128. The sides of "mosaic_tpu"'s
    tiles are multiples of 128, at most 512, or 1024 on a v6e.

    Args:
      query: as in `dot_product_attention`; as in `attend` where it has two axes. The other
        arguments follow it.
      key: see `dot_product_attention`.
      value: see `dot_product_attention`.
      bias: see `dot_product_attention`; `attend` has none.
      mask: see `dot_product_attention`.
      device: what the call is explained for; None is the default backend. Either a device, which
        need not be here (`jax.experimental.topologies.get_topology_desc(platform="tpu",
        topology_name="v5e:2x2").devices[0]`, with the package libtpu), or the name of a platform,
        "cpu", "gpu" or "tpu".
      options: see `dot_product_attention`, or `attend`.

    Returns:
      An `Explanation`; every number holds for these arguments.

    Raises:
      ValueError: as the call itself; or the platform is unknown.
      TypeError: as the call itself.
      NotImplementedError: as the call itself: the named implementation cannot compute it.

    Cost:
      Compiles the call, where a compiler for the platform is here, and computes which tiles the
      mask leaves; runs nothing else.

    Example:
      >>> x = jnp.zeros((2, 512, 4, 64))
      >>> print(attn_jax.explain(x, x, x, is_causal=True, implementation="reference"))
      implementation  reference
      blockwise       not chosen: 'reference' was named
      ...
      >>> attn_jax.explain(x, x, x).flops == 2 * (64 + 64) * (2 * 4) * 512 * 512
      True
      >>> attn_jax.explain(x, x, x, is_causal=True, device="tpu").implementation
      'mosaic_tpu'

    See also: `block_mask`, whose `print` draws the tiles.
    """
    implementation, target = options.get("implementation"), target_of(device)
    with made_for(target):
        if query.ndim == 2:
            more = options if bias is None else {"bias": bias, **options}
            operands = checked_call(query, key, value, mask=mask, **more)
            static = {"implementation": implementation}
            divisible = _is_divisible(target, query, key, value, are_known=False)
            seen = _look(operands[0], **static, platform=target.platform, divisible=divisible)
            memory = temporary_bytes(output_jitted, operands, static, target)
        else:
            operands, static = checked_heads(query, key, value, bias, mask, **options)
            known = mesh_axes(*operands[:3]) is not None
            divisible = _is_divisible(target, *operands[:3], are_known=known)
            where = {"platform": target.platform, "divisible": divisible}
            seen = _look_at_heads(*operands, **static, **where)
            memory = temporary_bytes(attend_heads_out, operands, static, target)
    width = query.shape[-1] + value.shape[-1]
    given = jax.tree.leaves((query, key, value, bias, mask, options))
    visited, tiles = _tiles(seen.work)
    return Explanation(
        implementation=seen.implementation,
        others=dict(seen.others),
        tiles_visited=visited,
        tiles=tiles,
        flops=2 * width * seen.work.pairs_per_tile * visited,
        bytes_moved=sum(jnp.asarray(leaf).nbytes for leaf in given if _is_array(leaf))
        + math.prod(_rows(query, key, value)) * value.shape[-1] * jnp.result_type(query).itemsize,
        temporary_bytes=memory,
        predicted_seconds=_prediction.seconds_of(seen.chip, seen.on_chip),
        platform=target.platform,
    )


def _is_divisible(target: Target, *arrays: Any, are_known: bool) -> bool:
    """Whether a kernel can be called on each of the devices that hold the arrays."""
    shardings = (getattr(array, "sharding", None) for array in arrays)
    is_divided = any(each is not None and each.num_devices > 1 for each in shardings)
    return can_divide(young_jax.Target(target.platform, is_divided), are_known=are_known)


@functools.partial(jax.jit, static_argnames=("implementation", "platform", "heads", "divisible"))
def _look(
    call: Call, *, implementation: str | None, platform: str, divisible: bool, heads: int = 1
) -> _Seen:
    work = dispatch.work(call, implementation, heads, platform, divisible=divisible)
    others = dispatch.others(call, implementation, platform, divisible=divisible)
    chosen = dispatch.choice(call, implementation, platform, divisible=divisible)
    on_chip = _prediction.forward_on_chip(call, work)
    return _Seen(work, on_chip, tpu_tiles.present_chip(), chosen, tuple(others.items()))


@functools.partial(
    jax.jit, static_argnames=("dropout_rate", "implementation", "platform", "divisible")
)
def _look_at_heads(
    query: Array,
    key: Array,
    value: Array,
    options: dict[str, Any],
    *,
    dropout_rate: float,
    implementation: str | None,
    platform: str,
    divisible: bool,
) -> _Seen:
    heads = math.prod(batch_of(query, key, value)) * query.shape[-2]

    def head(query, key, value, options: dict) -> _Seen:
        call, _ = checked_call(query, key, value, **options, dropout_rate=dropout_rate)
        where = {"platform": platform, "divisible": divisible}
        return _look(call, implementation=implementation, **where, heads=heads)

    operands, inputs, _ = lay_out(query, key, value, options)
    return map_levels(head, inputs, in_front(len(inputs[0].at)))(*operands)


def _tiles(work: Work) -> tuple[int, int]:
    """How many tiles all heads and batch examples visit, and how many there are."""
    needed = np.asarray(work.needed)
    *each, I, J = needed.shape
    heads = math.prod(each)
    if work.each_head_alone:
        return int(needed.sum()), needed.size
    return heads * int(needed.reshape(heads, I, J).any(axis=0).sum()), needed.size


def _rows(query: Array, key: Array, value: Array) -> tuple[int, ...]:
    """The axes of the output before its width."""
    return (*batch_of(query, key, value), *query.shape[len(query.shape[:-3]) : -1])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray)


def _bytes(number: int) -> str:
    return f"{number / 2**20:.2f} MiB"
