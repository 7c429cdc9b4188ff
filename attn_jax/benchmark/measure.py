"""Measures a group of entries: prepares them, compares their results, then times them in turns."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attn_jax.benchmark import jax_contenders, machine, torch_contenders
from attn_jax.benchmark.contender import Contender, Prepared, Unsupported
from attn_jax.benchmark.inputs import Inputs
from attn_jax.benchmark.shapes import Case
from attn_jax.benchmark.timing import Budget, Spread, alternate

# Relative to the largest number: more than the error of bfloat16 and TF32, less than that of
# another mask, scale or head order.
DISAGREEMENT = 0.05


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a measurement: a contender by name, and its case."""

    case: Case
    contender: str


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of an entry: numbers, or the reason why there are none."""

    entry: Entry
    spread: Spread | None = None
    matmul_flops: float | None = None  # operations a second of XLA's matmul, timed beside it
    temp_bytes: int | None = None
    compile_seconds: float | None = None
    reason: str | None = None

    @property
    def flops(self) -> float | None:
        """Operations a second."""
        return None if self.spread is None else self.entry.case.flops / self.spread.median

    @property
    def fraction(self) -> float | None:
        """`flops` over those of XLA's matmul in the same dtype and the same rounds."""
        if self.flops is None or self.matmul_flops is None:
            return None
        return self.flops / self.matmul_flops


def contenders() -> dict[str, Contender]:
    """All contenders by name, this library's implementations first."""
    found = [*jax_contenders.ours(), *jax_contenders.peers(), *torch_contenders.peers()]
    return {contender.name: contender for contender in found}


def measure_group(
    entries: Sequence[Entry],
    by_name: Mapping[str, Contender],
    budget: Budget,
    *,
    seed: int = 0,
    matmul_size: int | None = None,
    after_round: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Times entries of one dtype in turns, together with XLA's matmul.

    An entry that cannot be prepared, or that disagrees with the first entry of its case, is not
    timed: its row has the reason.
    """
    inputs = {entry.case: Inputs(entry.case, seed) for entry in entries}
    rows, prepared, expected = {}, {}, {}
    for entry in entries:
        try:
            candidate = by_name[entry.contender].prepare(inputs[entry.case])
            _compare(candidate, expected, entry.case)
            prepared[entry] = candidate
        except Unsupported as reason:
            rows[entry] = Row(entry, reason=str(reason))
        except Exception as error:  # an error of one contender must not end the others' measurement
            rows[entry] = Row(entry, reason=f"failed: {_first_line(error)}")
    if prepared:
        rows |= _time(prepared, budget, matmul_size, after_round)
    return [rows[entry] for entry in entries]


def _compare(candidate: Prepared, expected: dict[Case, list[np.ndarray]], case: Case) -> None:
    """Raises `Unsupported` if output or gradients differ from those of the case's first contender.

    The first contender's results are stored in `expected`.
    """
    results = candidate.results()
    for actual, wanted in zip(results, expected.setdefault(case, results), strict=True):
        difference = np.abs(actual - wanted).max() / np.abs(wanted).max()
        if not difference <= DISAGREEMENT:
            raise Unsupported(f"disagrees with the first contender by {difference:.1%}")


def _time(
    prepared: Mapping[Entry, Prepared],
    budget: Budget,
    matmul_size: int | None,
    after_round: Callable[[], object],
) -> dict[Entry, Row]:
    """The rows of prepared entries, timed in turns with XLA's matmul."""
    (dtype,) = {entry.case.dtype for entry in prepared}
    matmul, flops = machine.matmul(dtype, matmul_size)
    named = {f"{i}": candidate.run for i, candidate in enumerate(prepared.values())}
    spreads = alternate({**named, machine.MATMUL: matmul}, budget, after_round=after_round)
    rate = flops / spreads[machine.MATMUL].median
    return {
        entry: Row(
            entry,
            spread=spreads[f"{i}"],
            matmul_flops=rate,
            temp_bytes=candidate.temp_bytes,
            compile_seconds=candidate.compile_seconds,
        )
        for i, (entry, candidate) in enumerate(prepared.items())
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
