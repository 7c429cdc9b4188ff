"""A real browser over file://, in which no console error and no request goes unseen.

Chromium is looked for where Debian puts it, or where CHROMIUM says; `make test-browser` installs
nothing and says what to install. Without it, or without Playwright, every test here is skipped.
"""

import os
import shutil

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found_browser() -> str | None:
    """The path of a Chromium."""
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
    """A page, with everything that went wrong on it."""

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
        """Opens a file and waits until it is drawn."""
        self.page.goto(path.resolve().as_uri())
        self.page.wait_for_selector("[role=tab]")
        return self.page


@pytest.fixture
def look(chromium):
    """Opens a file; at the end there was no console message and no request but for the file."""
    seen = []

    def opened(path, **options):
        seen.append((Seen(chromium, **options), path))
        return seen[-1][0].open(path)

    yield opened
    for one, path in seen:
        one.context.close()
        assert one.errors == []
        assert one.requests == [path.resolve().as_uri()]
