"""The library's claims about its speed and memory; each line passes, fails or is not run.

A line whose peer is missing is not run, and so does not pass. Sizes are B=1, N=8, H=64. The small
calls that one matmul could compute have other sizes; they claim 0.9 times the peer's speed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from attn_jax.benchmark import jax_contenders
from attn_jax.benchmark.measure import Entry, Row
from attn_jax.benchmark.shapes import SHAPES, Case

type Outcome = Literal["passed", "failed", "not run"]

OURS = jax_contenders.DEFAULT.name
_SDPA, _FLEX, _JAX = "torch SDPA", "torch FlexAttention", "jax.nn"
MEMORY_SHAPE = "reference-8k-causal"
MEGABYTES_AT_8K = 64
GROWTH_FROM_8K_TO_32K = 1.1  # over linear


@dataclasses.dataclass(frozen=True)
class Speed:
    """The claim that `peer` takes at least `ratio` times as long as `ours`, by medians."""

    ours: Entry
    peer: Entry
    ratio: float

    @property
    def text(self) -> str:
        """The claim as one line of the report."""
        mine, theirs = self.ours.case, self.peer.case
        peer = self.peer.contender
        if theirs.shape != mine.shape:
            peer = f"{peer} {theirs.shape.name}"
        how = "faster" if self.ratio >= 1 else "no slower"
        return f"{mine.shape.name}, {mine.dtype}, {mine.direction}: {how} than {peer}"

    @property
    def wanted(self) -> str:
        """The ratio that passes."""
        return f"≥ {self.ratio:g}x"

    def check(self, rows: Mapping[Entry, Row]) -> "Verdict":
        """The verdict, from the rows of the entries that were timed together."""
        for entry in (self.peer, self.ours):
            row = rows.get(entry)
            if row is None or row.spread is None:
                reason = "not measured" if row is None else f"{entry.contender} {row.reason}"
                return Verdict(self, None, "not run", reason)
        mine, theirs = rows[self.ours].spread, rows[self.peer].spread
        assert mine is not None
        assert theirs is not None
        got = theirs.median / mine.median
        return Verdict(self, got, "passed" if got >= self.ratio else "failed")


@dataclasses.dataclass(frozen=True)
class Memory:
    """A claim about the compiled call's temporary memory: at 8k, or its growth to 32k.

    XLA's own count is used.
    """

    backward: bool
    grows: bool

    @property
    def text(self) -> str:
        """The claim as one line of the report."""
        direction = "forward+backward" if self.backward else "forward"
        what = "growth 8k to 32k over linear" if self.grows else "MB at 8k"
        return f"{MEMORY_SHAPE}, float32, {direction}: temporary memory, {what}"

    @property
    def wanted(self) -> str:
        """The number that passes."""
        return f"≤ {GROWTH_FROM_8K_TO_32K}x" if self.grows else f"≤ {MEGABYTES_AT_8K}"

    def check(self, temp_bytes: Callable[[int, bool], int | None]) -> "Verdict":
        """The verdict; `temp_bytes(T, backward)` counts the bytes at a length T."""
        at_8k = temp_bytes(8192, self.backward)
        if not at_8k:
            return Verdict(self, None, "not run", "XLA counts no temporary memory here")
        got, limit = at_8k / 1e6, MEGABYTES_AT_8K
        if self.grows:
            at_32k = temp_bytes(32768, self.backward)
            if not at_32k:
                return Verdict(self, None, "not run", "XLA counts no temporary memory here")
            got, limit = at_32k / at_8k / 4, GROWTH_FROM_8K_TO_32K
        return Verdict(self, got, "passed" if got <= limit else "failed")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of a claim; `got` is in the unit of `claim.wanted`, None if it was not run."""

    claim: Speed | Memory
    got: float | None
    outcome: Outcome
    reason: str | None = None


def all_passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether there are verdicts and every one passed; a claim that was not run did not pass."""
    return bool(verdicts) and all(verdict.outcome == "passed" for verdict in verdicts)


def _case(shape: str, dtype: str, backward: bool) -> Case:
    return Case(SHAPES[shape], dtype, backward)


def _against(peer: str, ratio: float, shapes: Sequence[str], dtype: str, backward: bool) -> list:
    cases = [_case(shape, dtype, backward) for shape in shapes]
    return [Speed(Entry(case, OURS), Entry(case, peer), ratio) for case in cases]


def _window(backward: bool) -> Speed:
    near = Entry(_case("window-8k", "float32", backward), OURS)
    return Speed(near, Entry(_case("reference-8k-causal", "float32", backward), OURS), 5.0)


_BOTH_4K = ("reference-4k-full", "reference-4k-causal")
_ALL_LENGTHS = tuple(name for name in SHAPES if name.startswith("reference-"))

SPEED: list[Speed] = [
    *_against(_SDPA, 1.05, _ALL_LENGTHS, "float32", False),
    *_against(_FLEX, 1.0, ("reference-8k-causal", "alibi-8k"), "float32", False),
    *_against(_SDPA, 1.4, _BOTH_4K, "bfloat16", False),
    *_against(_SDPA, 1.1, _BOTH_4K, "float32", True),
    *_against(_SDPA, 1.5, _BOTH_4K, "bfloat16", True),
    *_against(_JAX, 5.0, _BOTH_4K, "float32", False),
    *_against(_JAX, 5.0, _BOTH_4K, "float32", True),
    _window(False),
    _window(True),
    *_against(_JAX, 1.0, ("decode-1k", "decode-1k-eager"), "float32", False),
]
# Calls so small that one matmul could compute them: at most slightly slower than the peers.
_SMALL = ("alphafold-192", "cross-77", "queries-64-lengths", "queries-64-mask", "t5-base")
SPEED += [
    claim
    for backward in (False, True)
    for peer in (_JAX, "einsum")
    for claim in _against(peer, 0.9, _SMALL, "float32", backward)
]
MEMORY: list[Memory] = [
    Memory(backward, grows) for backward in (False, True) for grows in (False, True)
]


def select(shapes: Sequence[str]) -> tuple[list[Speed], list[Memory]]:
    """The claims about the shapes of these names; all claims if no name is given."""
    if not shapes:
        return SPEED, MEMORY
    speed = [claim for claim in SPEED if claim.ours.case.shape.name in shapes]
    return speed, MEMORY if MEMORY_SHAPE in shapes else []


def groups(claims: Sequence[Speed]) -> list[list[Entry]]:
    """Groups of entries to time together: for each `ours` of the claims, it and all its peers."""
    together: dict[Entry, dict[Entry, None]] = {}
    for claim in claims:
        together.setdefault(claim.ours, {claim.ours: None})[claim.peer] = None
    return [list(entries) for entries in together.values()]
