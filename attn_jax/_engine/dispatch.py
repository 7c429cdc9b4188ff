"""Which kernel computes a call on which platform, and why another does not."""

import functools
import math
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax

from attn_jax._base import concrete
from attn_jax._base.axes import Layout
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Operands, Pairs, Work
from attn_jax._engine.kernels import blockwise, cudnn, reference
from attn_jax._engine.kernels.mosaic_tpu import MosaicTpu
from attn_jax._engine.online_softmax import Residuals

type Implementation = Literal["reference", "blockwise", "mosaic_tpu", "cudnn"]

SMALL = 128 * 128


@runtime_checkable  # for the type checks of the test suite
class Kernel(Protocol):
    """Attention of all heads and batch examples at once; each file of `kernels/` but reference.py.

    A kernel has no rule for `vmap` or derivatives. A layout says which axes are heads and batch
    examples, and the engine computes all other derivatives as sums over tiles.
    """

    divided_by: Literal["compiler", "kernel", "engine"]
    """What divides the call among devices: the compiler, which cannot divide a Pallas call; the
    kernel itself; or the engine, which calls it on each device with the heads that are there.
    """

    def refuses(self, call: Call, platform: str | None) -> str | None:
        """Why the kernel cannot compute a call of one head exactly; None where it can.

        The platform is None before the program is lowered.
        """
        ...

    def forward(self, call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
        """Output and log-sum-exp, both in the accumulation dtype."""
        ...

    def backward(
        self, pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
    ) -> Operands:
        """The gradient of each operand that is wanted, and None for the others.

        It has the axes of the layout, and is summed over vmapped axes that these lack.
        """
        ...

    def work(self, call: Call, heads: int, platform: str) -> Work:
        """How much of one head the kernel computes."""
        ...


class Candidate(NamedTuple):
    """What a name of `implementation` stands for, and why the library never chooses it, if so.

    "reference" is no kernel: it has `refuses` and `work` alone, and is computed head by head.
    """

    kernel: Any
    reason_against: str | None = None


_CANDIDATES = {
    "reference": Candidate(reference),
    "blockwise": Candidate(blockwise),
    "mosaic_tpu": Candidate(MosaicTpu()),
    "cudnn": Candidate(
        cudnn,
        "it is used by name only: its gradients may differ in their last bits from run to run, "
        "arrays sharded along the sequence fail, and log-sum-exp or a sink costs one more pass",
    ),
}


def check_name(implementation: str | None) -> None:
    """Checks that an implementation of that name exists.

    Raises:
      ValueError: there is none.
    """
    if implementation is not None and implementation not in _CANDIDATES:
        known = ", ".join(_CANDIDATES)
        raise ValueError(f"implementation {implementation!r} is unknown; choose from {known}")


_NOT_DIVIDED = (
    "the program is divided over several TPUs, which XLA cannot do with this kernel (jax#38196); "
    "it can be called where all mesh axes are explicit (jax.sharding.AxisType.Explicit), under "
    "jax.vmap with spmd_axis_name and jax.set_mesh, or inside of jax.shard_map over all mesh axes"
)


def refusals(call: Call, platform: str | None, *, divisible: bool = True) -> dict[str, str]:
    """The implementations that cannot compute a call exactly, each with its reason.

    `divisible` is False where no kernel can be divided among the devices by the engine.
    """
    reasons = {name: _refusal(name, call, platform, divisible=divisible) for name in _CANDIDATES}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _refusal(name: str, call: Call, platform: str | None, *, divisible: bool) -> str | None:
    kernel = _CANDIDATES[name].kernel
    reason = kernel.refuses(call, platform)
    if reason is None and not divisible and _is_divided_by_engine(kernel):
        return _NOT_DIVIDED
    return reason


def _is_divided_by_engine(kernel: Any) -> bool:
    return getattr(kernel, "divided_by", None) == "engine"  # "reference" has none


def choice(
    call: Call,
    implementation: str | None,
    platform: str | None = None,
    *,
    divisible: bool = True,
) -> str:
    """The named implementation; where none is named, the one that the library chooses.

    That is "reference" for small calls, else on a TPU "mosaic_tpu" where it can compute the call
    exactly, else "blockwise".

    Raises:
      NotImplementedError: the named implementation cannot compute the call exactly.
    """
    if implementation is None:
        small = concrete.are_numbers(*call.sizes) and math.prod(call.sizes) <= SMALL
        if small:
            return "reference"
        is_fused = (
            platform == "tpu"
            and _refusal("mosaic_tpu", call, platform, divisible=divisible) is None
        )
        return "mosaic_tpu" if is_fused else "blockwise"
    refusal = functools.partial(_refusal, implementation, call, divisible=divisible)
    if refusal(platform) is not None:
        reason = refusal(platform or jax.default_backend())
        raise NotImplementedError(
            f"implementation {implementation!r} cannot take this call: {reason}; use "
            "implementation=None or 'blockwise'"
        )
    return implementation


def others(
    call: Call, implementation: str | None, platform: str, *, divisible: bool = True
) -> dict[str, str]:
    """Every implementation that is not chosen, each with the reason."""
    chosen = choice(call, implementation, platform, divisible=divisible)
    refused = refusals(call, platform, divisible=divisible)
    reasons = {}
    for name in _CANDIDATES:
        why = _reason_against(name, chosen) if implementation is None else f"{chosen!r} was named"
        reasons[name] = f"refused: {refused[name]}" if name in refused else f"not chosen: {why}"
    del reasons[chosen]
    return reasons


def _reason_against(name: str, chosen: str) -> str:
    """Why the library chose another implementation than one that could compute the call."""
    never = _CANDIDATES[name].reason_against
    if never is not None:
        return never
    if chosen == "reference":
        return f"up to {SMALL} logits a head need no tiles"
    if name == "reference":
        return f"it writes out all T×S logits, and they are more than {SMALL}"
    return f"{chosen!r} keeps the logits of a tile on the chip"


def work(
    call: Call, implementation: str | None, heads: int, platform: str, *, divisible: bool = True
) -> Work:
    """How much the chosen implementation computes of one head."""
    chosen = choice(call, implementation, platform, divisible=divisible)
    return _CANDIDATES[chosen].kernel.work(call, heads, platform)


def kernel(
    call: Call, implementation: str | None, platform: str, *, divisible: bool = True
) -> Kernel:
    """The kernel of `choice`, for the platform that a program is lowered for.

    Raises:
      NotImplementedError: the named implementation cannot compute the call exactly there.
    """
    return _CANDIDATES[choice(call, implementation, platform, divisible=divisible)].kernel


def needs_devices(implementation: str | None) -> bool:
    """Whether the named kernel says how its call is divided among devices."""
    named = _CANDIDATES.get(implementation or "")
    return named is not None and named.kernel.divided_by != "compiler"
