"""Which backend takes a call, and why another does not."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from attn_jax._base import concrete
from attn_jax._engine.call import Call, Work
from attn_jax._engine.kernels import blockwise, cudnn, reference

type Implementation = Literal["reference", "blockwise", "cudnn"]

SMALL = 128 * 128


class Backend(NamedTuple):
    """What every backend has, and when it is not the library's choice."""

    attend: Callable[[Call], tuple]
    refuses: Callable[[Call], str | None]
    work: Callable[[Call, int], Work]
    passed_over: str


_BACKENDS = {
    "reference": Backend(
        reference.attend,
        reference.refuses,
        reference.work,
        f"it writes out all T×S logits, and they are more than {SMALL}",
    ),
    "blockwise": Backend(
        blockwise.attend,
        blockwise.refuses,
        blockwise.work,
        f"up to {SMALL} logits a head need no tiles",
    ),
    "cudnn": Backend(
        cudnn.attend,
        cudnn.refuses,
        cudnn.work,
        "it is used by name only: its gradients may differ in their last bits from run to run, "
        "arrays sharded along the sequence fail, and log-sum-exp or a sink costs a pass by tiles",
    ),
}


def check_name(implementation: str | None) -> None:
    """Checks that a backend of that name exists.

    Raises:
      ValueError: there is none.
    """
    if implementation is not None and implementation not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise ValueError(f"implementation {implementation!r} is unknown; choose from {known}")


def refusals(call: Call) -> dict[str, str]:
    """The backends that cannot honour a call exactly, each with its reason."""
    reasons = {name: backend.refuses(call) for name, backend in _BACKENDS.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def choice(call: Call, implementation: str | None) -> str:
    """The backend that was named, or "reference" for small reads and "blockwise" for all others.

    Where T or S is a symbol of `jax.export`, "blockwise" takes every size that it stands for.

    Raises:
      NotImplementedError: the one that was named cannot honour the call exactly.
    """
    if implementation is None:
        T, S = call.query.shape[0], call.key.shape[0]
        small = concrete.are_numbers(T, S) and T * S <= SMALL
        return "reference" if small else "blockwise"
    reason = _BACKENDS[implementation].refuses(call)
    if reason is not None:
        raise NotImplementedError(
            f"implementation {implementation!r} cannot take this call: {reason}; use "
            "implementation=None or 'blockwise'"
        )
    return implementation


def others(call: Call, implementation: str | None) -> dict[str, str]:
    """Every backend that is not `choice`, and why."""
    chosen, refused = choice(call, implementation), refusals(call)
    reasons = {}
    for name, backend in _BACKENDS.items():
        why = backend.passed_over if implementation is None else f"{chosen!r} was named"
        reasons[name] = f"refused: {refused[name]}" if name in refused else f"not chosen: {why}"
    del reasons[chosen]
    return reasons


def backend(call: Call, implementation: str | None) -> Backend:
    """The backend of `choice`.

    Raises:
      NotImplementedError: the one that was named cannot honour the call exactly.
    """
    return _BACKENDS[choice(call, implementation)]
