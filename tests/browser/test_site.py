"""The site that `make docs` built, as files in a real browser: search, links, examples, width."""

import functools
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

from docs._extensions import public_names
from tests.browser.conftest import Seen
from tests.browser.test_access import AUDIT
from tests.repository.test_public_api import MEMBERS

SITE = Path(__file__).resolve().parents[2] / "build" / "docs"
WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")

# What reaches beyond its page's column, and does not scroll inside a frame of its own.
TOO_WIDE = """() => {
  const edge = document.querySelector(".content").getBoundingClientRect().right + 1;
  return [...document.querySelectorAll("article *")]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > edge)
    .filter((node) => !node.parentElement.closest("pre, .table-wrapper, .formula"))
    .map((node) => node.outerHTML.slice(0, 90)); }"""

# The viewer's own pages have their own tests.
VIEWS = {path.name for path in (SITE / "gallery").glob("*.html")} - {"index.html"}
PAGES = [path for path in sorted(SITE.rglob("*.html")) if path.name not in VIEWS]


@pytest.fixture(autouse=True, scope="module")
def built():
    """The site, or a message that it is missing."""
    assert (SITE / "objects.inv").exists(), "build/docs has no site: run `make docs` first"


@pytest.fixture
def visit(chromium):
    """Opens pages of the site; no page may write to the console or load anything from elsewhere."""
    opened = []

    def visited(**options):
        opened.append(Seen(chromium, **options))
        return opened[-1].page

    yield visited
    for one in opened:
        one.context.close()
        assert one.errors == []
        assert not [url for url in one.requests if not is_local(url)]


def is_local(url):
    return url.startswith((SITE.as_uri(), "data:", "about:", "blob:"))


@functools.cache
def entries():
    """The address of each Python name in the site's inventory."""
    inventory = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    return {
        name: item.uri
        for kind, items in inventory.data.items()
        if kind.startswith("py:")
        for name, item in items.items()
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_screen(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert len(PAGES) > 40
    wide = {}
    for path in PAGES:
        page.goto(path.as_uri())
        found = page.evaluate(TOO_WIDE)
        if found or page.evaluate("document.documentElement.scrollWidth") > width:
            wide[str(path.relative_to(SITE))] = found
    assert wide == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_has_the_colours_that_the_system_asks_for(visit, scheme):
    page = visit(color_scheme=scheme)
    page.goto((SITE / "index.html").as_uri())
    colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    assert (max(page.evaluate(colour)) < 60) == (scheme == "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["index", "how_to_choose", "reference/masks", "gallery/index"])
def test_texts_have_contrast(visit, name, scheme):
    page = visit(color_scheme=scheme)
    page.goto((SITE / f"{name}.html").as_uri())
    page.locator(".copybtn").evaluate_all("all => all.forEach(one => one.remove())")  # pictures
    assert page.evaluate(f"() => {{ {AUDIT} return faint(); }}") == []


def test_search_finds_alibi_without_a_server(visit):
    page = visit()
    page.goto((SITE / "index.html").as_uri())
    page.locator(".sidebar-search").fill("alibi")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any(link.endswith("score_mods.html#attn_jax.score_mods.alibi") for link in found)
    page.goto(found[0])
    assert "alibi" in page.locator("article").text_content().lower()


def test_every_public_name_has_an_entry():
    documented = public_names.documented()
    missing = [name for name in MEMBERS if documented[name] not in entries()]
    assert not missing, f"run `make docs` again, or see docs/reference: {missing}"


def test_the_entry_of_every_public_name_has_a_signature_and_an_example(visit):
    page = visit()
    by_page = {}
    for name in {public_names.documented()[name] for name in MEMBERS}:
        by_page.setdefault(entries()[name].partition("#")[0], []).append(name)
    assert len(by_page) == len(public_names.NAMESPACES)
    for address, names in by_page.items():
        page.goto((SITE / address).as_uri())
        without = page.evaluate(
            """names => names.filter(name => {
              const signature = document.getElementById(name);
              const body = signature.nextElementSibling;
              const example = body.querySelector(":scope > .doctest, :scope > .highlight-python");
              return !signature.matches("dt.sig") || !example?.textContent.includes(">>> "); })""",
            names,
        )
        assert without == [], address


def test_an_example_is_copied_without_prompts_and_output(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.goto((SITE / "reference" / "masks.html").as_uri())
    example = page.locator("dl:has(> [id='attn_jax.masks.causal']) .doctest")
    example.hover()
    example.locator("button.copybtn").click()
    page.wait_for_selector("button.copybtn.success")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines() == [
        "import attn_jax",
        "print(attn_jax.masks.draw(attn_jax.masks.causal(), 4, 4))",
    ]


def test_the_gallery_shows_a_picture_of_each_page_and_opens_it(visit):
    page = visit()
    page.goto((SITE / "gallery" / "index.html").as_uri())
    pictures = page.locator(".sd-card img")
    assert pictures.count() == len(VIEWS) == 7
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth > 300)")
    page.locator(".sd-card").first.click()
    page.wait_for_selector("[role=tab]")
    assert page.title().startswith("Figure 3(a)")


class Links(HTMLParser):
    """The links of a page, and the places that links can point to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.places.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])


@functools.cache
def links_of(path):
    return Links(path.read_text("utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_links_inside_the_site_have_a_target(path):
    for link in links_of(path).links:
        address = urlsplit(link)
        if address.scheme or not (address.path or address.fragment):
            continue
        target = (path.parent / unquote(address.path)).resolve() if address.path else path
        assert target.is_relative_to(SITE), link
        assert target.exists(), link
        place = unquote(address.fragment)
        assert not place or target.suffix != ".html" or place in links_of(target).places, link
