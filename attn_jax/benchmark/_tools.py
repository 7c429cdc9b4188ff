"""The tools of the command line, imported when they are used: the library works without them."""

import importlib
from types import ModuleType


class MissingToolError(Exception):
    """A tool of the command line is not installed; the message says how to get it."""


def tool(name: str) -> ModuleType:
    """The module, or `MissingToolError` that says how to install its package."""
    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingToolError(
            f"python -m attn_jax.benchmark needs {package}: pip install {package}"
        ) from error
