"""README.md is also the page of a package index: links are absolute, and code shows its output."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

if not README.exists():
    pytest.skip("the wheel has no README", allow_module_level=True)

TEXT = README.read_text("utf-8")
HOME = "https://github.com/attn-jax/attn_jax"
PAGE = f"{HOME}/blob/main/"
PICTURE = "https://raw.githubusercontent.com/attn-jax/attn_jax/main/"
LINK = re.compile(r"(!?)\[[^]]*\]\(([^)\s]+)\)|<\w+[^>]* (?:href|src|srcset)=\"([^\"]+)\"")
MOST_LINES = 170


def links(text: str) -> list[str]:
    """The addresses of all links and pictures, in Markdown and in HTML."""
    return [found[2] or found[3] for found in LINK.finditer(text)]


@pytest.mark.parametrize("link", links(TEXT))
def test_a_link_is_absolute_and_a_file_of_this_repository_exists(link):
    assert link.startswith("https://")
    if link.startswith((HOME, PICTURE)):
        path = link.removeprefix(PAGE).removeprefix(PICTURE)
        assert not path.startswith("https://"), f"write {PAGE}…"
        assert (ROOT / path).is_file()


def test_a_picture_is_linked_as_a_file_and_not_as_a_page():
    pictures = [found[2] for found in LINK.finditer(TEXT) if found[1]]
    assert len(pictures) >= 2
    assert all(picture.startswith(PICTURE) for picture in pictures)


@pytest.mark.parametrize(
    "text", ["[a](docs/a.md)", "![a](docs/a.png)", '<img src="docs/a.png">', "[a](#install)"]
)
def test_relative_links_are_found(text):
    [link] = links(text)
    assert not link.startswith("https://")


def test_a_block_of_python_is_followed_by_what_it_prints():
    blocks = re.findall(r"```python\n.*?```(.*?)```(\w*)\n", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python") > 0
    for between, language in blocks:
        assert language == "text", "the printed output, in a block of text, is missing"
        assert between.split() == ["It", "prints:"]


def test_the_page_is_short():
    assert len(TEXT.splitlines()) <= MOST_LINES
