"""The machine's own Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, NARROW = 1280, 390
"""Widths of a desktop's and a phone's window in pixels."""


def installed_chromium() -> str:
    """Return the browser's path; without one, the error names the package to install."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    assert executable is not None, "Chromium is needed; on Debian: apt-get install chromium"
    return executable


@contextmanager
def chromium(executable: str | None = None) -> Iterator["Browser"]:
    """Run the browser, the installed one unless another is given, during the `with` block."""
    # What needs no browser runs without Playwright.
    from playwright.sync_api import sync_playwright

    # Its sandbox does not start for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable or installed_chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()
