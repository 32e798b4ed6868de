"""A real Chromium, and what it complains about."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from img.browser import NARROW, WIDE, chromium

__all__ = ["NARROW", "WIDE", "chromium", "page_of"]

expect.set_options(timeout=30_000)


@contextmanager
def page_of(
    browser: Browser, address: str, *, width: int = WIDE, dark: bool = False, time_zone: str | None = None
) -> Iterator[Page]:
    """A tab that begins at the address; in the end, that nothing was complained about is required."""
    context = browser.new_context(
        base_url=address,
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        timezone_id=time_zone,
    )
    page = context.new_page()
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.text}")

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    # The page has all that it needs: whatever it asks others for is a failure.
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else complaints.append(asked.url))
    page.set_default_timeout(30_000)
    try:
        page.goto("/")
        yield page
        assert complaints == [], complaints
    finally:
        context.close()
