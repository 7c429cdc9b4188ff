"""One run of the command: options in, table on the terminal, JSON and a picture in a folder."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attn_jax.benchmark import claims, jax_contenders, machine, measure, report, roofline
from attn_jax.benchmark._tools import tool
from attn_jax.benchmark.claims import Memory, Speed, Verdict
from attn_jax.benchmark.contract import Contender
from attn_jax.benchmark.measure import Entry, Row
from attn_jax.benchmark.shapes import QUICK, SHAPES, Case, Shape
from attn_jax.benchmark.timing import Patience

QUICK_SECONDS = 90.0  # after which --quick starts nothing new


@dataclasses.dataclass(frozen=True)
class Options:
    """Attention on shapes of known models: this library beside jax.nn, flax and PyTorch.

    Args:
      shapes: names of shapes, as docs/benchmark.md lists them; all of them by default.
      dtypes: in which precision.
      rounds: how often every contender has its turn; fewer where a bout takes over two minutes.
      out: folder for report.json and roofline.png.
      seed: of the inputs.
      quick: five shapes in float32 and five rounds, in about two minutes on two cores.
      claims: check what the library claims instead, about the given shapes or all; exit status 0
        if every line passes.
    """

    shapes: tuple[str, ...] = ()
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    rounds: int = 15
    out: Path = Path("runs/benchmark")
    seed: int = 0
    quick: bool = False
    claims: bool = False


def options(arguments: Sequence[str] | None) -> Options:
    """The options of a command line; the process's own where none is given."""
    return tool("tyro").cli(Options, args=arguments, prog="python -m attn_jax.benchmark")


def run(chosen: Options) -> int:
    """Measures, prints, writes; returns the exit status."""
    unknown = [name for name in chosen.shapes if name not in SHAPES]
    if unknown or chosen.rounds < 1:
        known = ", ".join(SHAPES)
        problem = f"unknown shapes {', '.join(unknown)}; choose from {known}"
        print(problem if unknown else "--rounds must be at least 1", file=sys.stderr)
        return 2
    console = tool("rich.console").Console(highlight=False)
    field = {**measure.contenders(), claims.OURS: jax_contenders.DEFAULT}
    speed, memory = claims.about(chosen.shapes)
    planned = claims.bouts(speed) if chosen.claims else bouts(chosen, field)
    rows = _measured(planned, chosen, field, console)
    verdicts = _verdicts(speed, memory, rows) if chosen.claims else []
    if chosen.claims:
        console.print(report.verdict_table(verdicts))
    else:
        console.print(report.tables(rows))
    _write(chosen, rows, verdicts, console)
    return 0 if not chosen.claims or claims.hold(verdicts) else 1


def bouts(chosen: Options, field: Mapping[str, Contender]) -> list[list[Entry]]:
    """Every contender on every case; the default is one of the named backends and has no turn."""
    names = [name for name in field if name != claims.OURS]
    dtypes = ("float32",) if chosen.quick else chosen.dtypes
    cases = [
        Case(shape, dtype, backward)
        for shape in _shapes(chosen)
        for dtype in dtypes
        for backward in ((False,) if shape.T == 1 else (False, True))
    ]
    return [[Entry(case, name) for name in names] for case in cases]


def _shapes(chosen: Options) -> list[Shape]:
    names = chosen.shapes or (QUICK if chosen.quick else tuple(SHAPES))
    return [SHAPES[name] for name in names]


def _measured(
    planned: Sequence[Sequence[Entry]],
    chosen: Options,
    field: Mapping[str, Contender],
    console: Any,
) -> list[Row]:
    rounds = min(chosen.rounds, 5) if chosen.quick else chosen.rounds
    patience = Patience(rounds=rounds, seconds=10.0 if chosen.quick else 120.0)
    start, rows = time.perf_counter(), []
    with _progress(console, len(planned) * rounds) as (say, advance):
        for number, entries in enumerate(planned):
            if chosen.quick and time.perf_counter() - start > QUICK_SECONDS:
                rows += [Row(entry, reason="the time of --quick was spent") for entry in entries]
                continue
            case = entries[0].case
            say(f"{case.shape.name}, {case.dtype}, {case.direction}", number * rounds)
            rows += measure.bout(entries, field, patience, seed=chosen.seed, after_round=advance)
    return rows


@contextlib.contextmanager
def _progress(console: Any, total: int) -> Iterator[tuple[Callable, Callable]]:
    """A bar on the terminal: `say(text, done)` at the start of a bout, `advance()` a round."""
    module = tool("rich.progress")
    with module.Progress(
        *module.Progress.get_default_columns(),
        module.TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=total)
        yield (
            lambda text, done: progress.update(task, description=text, completed=done),
            lambda: progress.advance(task),
        )


def _verdicts(
    speed: Sequence[Speed], memory: Sequence[Memory], rows: Sequence[Row]
) -> list[Verdict]:
    """Each speed claim by the rows of its own bout, then the memory claims, which compile only."""
    found: list[Verdict] = []
    for entries in claims.bouts(speed):
        here, rows = {row.entry: row for row in rows[: len(entries)]}, rows[len(entries) :]
        found += [claim.check(here) for claim in speed if claim.ours == entries[0]]
    temp_bytes = functools.cache(_temp_bytes)
    return found + [claim.check(temp_bytes) for claim in memory]


def _temp_bytes(T: int, backward: bool) -> int | None:
    shape = Shape(f"causal-{T}", T=T, N=8, H=64, is_causal=True)
    attention = jax_contenders.DEFAULT.attention(shape)
    return jax_contenders.temp_bytes(attention, shape, "float32", backward)


def _write(chosen: Options, rows: Sequence[Row], verdicts: Sequence[Verdict], console: Any) -> None:
    bandwidth = machine.bandwidth()
    facts = {
        **machine.environment(),
        "seed": chosen.seed,
        "options": {**dataclasses.asdict(chosen), "out": str(chosen.out)},
        "memory_bytes_per_second": bandwidth,
    }
    name = "claims.json" if chosen.claims else "report.json"
    paths = [report.write(chosen.out, name, report.as_json(rows, verdicts, facts))]
    if not chosen.claims:
        paths.append(report.write(chosen.out, "roofline.png", roofline.png(rows, bandwidth)))
    console.print("wrote " + " and ".join(map(str, paths)))
