"""What an experiment measured, written down: as JSON with where it was measured, and as tables."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.reports.environment import environment

DIGITS = 4  # of the numbers in an array


def as_json(findings: Any) -> bytes:
    """A dataclass as JSON, arrays as lists of rounded numbers, and the environment of the run."""
    content = dataclasses.asdict(findings) | {"environment": dataclasses.asdict(environment())}
    return (json.dumps(content, ensure_ascii=False, indent=2, default=_plain) + "\n").encode()


def _plain(array: np.ndarray) -> list:
    return array.round(DIGITS).tolist()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a report, of numbers: all columns end flush."""
    marks = ["---:"] * len(header)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, marks, *rows))
