"""How a view leaves Python: as a page, in a notebook, or as a picture."""

import dataclasses
import os
import tempfile
from pathlib import Path

from attn_jax.viewer import _figure
from attn_jax.viewer._page import as_frame, as_page
from attn_jax.viewer._reading import Reading


@dataclasses.dataclass(frozen=True)
class Saved:
    """What can be done with readings under a title."""

    readings: tuple[Reading, ...]
    title: str
    note: str = ""

    def to_html(self) -> str:
        """The page: one HTML file that needs nothing else."""
        return as_page(self.title, self.note, [reading.as_json() for reading in self.readings])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page to a file, whole or not at all, and returns its path.

        Raises:
          OSError: the file cannot be written.
        """
        return _write("path", path, self.to_html().encode("utf-8"))

    def to_png(self, path: str | os.PathLike[str], *, layer: int = 0, head: int = 0) -> Path:
        """Writes one head's matrix as a picture for a paper; needs matplotlib.

        Raises:
          OSError: the file cannot be written.
          ValueError: there is no such layer or head.
        """
        return _write("path", path, _figure.drawn(self.readings, layer, head, "png"))

    def to_svg(self, path: str | os.PathLike[str], *, layer: int = 0, head: int = 0) -> Path:
        """As `to_png`, as a drawing that can be scaled."""
        return _write("path", path, _figure.drawn(self.readings, layer, head, "svg"))

    def _repr_html_(self) -> str:
        return as_frame(self.title, self.to_html())


def _write(name: str, path: str | os.PathLike[str], content: bytes) -> Path:
    target, written = Path(path), None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            written = Path(file.name)
            file.write(content)
        written.chmod(0o644)
        written.replace(target)
    except OSError as error:
        if written is not None:
            written.unlink(missing_ok=True)
        raise OSError(
            f"{name}={str(target)!r} cannot be written ({error.strerror}); name a file in a folder "
            f"that exists and that you may write to"
        ) from error
    return target
