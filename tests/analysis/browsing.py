"""A headless browser for tests, and what a page does in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, driven by playwright; skipped where there is none, unless it is required."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("DYNASCOPE_REQUIRE_BROWSER") == "1":
            pytest.fail("DYNASCOPE_REQUIRE_BROWSER is set, and no chromium is on PATH")
        pytest.skip("no chromium on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, file: Path, width: int = 1280) -> Iterator:
    """The page of a file; at the end it has asked for nothing else and has logged no error."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.resolve().as_uri())
    yield page
    page.close()
    others = [url[:80] for url in requests if not url.startswith("data:")]
    assert others == [file.resolve().as_uri()]
    assert errors == []
