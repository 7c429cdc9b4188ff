"""The version of the library: the installed one's, or in a source tree that of pyproject.toml."""

import importlib.metadata
import tomllib
from pathlib import Path

_NAME = "attn-jax"
UNKNOWN = "0+unknown"


def version(package: Path = Path(__file__).parent) -> str:
    """Says what `attn_jax.__version__` is.

    A source tree goes before what is installed: it is what was imported.

    Args:
      package: the folder `attn_jax`.

    Returns:
      The version of the pyproject.toml beside the folder, of the installed package, or `UNKNOWN`.
    """
    try:
        project = tomllib.loads((package.parent / "pyproject.toml").read_text())["project"]
        if project["name"] == _NAME:
            return project["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        pass
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
