"""A bout: contenders on their cases, prepared, compared with each other, then timed in turns."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attn_jax.benchmark import jax_contenders, machine, torch_contenders
from attn_jax.benchmark.contract import Contender, Prepared, Unsupported
from attn_jax.benchmark.inputs import Inputs
from attn_jax.benchmark.shapes import Case
from attn_jax.benchmark.timing import Patience, Spread, alternate

# Of the largest number: room for bfloat16 and TF32, none for another mask, scale or head order.
DISAGREEMENT = 0.05


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a bout: a contender by name, and the case it works on."""

    case: Case
    contender: str


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of an entry: numbers, or the reason why there are none."""

    entry: Entry
    spread: Spread | None = None
    product_flops: float | None = None  # operations a second of the matrix product beside it
    temp_bytes: int | None = None
    compile_seconds: float | None = None
    reason: str | None = None

    @property
    def flops(self) -> float | None:
        """Operations a second."""
        return None if self.spread is None else self.entry.case.flops / self.spread.median

    @property
    def fraction(self) -> float | None:
        """Of the machine's own matrix product, in the same dtype and the same rounds."""
        if self.flops is None or self.product_flops is None:
            return None
        return self.flops / self.product_flops


def contenders() -> dict[str, Contender]:
    """All of them by name, this library's backends first."""
    everyone = [*jax_contenders.ours(), *jax_contenders.peers(), *torch_contenders.peers()]
    return {contender.name: contender for contender in everyone}


def bout(
    entries: Sequence[Entry],
    field: Mapping[str, Contender],
    patience: Patience,
    *,
    seed: int = 0,
    product_size: int | None = None,
    after_round: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Measures entries of one dtype against each other, and the matrix product among them.

    An entry that cannot be prepared, or that disagrees with the first of its case, gets a row with
    the reason; the others go on.
    """
    inputs = {entry.case: Inputs(entry.case, seed) for entry in entries}
    rows, prepared, expected = {}, {}, {}
    for entry in entries:
        try:
            candidate = field[entry.contender].prepare(inputs[entry.case])
            _compare(candidate, expected, entry.case)
            prepared[entry] = candidate
        except Unsupported as answer:
            rows[entry] = Row(entry, reason=str(answer))
        except Exception as error:  # whatever a contender raises must not cost the others' rows
            rows[entry] = Row(entry, reason=f"failed: {_first_line(error)}")
    if prepared:
        rows |= _time(prepared, patience, product_size, after_round)
    return [rows[entry] for entry in entries]


def _compare(candidate: Prepared, expected: dict[Case, list[np.ndarray]], case: Case) -> None:
    """Output and gradients against those of the first contender on the same case."""
    results = candidate.results()
    for ours, theirs in zip(results, expected.setdefault(case, results), strict=True):
        difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
        if not difference <= DISAGREEMENT:
            raise Unsupported(f"disagrees with the first contender by {difference:.1%}")


def _time(
    prepared: Mapping[Entry, Prepared],
    patience: Patience,
    product_size: int | None,
    after_round: Callable[[], object],
) -> dict[Entry, Row]:
    (dtype,) = {entry.case.dtype for entry in prepared}
    product, flops = machine.matrix_product(dtype, product_size)
    named = {f"{i}": candidate.run for i, candidate in enumerate(prepared.values())}
    spreads = alternate({**named, machine.PRODUCT: product}, patience, after_round=after_round)
    rate = flops / spreads[machine.PRODUCT].median
    return {
        entry: Row(
            entry,
            spread=spreads[f"{i}"],
            product_flops=rate,
            temp_bytes=candidate.temp_bytes,
            compile_seconds=candidate.compile_seconds,
        )
        for i, (entry, candidate) in enumerate(prepared.items())
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
