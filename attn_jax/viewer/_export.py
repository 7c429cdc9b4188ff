"""Exports of a view: an HTML page, a notebook cell, or a picture."""

import base64
import dataclasses
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from attn_jax.viewer import _figure
from attn_jax.viewer._page import notebook_frame, page_html
from attn_jax.viewer._record import AttentionRecord

PICTURED = 512  # most queries or keys of which a notebook gets a picture; it takes up to a second
LONGEST = 60  # most characters of the title in `repr`
ON_A_SCREEN = {"dpi": 100.0, "most_pixels": 800.0}  # the size of that picture


@dataclasses.dataclass(frozen=True, repr=False)
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
        return notebook_frame(self.title, self.to_html(), self._picture())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The page for notebooks, and a PNG picture for programs that show no HTML."""
        del include, exclude  # IPython selects from the result.
        picture = self._picture()
        bundle = {"text/html": notebook_frame(self.title, self.to_html(), picture)}
        if picture is not None:
            bundle["image/png"] = base64.b64encode(picture).decode("ascii")
        return bundle

    def _picture(self) -> bytes | None:
        """The first head of one or two records as a PNG file, or None for a long text.

        The picture only stands in for the page, so a missing or broken matplotlib is no error.
        """
        pictured = self.readings[:2]
        if max(len(side) for r in pictured for side in (r.queries, r.keys)) > PICTURED:
            return None
        try:
            with warnings.catch_warnings(action="ignore"):  # characters that its font lacks
                return _figure.matrix_picture(pictured, 0, 0, "png", **ON_A_SCREEN)
        except Exception:  # of any kind: an error in a picture must not hide the page
            return None

    def __repr__(self) -> str:
        sizes = "; ".join(record.size_text for record in self.readings)
        return f"{type(self).__name__}({_short(self.title)}: {sizes})"


def _short(text: str) -> str:
    return repr(text if len(text) <= LONGEST else text[:LONGEST] + "…")


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
