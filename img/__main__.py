"""Takes the pictures of the README: ``python -m img [architecture] [recording] [pages] [kill]`` (`make pictures`)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
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

from img import kill
from img.animation import animate
from img.browser import NARROW, WIDE, chromium
from local_stack import services
from local_stack.servers import HOST, free_port
from local_stack.services import ROOT
from runtime import proxies
from runtime.broken_pipe import exit_status
from runtime.signals import interrupt_on_signal

_FOLDER: Final = Path(__file__).parent
_RECORDER: Final = Path(sys.prefix) / "recorder" / "bin" / "termtosvg"
_WARM_UP_SECONDS: Final = 225
"""Until the charts of the demo have more than one of its waves."""
_VIRAL_SECONDS: Final = 15
"""Until the alert of a viral item fires; it does so for half a minute."""
_SPEED: Final = 2.0
"""The README says so."""
_PAUSE: Final = 4.0
"""Seconds that the last frame is shown."""
_READY: Final = "Ctrl-C stops"
"""In the last line that the demo prints when it is ready."""
_PAGES: Final = {
    "dashboard": "/",
    "index-contents": "/users",
    "alerts": "/alerts",
    "topics": "/topics",
    "lake": "/lake",
    "controls": "/controls",
}


def main() -> int:
    """Take the pictures that the command line names, or all of them; status 130 if it is stopped."""
    alone = {"architecture": _architecture, "recording": _recording}
    of_a_demo = {"pages": _pages, "kill": _kill}
    pictures = [*alone, *of_a_demo]

    def picture(name: str) -> str:
        if name not in pictures:
            raise argparse.ArgumentTypeError(f"unknown picture {name!r}: expected {', '.join(pictures)}")
        return name

    parser = argparse.ArgumentParser(prog="img", description="Takes the pictures of the README.")
    help_ = f"one of {', '.join(pictures)}; all without a name"
    parser.add_argument("names", nargs="*", metavar="NAME", type=picture, help=help_)
    names = parser.parse_args().names or pictures
    proxies.exempt_local_hosts()
    interrupt_on_signal()
    try:
        for name in alone:
            if name in names:
                Console().print(f"{name} …")
                alone[name]()
        if not set(names).isdisjoint(of_a_demo):
            Console().print("a demo that warms up …")
            with chromium() as browser, _demo() as address:
                for name in of_a_demo:
                    if name in names:
                        Console().print(f"{name} …")
                        of_a_demo[name](browser, address)
    except KeyboardInterrupt:
        return 130
    return 0


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


def _pages(browser: Browser, address: str) -> None:
    for name, path in _PAGES.items():
        _shot(browser, address + path, name, WIDE)
    _shot(browser, address, "dashboard-narrow", NARROW, dark=True)


def _kill(browser: Browser, address: str) -> None:
    animation = animate(kill.film(browser, address), speed=_SPEED, pause=_PAUSE)
    (_FOLDER / "kill.gif").write_bytes(animation.gif)
    (_FOLDER / "kill.png").write_bytes(animation.still)


@contextmanager
def _demo() -> Iterator[str]:
    """Run a demo during the `with` block, with malformed records and viral items; yields the URL of its page."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "local_stack", "demo", "--no-view", "--free-ports", "--data", data]
        variables = {**os.environ, "COLUMNS": "200"}
        demo = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True)
        try:
            output = _read_until_ready(demo)
            producer = _find(r"data_producer +(http://\S+)/health", output)
            for seconds in (_WARM_UP_SECONDS, _VIRAL_SECONDS):
                requests.post(
                    f"{producer}/control", json={"viral_interactions": 4_000, "malformed": 7}, timeout=5
                ).raise_for_status()
                time.sleep(seconds)
            yield _find(r"running: open (\S+)", output)
        finally:
            demo.terminate()
            demo.communicate()


def _read_until_ready(demo: "subprocess.Popen[str]") -> str:
    assert demo.stdout is not None
    output = ""
    while _READY not in output:
        line = demo.stdout.readline()
        assert line, output
        output += line
    return output


def _find(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    assert found is not None, output
    return found[1]


def _shot(browser: Browser, url: str, name: str, width: int, *, dark: bool = False) -> None:
    page = browser.new_page(viewport={"width": width, "height": 860}, color_scheme="dark" if dark else "light")
    page.goto(url)
    if name == "lake":
        page.get_by_role("button", name="Run").click()
    time.sleep(6)
    page.screenshot(path=_FOLDER / f"{name}.png", full_page=name == "dashboard")
    page.close()


def _recording() -> None:
    """Record a demo of twenty seconds in a terminal, which it needs to show the live view."""
    services.fill_caches(Console())
    with tempfile.TemporaryDirectory() as data:
        demo = f"{sys.executable} -m local_stack demo --free-ports --data {data} --for 20"
        # Each frame lasts from 0.2 s to 1.5 s.
        options = ["-c", demo, "-g", "120x30", "-M", "1500", "-m", "200"]
        os.environ |= {"TERM": "xterm-256color"}
        with contextlib.chdir(ROOT):
            status = pty.spawn([str(_RECORDER), str(_FOLDER / "demo.svg"), *options])
        assert status == 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
