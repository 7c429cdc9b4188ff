"""Which kernel takes a call on which platform, and why another does not."""

import math
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax

from attn_jax._base import concrete
from attn_jax._base.axes import Layout
from attn_jax._base.grid import TileShape
from attn_jax._base.tables import Table
from attn_jax._engine.call import Call, Pairs, Read, Work
from attn_jax._engine.kernels import blockwise, cudnn, reference
from attn_jax._engine.online_softmax import Residuals

type Implementation = Literal["reference", "blockwise", "cudnn"]

SMALL = 128 * 128


@runtime_checkable  # the suite's type hook asks of each kernel whether it is one
class Kernel(Protocol):
    """Attention of all heads and examples at once; a file of `kernels/` is one.

    It has no rule for `vmap` or derivatives: a layout tells which axes are heads and examples, and
    the engine makes every other derivative of sums over tiles.
    """

    divided_by: Literal["compiler", "kernel", "engine"]
    """What divides the call among devices: the compiler, which cannot divide a Pallas call; the
    kernel itself; or the engine, which calls it on each device with the heads that are there.
    """

    def refuses(self, call: Call, platform: str | None) -> str | None:
        """Why it cannot honour a call of one head exactly, or None where it can.

        The platform is None while nobody knows for which one the program will be lowered.
        """
        ...

    def forward(self, call: Call, layout: Layout, tile: TileShape) -> tuple[Table, Table]:
        """Output and log-sum-exp, both in the accumulation dtype."""
        ...

    def backward(
        self, pairs: Pairs, residuals: Residuals, layout: Layout, wanted: tuple[bool, ...]
    ) -> Read:
        """The gradient of each leaf of what is read that is wanted, and None for the others.

        It has the layout's axes: a level that they lack is summed.
        """
        ...

    def work(self, call: Call, heads: int, platform: str) -> Work:
        """How much it computes of one head."""
        ...


class Choice(NamedTuple):
    """What a name of `implementation` stands for, and when it is not the library's choice.

    "reference" is no kernel, and has `refuses` and `work` alone: it is computed head by head, as
    its definition reads.
    """

    kernel: Any
    passed_over: str


_CHOICES = {
    "reference": Choice(reference, f"it writes out all T×S logits, and they are more than {SMALL}"),
    "blockwise": Choice(blockwise, f"up to {SMALL} logits a head need no tiles"),
    "cudnn": Choice(
        cudnn,
        "it is used by name only: its gradients may differ in their last bits from run to run, "
        "arrays sharded along the sequence fail, and log-sum-exp or a sink costs a pass by tiles",
    ),
}


def check_name(implementation: str | None) -> None:
    """Checks that an implementation of that name exists.

    Raises:
      ValueError: there is none.
    """
    if implementation is not None and implementation not in _CHOICES:
        known = ", ".join(_CHOICES)
        raise ValueError(f"implementation {implementation!r} is unknown; choose from {known}")


def refusals(call: Call, platform: str | None) -> dict[str, str]:
    """The implementations that cannot honour a call exactly, each with its reason."""
    reasons = {name: choice.kernel.refuses(call, platform) for name, choice in _CHOICES.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def choice(call: Call, implementation: str | None, platform: str | None = None) -> str:
    """The implementation that was named, or "reference" for small calls and else "blockwise".

    Where T or S is a symbol of `jax.export`, "blockwise" takes every size that it stands for.

    Raises:
      NotImplementedError: the one that was named cannot honour the call exactly.
    """
    if implementation is None:
        small = concrete.are_numbers(*call.sizes) and math.prod(call.sizes) <= SMALL
        return "reference" if small else "blockwise"
    refuses = _CHOICES[implementation].kernel.refuses
    if refuses(call, platform) is not None:
        reason = refuses(call, platform or jax.default_backend())
        raise NotImplementedError(
            f"implementation {implementation!r} cannot take this call: {reason}; use "
            "implementation=None or 'blockwise'"
        )
    return implementation


def others(call: Call, implementation: str | None, platform: str) -> dict[str, str]:
    """Every implementation that is not `choice`, and why."""
    chosen, refused = choice(call, implementation, platform), refusals(call, platform)
    reasons = {}
    for name, other in _CHOICES.items():
        why = other.passed_over if implementation is None else f"{chosen!r} was named"
        reasons[name] = f"refused: {refused[name]}" if name in refused else f"not chosen: {why}"
    del reasons[chosen]
    return reasons


def work(call: Call, implementation: str | None, heads: int, platform: str) -> Work:
    """How much the chosen implementation computes of one head."""
    return _CHOICES[choice(call, implementation, platform)].kernel.work(call, heads, platform)


def kernel(call: Call, implementation: str | None, platform: str) -> Kernel:
    """The kernel of `choice`, for the platform that a program is lowered for.

    Raises:
      NotImplementedError: the one that was named cannot honour the call exactly there.
    """
    return _CHOICES[choice(call, implementation, platform)].kernel


def needs_devices(implementation: str | None) -> bool:
    """Whether a kernel that may be chosen tells how its call is divided among devices."""
    named = _CHOICES.get(implementation or "")
    return named is not None and named.kernel.divided_by != "compiler"
