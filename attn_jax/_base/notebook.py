"""HTML for notebooks: a small table, or a drawing in characters, without script or colours.

Websites that show notebooks, and Jupyter for notebooks that are not trusted, remove styles. So a
table and a drawing can be read without them, and have the notebook's colours, light or dark.
"""

import html
from collections.abc import Iterable, Sequence

_CELL = 'style="text-align:left"'
_DRAWING = (
    'style="font-size:.8em;line-height:.8;letter-spacing:.2em;white-space:pre;overflow-x:auto"'
)


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> str:
    """A table with a title; the first cell of each row is its name."""
    head = "".join(f'<th scope="col" {_CELL}>{_text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row" {_CELL}>{_text(name)}</th>'
        + "".join(f"<td {_CELL}>{_text(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f"{_title(title)}<table>{f'<tr>{head}</tr>' if header else ''}{body}</table>"


def drawing(title: str, lines: Iterable[str], legend: str) -> str:
    """A drawing in characters of equal width, with a title, and a legend below."""
    text = _text("\n".join(lines))
    return f"{_title(title)}<pre {_DRAWING}>{text}</pre><p>{_text(legend)}</p>"


def sentence(title: str, text: str) -> str:
    """A title and a sentence, where there is nothing to draw."""
    return f"{_title(title)}<p>{_text(text)}</p>"


def _title(title: str) -> str:
    return f"<p><code>{_text(title)}</code></p>"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
