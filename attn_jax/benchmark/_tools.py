"""Imports of the command line's optional packages when they are used."""

import importlib
from types import ModuleType


class MissingToolError(Exception):
    """A tool of the command line is not installed; the message says how to get it."""


def tool(name: str) -> ModuleType:
    """Imports a module; raises `MissingToolError` if its package is not installed."""
    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingToolError(
            f"python -m attn_jax.benchmark needs {package}: pip install 'attn-jax[benchmark]'"
        ) from error
