"""Date, commit, machine and package versions of a run."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

from attn_jax.benchmark.machine import processor

PACKAGES = ("jax", "flax", "optax", "numpy", "tokenizers", "sacrebleu")


@dataclasses.dataclass(frozen=True)
class Environment:
    """The facts of a run that its settings do not contain."""

    date: str
    commit: str | None
    python: str
    platform: str
    processor: str
    cores: int
    device: str
    versions: dict[str, str]


def environment() -> Environment:
    """The environment of this process, now; `commit` is None outside a git checkout."""
    return Environment(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        commit=_commit(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=os.cpu_count() or 1,
        device=jax.devices()[0].device_kind,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _commit() -> str | None:
    """The commit of this checkout; a note follows if files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit} with uncommitted changes" if _git("status", "--porcelain") else commit


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
