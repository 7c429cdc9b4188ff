"""What a contender is: something that turns the inputs of a case into a call that can be timed."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from attn_jax.benchmark.inputs import Inputs


class Unsupported(Exception):  # noqa: N818  (it is an answer, not an error)
    """A contender that cannot do a case says so, with the reason as its only argument."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled call.

    `run(i)` works on input set i and returns when the result is there; `results()` are output and
    gradients on the first set as float32, in the order and axes of `Operands`.
    """

    run: Callable[[int], object]
    results: Callable[[], list[np.ndarray]]
    compile_seconds: float
    temp_bytes: int | None


@runtime_checkable
class Contender(Protocol):
    """A name for the table, and `prepare`, which raises `Unsupported` where it cannot."""

    @property
    def name(self) -> str: ...

    def prepare(self, inputs: Inputs) -> Prepared: ...
