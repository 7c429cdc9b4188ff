"""A real browser that opens file:// pages and records console errors and requests.

The browser is Debian's Chromium, or the program that CHROMIUM names. Without a browser or without
Playwright, every test here is skipped; with BROWSER_TESTS=required a missing browser is a failure.
"""

import os
import shutil

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found_browser() -> str | None:
    """The path of a Chromium, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    path = found_browser()
    if path is None:
        message = "no Chromium was found: install Debian's package chromium, or set CHROMIUM=path"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Seen:
    """A page, with its console messages, errors and requests."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path):
        """Opens a file and waits until its tabs are drawn."""
        self.page.goto(path.resolve().as_uri())
        self.page.wait_for_selector("[role=tab]")
        return self.page


@pytest.fixture
def look(chromium):
    """Opens a file; after the test, checks that no console message or other request occurred."""
    seen = []

    def opened(path, **options):
        seen.append((Seen(chromium, **options), path))
        return seen[-1][0].open(path)

    yield opened
    for one, path in seen:
        one.context.close()
        assert one.errors == []
        assert one.requests == [path.resolve().as_uri()]
