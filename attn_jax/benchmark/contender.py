"""The interface of a contender: it turns the inputs of a case into a call that can be timed."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from attn_jax.benchmark.inputs import Inputs


class Unsupported(Exception):  # noqa: N818  (a reported result, not a failure)
    """A contender does not support a case; the only argument is the reason."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled call that is ready to be timed.

    Attributes:
      run: `run(i)` computes on input set i and returns when the result is ready.
      results: output and gradients on the first set as float32, in the order and with the axes of
        `Operands`.
      compile_seconds: time of tracing and compilation.
      temp_bytes: temporary memory of the compiled call; None if unknown.
    """

    run: Callable[[int], object]
    results: Callable[[], list[np.ndarray]]
    compile_seconds: float
    temp_bytes: int | None


@runtime_checkable
class Contender(Protocol):
    """A `name` for the tables, and `prepare`, which raises `Unsupported` for unsupported cases."""

    @property
    def name(self) -> str: ...

    def prepare(self, inputs: Inputs) -> Prepared: ...
