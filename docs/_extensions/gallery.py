"""The gallery: pages and pictures from stored arrays, and a directive that shows them as cards.

`experiments.gallery` trained the networks and stored what the pages show. The build writes each
page beside the gallery's own page, and a picture of its first head for the card.
"""

import functools
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from attn_jax.viewer import AttentionView
from experiments.gallery import pages

PICTURES = Path(__file__).resolve().parents[2] / "build" / "gallery"


@functools.cache
def views() -> dict[str, AttentionView]:
    """All pages of the gallery, by file name."""
    return pages.all_pages()


def write_pictures(app: Sphinx) -> None:
    """Writes a picture of each page, which the build copies."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, view in views().items():
        view.to_png(PICTURES / f"{name}.png")


def write_pages(app: Sphinx, error: Exception | None) -> None:
    """Writes the pages beside the gallery's page."""
    if error is None and app.builder.format == "html":
        pages.written(views(), Path(app.outdir) / "gallery")


class Gallery(SphinxDirective):
    """A card for each page: picture, title and note."""

    def run(self) -> list[nodes.Node]:
        """The cards in a grid."""
        cards = [card(name, view) for name, view in views().items()]
        text = "\n".join(["``````{grid} 1 2 2 2", ":gutter: 3", "", *cards, "``````"])
        return self.parse_text_to_nodes(text)


def card(name: str, view: AttentionView) -> str:
    """One card in MyST Markdown; all of it is a link to the page."""
    return f"""\
`````{{grid-item-card}} {view.title}
:link: {name}.html
:link-type: url
:img-top: /../build/gallery/{name}.png
:img-alt: attention matrix of the first head
:class-img-top: picture

{view.note}
`````"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the directive and makes the pages."""
    app.connect("builder-inited", write_pictures)
    app.connect("build-finished", write_pages)
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
