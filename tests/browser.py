"""A real browser: the system's Chromium, driven by Playwright. What it shows is kept as pictures, for people."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Route, sync_playwright

log = logging.getLogger(__name__)

PICTURES = Path(__file__).parent.parent / ".state" / "screenshots"
PATIENCE_SECONDS = 60
SLOW_MOTION = "window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 200)"
"""Five pictures a second: the graph of a run that runs is drawn all the time, by two cores where there is no GPU."""
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass(frozen=True)
class Eyes:
    """Pages of one browser, and the folder that pictures of them go to."""

    context: BrowserContext
    folder: Path

    def page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        return page

    def picture(self, page: Page, name: str, *, whole: bool = False) -> None:
        """Keep what the page shows now."""
        page.screenshot(path=self.folder / f"{name}.png", full_page=whole)


def _local_only(route: Route) -> None:
    """Prefect's page asks a service for settings, also when told not to be analysed: nothing leaves the machine.

    Requests are made by Playwright: Chromium itself gives up on all that it waits for when a network of the machine
    comes or goes (ERR_NETWORK_CHANGED), as with every workspace of every run. The server closes connections that were
    idle for seconds, just when one is used again, too: then the request is made once more.
    """
    if re.match(r"(file|data|blob):", route.request.url):
        route.continue_()
        return
    try:
        if not re.match(r"http://(127\.0\.0\.1|localhost)[:/]", route.request.url):
            route.abort()
        else:
            route.fulfill(response=route.fetch(max_retries=5))
    except Error as error:
        log.debug("%s: %s", route.request.url, error)
        with suppress(Error):  # the page was left
            route.abort()  # else a page would wait for ever


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not for the whole session: while Playwright lives, this thread counts as one that has an event loop."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "the tests of the dashboard need Chromium: ./infra/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def eyes(chromium: Browser) -> Iterator[Eyes]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    look: dict[str, Any] = {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "light"}
    # What drawing takes is not there for the runs that people look at.
    with chromium.new_context(**look, reduced_motion="reduce") as context:
        context.add_init_script(SLOW_MOTION)
        context.route("**/*", _local_only)
        yield Eyes(context, PICTURES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the pictures are."""
    if any(report.nodeid.startswith("tests/test_browser") for report in terminalreporter.getreports("passed")):
        terminalreporter.write_line(f"pictures of the dashboard: {PICTURES}")
