"""Makes the pictures of the README: ``python -m img [architecture] [pages] [recording]`` (`make pictures`)."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests
from mirakuru import HTTPExecutor
from playwright.sync_api import Browser
from rich.console import Console

from local_stack import services
from local_stack.servers import HOST, free_port
from local_stack.services import ROOT
from runtime import proxies
from tests.browser import NARROW, WIDE, chromium

_FOLDER: Final = Path(__file__).parent
_RECORDER: Final = Path(sys.prefix) / "recorder" / "bin" / "termtosvg"
_SETTINGS: Final = {
    "PRODUCER_RATE": "0.005",
    "RANDOM_DATA_MAX_USERS": "60",
    "RANDOM_DATA_MAX_ITEMS": "25",
    "RANDOM_DATA_SKEW": "0.7",
}
_WARM: Final = 150
"""Seconds until the charts of the demo have something to show."""
_PAGES: Final = {
    "dashboard": "/",
    "index-contents": "/users",
    "alerts": "/alerts",
    "topics": "/topics",
    "lake": "/lake",
    "controls": "/controls",
}


def main() -> None:
    """Make those that are named, or all of them."""
    proxies.exempt_near()
    parts = {"architecture": _architecture, "pages": _pages, "recording": _recording}
    for name in sys.argv[1:] or parts:
        Console().print(f"{name} …")
        parts[name]()


def _architecture() -> None:
    port = free_port()
    url = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "img.diagram", "docs/architecture.mmd", str(port)]
    with HTTPExecutor(command, url=url, method="GET", timeout=30, cwd=str(ROOT)), chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 700}, device_scale_factor=2)
        page.goto(url)
        page.locator("svg g.node").first.wait_for()
        time.sleep(1)
        page.locator("svg").first.screenshot(path=_FOLDER / "architecture.png")


def _pages() -> None:
    with chromium() as browser, _demo() as address:
        time.sleep(_WARM)
        for name, path in _PAGES.items():
            _shot(browser, address + path, name, WIDE)
        _shot(browser, address, "dashboard-narrow", NARROW, dark=True)


@contextmanager
def _demo() -> Iterator[str]:
    """The address of a demo's page, in the middle of some activity."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "local_stack", "demo", "--no-view", "--free-ports", "--data", data]
        told = {**os.environ, **_SETTINGS, "COLUMNS": "200"}
        demo = subprocess.Popen(command, cwd=ROOT, env=told, stdout=subprocess.PIPE, text=True)
        assert demo.stdout is not None
        try:
            said = ""
            while "Ctrl-C stops" not in said:
                line = demo.stdout.readline()
                assert line, said
                said += line
            page, producer = (
                re.search(pattern, said) for pattern in (r"look at (\S+)", r"data_producer +(http://\S+)/health")
            )
            assert page is not None
            assert producer is not None
            requests.post(f"{producer[1]}/control", json={"burst": 2_000, "malformed": 7}, timeout=5).raise_for_status()
            yield page[1]
        finally:
            demo.terminate()
            demo.communicate()


def _shot(browser: Browser, url: str, name: str, width: int, *, dark: bool = False) -> None:
    page = browser.new_page(viewport={"width": width, "height": 860}, color_scheme="dark" if dark else "light")
    page.goto(url)
    if name == "lake":
        page.get_by_role("button", name="Run").click()
    time.sleep(6)
    page.screenshot(path=_FOLDER / f"{name}.png", full_page=name == "dashboard")
    page.close()


def _recording() -> None:
    """A demo of twenty seconds as it looks in a terminal: a terminal is what it needs for that."""
    services.make_cds_archive(Console())
    with tempfile.TemporaryDirectory() as data:
        demo = f"{sys.executable} -m local_stack demo --free-ports --data {data} --for 20"
        # At most 1.5 s and at least 0.2 s of each picture.
        options = ["-c", demo, "-g", "100x30", "-M", "1500", "-m", "200"]
        os.environ |= {"TERM": "xterm-256color"}
        with contextlib.chdir(ROOT):
            status = pty.spawn([str(_RECORDER), str(_FOLDER / "demo.svg"), *options])
        assert status == 0


if __name__ == "__main__":
    main()
