"""Which backend takes a call, and why another does not."""

from collections.abc import Callable
from typing import Literal

from attn_jax._call import Call
from attn_jax.backends import blockwise, reference

type Implementation = Literal["reference", "blockwise"]

_BACKENDS = {"reference": reference.attend, "blockwise": blockwise.attend}
SMALL = 128 * 128


def check_name(implementation: str | None) -> None:
    """Checks that a backend of that name exists.

    Raises:
      ValueError: there is none.
    """
    if implementation is not None and implementation not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise ValueError(f"implementation {implementation!r} is unknown; choose from {known}")


def backend(call: Call, implementation: str | None) -> Callable:
    """The backend that was named, or the one that fits."""
    if implementation is None:
        small = call.query.shape[0] * call.key.shape[0] <= SMALL
        implementation = "reference" if small else "blockwise"
    return _BACKENDS[implementation]
