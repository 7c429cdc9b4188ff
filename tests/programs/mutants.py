"""Plants known bugs in a copy of the library, one by one, and checks that the tests fail.

    python tests/programs/mutants.py --all
    python tests/programs/mutants.py --seed 7 --count 3
    python tests/programs/mutants.py --only "mask inverted"
    python tests/programs/mutants.py --sound     # checks that the same tests pass without a mutant

Exit code 1 if a mutant survives, its text does not occur exactly once, or its tests do not run.
"""

import argparse
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "data" / "mutants.toml"
FAILED_TESTS, PASSED_TESTS = 1, 0  # exit codes of pytest; it has others for tests that did not run
KILLED = "killed"


class Mutant(NamedTuple):
    """`text`, which occurs once in `file`, becomes `replacement`; the tests must then fail."""

    name: str
    file: str  # in attn_jax
    text: str
    replacement: str
    tests: str  # arguments of pytest, in tests


MUTANTS = [Mutant(**row) for row in tomllib.loads(TABLE.read_text())["mutant"]]


def occurrences(mutant: Mutant, root: Path = ROOT) -> int:
    """How often the text of a mutant occurs in its file."""
    return (root / "attn_jax" / mutant.file).read_text().count(mutant.text)


def draw_mutants(seed: int, count: int) -> list[Mutant]:
    """`count` random mutants, the same ones for one seed."""
    return random.Random(seed).sample(MUTANTS, count)


def copy(folder: Path) -> None:
    """Copies the library and its tests into a folder."""
    for name in ("attn_jax", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def outcome_of(mutant: Mutant, folder: Path) -> str:
    """Plants one mutant in a copy, runs its tests there, and restores the file."""
    if occurrences(mutant, folder) != 1:
        return f"NOT APPLICABLE: its text occurs {occurrences(mutant, folder)} times"
    file = folder / "attn_jax" / mutant.file
    sound = file.read_text()
    file.write_text(sound.replace(mutant.text, mutant.replacement))
    try:
        run = run_tests(mutant.tests, folder)
    finally:
        file.write_text(sound)
    if run.returncode == PASSED_TESTS:
        return "SURVIVED"
    if run.returncode == FAILED_TESTS:
        return KILLED
    return f"NOT RUN: {run.stdout[-500:]}"


def run_tests(arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Pytest on the copy, up to the first failure."""
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *shlex.split(arguments)],
        cwd=folder / "tests",
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def unkilled(mutants: list[Mutant]) -> list[Mutant]:
    """Prints the outcome of each mutant; returns the mutants that were not killed."""
    left = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        for number, mutant in enumerate(mutants, start=1):
            start = time.monotonic()
            outcome = outcome_of(mutant, folder)
            seconds = time.monotonic() - start
            print(f"{number}/{len(mutants)} {mutant.name}: {outcome} ({seconds:.0f} s)", flush=True)
            if outcome != KILLED:
                left.append(mutant)
    print(f"{len(mutants) - len(left)} of {len(mutants)} killed")
    return left


def failing_without_a_mutant() -> list[str]:
    """Tests of the table that fail, or do not run, on a copy without a mutant."""
    left = []
    with tempfile.TemporaryDirectory() as name:
        copy(Path(name))
        for tests in sorted({mutant.tests for mutant in MUTANTS}):
            passes = run_tests(tests, Path(name)).returncode == PASSED_TESTS
            print(f"{tests}: {'passes' if passes else 'FAILS'} without a mutant", flush=True)
            if not passes:
                left.append(tests)
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every mutant of the table")
    parser.add_argument("--sound", action="store_true", help="the tests without any mutant")
    parser.add_argument("--only", action="append", help="a mutant by its name; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--count", type=int, default=2, help="how many are drawn")
    options = parser.parse_args()
    if options.sound:
        return 1 if failing_without_a_mutant() else 0
    mutants = MUTANTS if options.all else draw_mutants(options.seed, options.count)
    if options.only:
        mutants = [mutant for mutant in MUTANTS if mutant.name in options.only]
        if len(mutants) != len(options.only):
            parser.error(f"no such mutant; there are {', '.join(m.name for m in MUTANTS)}")
    return 1 if unkilled(mutants) else 0


if __name__ == "__main__":
    sys.exit(main())
