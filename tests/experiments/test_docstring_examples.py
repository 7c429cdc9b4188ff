"""The examples in the docstrings of the experiments are true."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_are_true(module, request):
    names = {"np": np, "getfixture": request.getfixturevalue}
    failed, tried = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert (failed, tried > 0) == (0, True)
