"""Real Chromium for the tests of the live page, with its errors collected."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from img import browser as installed
from img.browser import NARROW, WIDE
from tests import without_netlink

__all__ = [
    "NARROW",
    "SQL_EDITOR",
    "TIMEOUT_MS",
    "WIDE",
    "chromium",
    "expect_path",
    "go_to",
    "page_of",
    "write_query",
]

TIMEOUT_MS = 120_000
"""Costs time only when a test fails: a busy machine can take half a minute to load a page."""
SQL_EDITOR = ".cm-content[contenteditable=true]"
"""The editor for SQL, once it takes input."""

expect.set_options(timeout=TIMEOUT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser during the `with` block, which ignores network changes by other tests."""
    if sys.platform != "linux":
        with installed.chromium() as browser:
            yield browser
        return
    with TemporaryDirectory() as folder:
        # Playwright starts one file and has no place for arguments before its own.
        launcher = Path(folder, "chromium")
        command = shlex.join([sys.executable, without_netlink.__file__, installed.installed_chromium()])
        launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        launcher.chmod(0o755)
        with installed.chromium(str(launcher)) as browser:
            yield browser


@contextmanager
def page_of(
    browser: Browser, address: str, *, width: int = WIDE, dark: bool = False, time_zone: str | None = None
) -> Iterator[Page]:
    """Open a tab at the address; fails at the end if the browser reported errors, warnings or foreign requests."""
    context = browser.new_context(
        base_url=address,
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        timezone_id=time_zone,
    )
    page = context.new_page()
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{page.url}: {message.text}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
    # The page works offline: requests to other hosts are failures.
    page.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else problems.append(request.url)
    )
    page.set_default_timeout(TIMEOUT_MS)
    try:
        page.goto("/")
        yield page
        assert problems == [], problems
    finally:
        context.close()


def go_to(page: Page, name: str) -> None:
    """Follow a link of the navigation, until the page and its address are there: a step back begins at the address."""
    link = page.get_by_role("navigation").get_by_role("link", name=name, exact=True)
    path = link.get_attribute("href") or ""
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect_path(page, path)


def expect_path(page: Page, path: str) -> None:
    """Expect the path of the page's address, which follows its content after a moment."""
    expect(page).to_have_url(re.compile(rf"^\w+://[^/]*{re.escape(path)}(\?|$)"))


def write_query(panel: Locator, sql: str) -> None:
    """Replace the text of the SQL editor in a panel, when it is ready.

    `Locator.fill` would select the text without the editor, which may just be drawing it in colour: then only a part
    of it is replaced.
    """
    editor = panel.locator(SQL_EDITOR)
    editor.click()
    editor.press("ControlOrMeta+a")
    panel.page.keyboard.insert_text(sql)
    expect(editor).to_have_text(sql)
