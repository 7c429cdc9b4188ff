"""Exports of a view: an HTML page, a notebook cell, or a picture."""

import dataclasses
import os
import tempfile
from pathlib import Path

from attn_jax.viewer import _figure
from attn_jax.viewer._page import notebook_frame, page_html
from attn_jax.viewer._record import AttentionRecord


@dataclasses.dataclass(frozen=True)
class Exports:
    """Attention records with a title, and the methods that export them.

    Attributes:
      readings: the attention records, one for each model and input.
      title: of the page.
      note: a sentence under the title.
    """

    readings: tuple[AttentionRecord, ...]
    title: str
    note: str = ""

    def to_html(self) -> str:
        """The page as HTML text, with data, script and style inside."""
        return page_html(self.title, self.note, [record.as_json() for record in self.readings])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page to a file and returns its path; an error leaves no partial file.

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
        return _write("path", path, _figure.matrix_picture(self.readings, layer, head, "png"))

    def to_svg(self, path: str | os.PathLike[str], *, layer: int = 0, head: int = 0) -> Path:
        """Writes one head's matrix as a vector drawing; otherwise as `to_png`."""
        return _write("path", path, _figure.matrix_picture(self.readings, layer, head, "svg"))

    def _repr_html_(self) -> str:
        return notebook_frame(self.title, self.to_html())


def _write(name: str, path: str | os.PathLike[str], content: bytes) -> Path:
    target, temporary = Path(path), None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OSError(
            f"{name}={str(target)!r} cannot be written ({error.strerror}); name a file in an "
            f"existing folder with write permission"
        ) from error
    return target
