"""Films the overview while its button kills the stream job, until everything has arrived again."""

import re
import time
from collections.abc import Callable
from typing import Final

from playwright.sync_api import Browser, Page, expect

from img.animation import Shot

_PROCESS: Final = "stream_processing"
_ADDRESS: Final = "/?span=1%20min"
_WIDTH: Final = 1120
"""Pixels: few, so that the text is readable in a README, but no number is cut."""
_HEIGHT: Final = 965
"""Pixels: down to the buttons, and to the first line of what was killed."""
_SHARPNESS: Final = 2
"""Pixels of the picture per pixel of the page."""
_INTERVAL: Final = 0.5
"""Seconds between the starts of two screenshots, if the machine is not too busy; the page changes once a second."""
_BEFORE: Final = 3.0
"""Seconds before the first click."""
_CONFIRM: Final = 1.5
"""Seconds between the two clicks."""
_AFTER: Final = 3.0
"""Seconds after everything has arrived."""
_PATIENCE: Final = 60.0
_EQUAL: Final = re.compile(r"nothing lost, nothing twice$")
_RECOVERED: Final = re.compile(r"nothing lost, nothing twice \(recovered in \d+ s\)$")


class _Scene:
    """The page, and what was filmed of it."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._badge = page.locator("[data-badge]")
        self.shots: list[Shot] = []
        self.was_red = self.was_amber = False
        """Whether since the kill a box of the diagram had a problem, and the badge said that records wait."""

    def film(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Take screenshots for some seconds, or until a condition is met."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not is_over():
            at = time.monotonic()
            self.shots.append(Shot(at, self._page.screenshot()))
            self.was_red |= self._is_red()
            self.was_amber |= self._badge.get_attribute("data-badge") == "behind"
            time.sleep(max(0.0, at + _INTERVAL - time.monotonic()))

    def click(self, button: str) -> None:
        """Click a button of the process."""
        self._page.get_by_role("button", name=f"{button} {_PROCESS}", exact=True).click()

    def kill(self) -> None:
        """Click the second time. What the badge said before is not of this kill: a busy machine is behind at times."""
        self.was_red = self.was_amber = False
        self.click("Really kill it?")

    def is_recovered(self) -> bool:
        """Whether the page has shown the outage, the badge says how long it took, and no box is red."""
        was_missed = self.was_red and self.was_amber
        return was_missed and _RECOVERED.search(self.badge()) is not None and not self._is_red()

    def badge(self) -> str:
        """Return its text."""
        return self._badge.inner_text()

    def _is_red(self) -> bool:
        return self._page.locator(".box[data-state=problem]").count() > 0


def film(browser: Browser, address: str) -> list[Shot]:
    """Return screenshots of the page of a demo, from before a kill of its stream job until after the recovery."""
    page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, device_scale_factor=_SHARPNESS)
    page.goto(address + _ADDRESS)
    # An earlier recovery is no longer reported.
    expect(page.locator("[data-badge]")).to_have_text(_EQUAL, timeout=_PATIENCE * 1_000)
    expect(page.locator("svg text", has_text="p95")).to_be_visible(timeout=_PATIENCE * 1_000)
    scene = _Scene(page)
    scene.film(_BEFORE)
    scene.click("Kill it")
    scene.film(_CONFIRM)
    scene.kill()
    scene.film(_PATIENCE, scene.is_recovered)
    seen = f"a red box: {scene.was_red}, an amber badge: {scene.was_amber}, now: {scene.badge()}"
    assert scene.is_recovered(), f"no outage and recovery within {_PATIENCE:.0f} s; {seen}"
    scene.film(_AFTER)
    page.close()
    return scene.shots
