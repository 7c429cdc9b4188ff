"""One run of the command line: it prints tables and writes JSON and a figure to a folder."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attn_jax.benchmark import claims, jax_contenders, machine, measure, predict, report, roofline
from attn_jax.benchmark._tools import tool
from attn_jax.benchmark.claims import Memory, Speed, Verdict
from attn_jax.benchmark.contender import Contender
from attn_jax.benchmark.measure import Entry, Row
from attn_jax.benchmark.shapes import QUICK, SHAPES, Case, Shape
from attn_jax.benchmark.timing import Budget

QUICK_SECONDS = 90.0  # after that time --quick starts no further case


@dataclasses.dataclass(frozen=True)
class Options:
    """Times attention on shapes of known models: this library, jax.nn, flax and PyTorch.

    Args:
      shapes: names of shapes, as docs/benchmark.md lists them; all of them by default.
      dtypes: dtypes of the operands.
      rounds: how often every contender is timed; fewer if one case takes over two minutes.
      out: folder for report.json and roofline.png.
      seed: seed of the random inputs.
      quick: five shapes in float32 and five rounds, in about two minutes on two cores.
      claims: check the library's claims about the given shapes, or about all; exit status 0 if
        every claim passes.
      predict: measure nothing; print how long attention would take on TPUs and on an H100,
        predicted from its work.
    """

    shapes: tuple[str, ...] = ()
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    rounds: int = 15
    out: Path = Path("runs/benchmark")
    seed: int = 0
    quick: bool = False
    claims: bool = False
    predict: bool = False


def options(arguments: Sequence[str] | None) -> Options:
    """Parses the options from `arguments`, or from the process's command line if that is None."""
    return tool("tyro").cli(Options, args=arguments, prog="python -m attn_jax.benchmark")


def run(chosen: Options) -> int:
    """Measures the chosen shapes or claims, prints and writes the results; the exit status."""
    if chosen.predict:
        print(*predict.lines(), sep="\n")
        return 0
    unknown = [name for name in chosen.shapes if name not in SHAPES]
    if unknown or chosen.rounds < 1:
        known = ", ".join(SHAPES)
        problem = f"unknown shapes {', '.join(unknown)}; choose from {known}"
        print(problem if unknown else "--rounds must be at least 1", file=sys.stderr)
        return 2
    console = tool("rich.console").Console(highlight=False)
    contenders = {**measure.contenders(), claims.OURS: jax_contenders.DEFAULT}
    speed, memory = claims.select(chosen.shapes)
    planned = claims.groups(speed) if chosen.claims else groups(chosen, contenders)
    rows = _measured(planned, chosen, contenders, console)
    verdicts = _verdicts(speed, memory, rows) if chosen.claims else []
    if chosen.claims:
        console.print(report.verdict_table(verdicts))
    else:
        console.print(report.tables(rows))
    _write(chosen, rows, verdicts, console)
    return 0 if not chosen.claims or claims.all_passed(verdicts) else 1


def groups(chosen: Options, contenders: Mapping[str, Contender]) -> list[list[Entry]]:
    """For each case the entries of all contenders, which are timed together.

    `claims.OURS` is left out: it is one of this library's named implementations.
    """
    names = [name for name in contenders if name != claims.OURS]
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
    contenders: Mapping[str, Contender],
    console: Any,
) -> list[Row]:
    """The rows of all planned groups, with a progress bar."""
    rounds = min(chosen.rounds, 5) if chosen.quick else chosen.rounds
    budget = Budget(rounds=rounds, seconds=10.0 if chosen.quick else 120.0)
    start, rows = time.perf_counter(), []
    with _progress(console, len(planned) * rounds) as (describe, advance):
        for number, entries in enumerate(planned):
            if chosen.quick and time.perf_counter() - start > QUICK_SECONDS:
                rows += [Row(entry, reason="the time of --quick was spent") for entry in entries]
                continue
            case = entries[0].case
            describe(f"{case.shape.name}, {case.dtype}, {case.direction}", number * rounds)
            rows += measure.measure_group(
                entries, contenders, budget, seed=chosen.seed, after_round=advance
            )
    return rows


@contextlib.contextmanager
def _progress(console: Any, total: int) -> Iterator[tuple[Callable, Callable]]:
    """A progress bar: `describe(text, done)` at the start of a group, `advance()` each round.

    Where the output is a file, which cannot show a bar, each group is a line.
    """
    module = tool("rich.progress")
    with module.Progress(
        *module.Progress.get_default_columns(),
        module.TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=total)

        def describe(text: str, done: int) -> None:
            progress.update(task, description=text, completed=done)
            if not console.is_terminal:
                console.print(f"{done} of {total} rounds done; now {text}")

        yield describe, lambda: progress.advance(task)


def _verdicts(
    speed: Sequence[Speed], memory: Sequence[Memory], rows: Sequence[Row]
) -> list[Verdict]:
    """The verdicts: speed claims by the rows of their own group, memory claims by compiling."""
    found: list[Verdict] = []
    for entries in claims.groups(speed):
        here, rows = {row.entry: row for row in rows[: len(entries)]}, rows[len(entries) :]
        found += [claim.check(here) for claim in speed if claim.ours == entries[0]]
    temp_bytes = functools.cache(_temp_bytes)
    return found + [claim.check(temp_bytes) for claim in memory]


def _temp_bytes(T: int, backward: bool) -> int | None:
    """Temporary memory of this library's causal attention in float32 at a length T."""
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
