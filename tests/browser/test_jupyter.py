"""A view in real JupyterLab: after Shift+Enter, reopened, not trusted, and exported to HTML."""

import json
import subprocess
import sys

import pytest

from tests.browser.jupyter import jupyterlab, notebook

COUNT = 24  # tokens: the cells of the matrix are narrower than the greatest width of a cell
SETUP = f"""\
import numpy as np
from attn_jax.viewer import AttentionView
query, key = np.random.default_rng(0).normal(size=(2, 2, {COUNT}, 3, 8))
view = AttentionView.from_qk(query, key, [f"t{{i}}" for i in range({COUNT})], title="Heads")"""
SIZES = """() => {
  const [root, box] = [document.documentElement, document.documentElement.getBoundingClientRect()];
  return { frame: innerHeight, page: box.height, scrolled: root.scrollHeight,
    canvas: document.querySelector("canvas").clientWidth,
    first: document.querySelector(".split > *")?.clientWidth }; }"""
WAIT = 60_000  # most milliseconds for JupyterLab, its kernel or a cell


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    with jupyterlab(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture
def browser_page(chromium):
    """An empty page; after the test, checks that it requested nothing from other machines."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page, requests = context.new_page(), []
    page.set_default_timeout(WAIT)
    page.on("request", lambda request: requests.append(request.url))
    yield page
    context.close()
    here = ("http://127.0.0.1:", "file://", "data:", "blob:", "about:")
    assert [url for url in requests if not url.startswith(here)] == []


def open_notebook(page, server, name):
    page.goto(f"{server.address}/lab/tree/{name}?token={server.token}&reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator("#jp-main-statusbar").get_by_text("(ipykernel) | Idle").wait_for()


def cell_of(page, number):
    """A cell; JupyterLab removes cells far outside of the screen from the document."""
    return page.locator(f'.jp-Cell[data-windowed-list-index="{number}"]')


def run_cells(page, count):
    """Runs the first cells, each with Shift+Enter after the one before has ended."""
    cell_of(page, 0).locator(".cm-content").click()
    for number in range(count):
        page.keyboard.press("Shift+Enter")
        done = f"[{number + 1}]"
        cell_of(page, number).locator(".jp-InputPrompt", has_text=done).wait_for(state="attached")
        yield number


def frame_of(place):
    """The page in an iframe, once its matrix is drawn and the notebook has answered."""
    frame = place.locator("iframe[srcdoc]").element_handle().content_frame()
    frame.wait_for_selector("canvas")
    frame.wait_for_selector("html.fitted", state="attached")
    return frame


def assert_fits(frame):
    """Checks that the frame is as high as its page, without a scroll bar or empty space."""
    frame.wait_for_function("() => innerHeight >= document.documentElement.scrollHeight")
    sizes = frame.evaluate(SIZES)
    assert sizes["scrolled"] == sizes["frame"]
    assert 0 <= sizes["frame"] - sizes["page"] < 1


def assert_is_wide(frame):
    """Checks that the matrix has the width that its frame gives it."""
    frame.wait_for_function("() => document.querySelector('canvas').clientWidth > 500")
    sizes = frame.evaluate(SIZES)
    assert sizes["first"] > 500
    assert sizes["first"] - 2 <= sizes["canvas"] <= sizes["first"]


def saved(page, server, name, *cells):
    """A notebook whose cells were run, and saved with their outputs."""
    path = server.folder / name
    path.write_text(notebook(*cells), encoding="utf-8")
    open_notebook(page, server, name)
    for _ in run_cells(page, len(cells)):
        pass
    frame_of(page)
    page.locator(".jp-InputPrompt").first.click()
    with page.expect_response(lambda r: r.request.method == "PUT" and name in r.url):
        page.keyboard.press("Control+s")
    return path


def test_each_view_fills_its_frame_when_its_cell_was_run(server, browser_page):
    path = server.folder / "fresh.ipynb"
    path.write_text(notebook(SETUP, "view", "view", "view"), encoding="utf-8")
    open_notebook(browser_page, server, path.name)
    for number in run_cells(browser_page, 4):
        if number > 0:
            frame = frame_of(cell_of(browser_page, number))
            assert_is_wide(frame)
            assert_fits(frame)


def test_the_frame_has_the_height_of_every_tab(server, browser_page):
    saved(browser_page, server, "tabs.ipynb", SETUP, "view")
    frame = frame_of(browser_page)
    heights = set()
    for tab in frame.query_selector_all("[role=tab]"):
        frame.click(f"#{tab.get_attribute('id')}")
        frame.wait_for_timeout(300)
        assert_fits(frame)
        heights.add(frame.evaluate(SIZES)["frame"])
    assert len(heights) > 2


def test_a_trusted_notebook_shows_the_page_again(server, browser_page):
    path = saved(browser_page, server, "trusted.ipynb", SETUP, "view")
    browser_page.goto("about:blank")
    open_notebook(browser_page, server, path.name)
    frame = frame_of(browser_page)
    assert_is_wide(frame)
    assert_fits(frame)


def test_a_notebook_that_is_not_trusted_shows_the_picture(server, browser_page):
    path = saved(browser_page, server, "signed.ipynb", SETUP, "view")
    changed = json.loads(path.read_text(encoding="utf-8"))
    [output] = changed["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/html", "image/png", "text/plain"}
    assert "".join(output["data"]["text/plain"]).startswith("AttentionView('Heads'")
    changed["cells"][0]["source"] = "# sent by somebody else"
    (server.folder / "unsigned.ipynb").write_text(json.dumps(changed), encoding="utf-8")
    open_notebook(browser_page, server, "unsigned.ipynb")
    shown = browser_page.locator(".jp-OutputArea-output")
    shown.locator("img").wait_for()
    assert shown.locator("img").evaluate("node => node.naturalWidth") > 300
    assert "open this notebook in Jupyter and trust it" in shown.text_content()
    assert browser_page.locator("iframe[srcdoc]").count() == 0


def test_an_export_to_html_shows_the_page_without_a_request(server, browser_page, tmp_path):
    path = saved(browser_page, server, "export.ipynb", SETUP, "view")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(path)]
    command += ["--output-dir", str(tmp_path), "--HTMLExporter.mathjax_url="]
    command += ["--HTMLExporter.require_js_url=", "--HTMLExporter.jquery_url="]
    subprocess.run(command, check=True, capture_output=True)
    browser_page.goto((tmp_path / "export.html").as_uri())
    frame = frame_of(browser_page)
    assert_is_wide(frame)
    assert_fits(frame)
    assert not browser_page.get_by_text("trust it").is_visible()
