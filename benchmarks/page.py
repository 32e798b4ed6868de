"""Benchmark: the live page of a demo at its own rate: first paint, layout shift, and what open tabs cost."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.cost import demo_process, wait_until_ready
from benchmarks.page_tabs import open_tabs
from benchmarks.process_tree import sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from contract.declared import table_named
from img.browser import WIDE, chromium
from live_page.pages.links import KEYED, row_href, table_href

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATHS: Final = (
    "/",
    *map(table_href, KEYED),
    row_href(table_named("agg_interactions_user"), "user_0"),
    row_href(table_named("agg_interactions_item"), "item_0"),
    "/alerts",
    "/topics",
    "/lake",
    "/controls",
)
_TABS_AT: Final = ("/", "/topics")
_NUMBERS_OF_TABS: Final = (1, 50)
_LOADS: Final = 5
_SETTLE_SECONDS: Final = 5.0
"""For a page to be filled and updated, and for opened tabs to be."""
_LONGEST_SECONDS: Final = 3_600.0
_RECORD_SHIFTS: Final = """
  window.shift = 0;
  new PerformanceObserver(list => list.getEntries().forEach(each => window.shift += each.value))
    .observe({type: "layout-shift", buffered: true});
"""
_FIRST_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def measure(stack: Stack, warm: float, seconds: float) -> Iterator[Result]:
    """Measure each page `warm` seconds after the demo is ready, and open tabs over `seconds` each."""
    with demo_process(stack, _LONGEST_SECONDS, {}) as process:
        address = wait_until_ready(process)
        time.sleep(warm)
        with chromium() as browser:
            for path in PATHS:
                yield from _loads(browser, address, path)
        listed = json.loads((stack.data / "demo" / "processes.json").read_text())["processes"]
        for path in _TABS_AT:
            for tabs in _NUMBERS_OF_TABS:
                yield _processor(listed["live_page"]["pid"], address, path, tabs, seconds)
        process.terminate()


def _loads(browser: "Browser", address: str, path: str) -> Iterator[Result]:
    """Load a page, which the browser has opened before, several times."""
    with _tab(browser, address) as page:
        _first_paint(page, path)
        paints = [_first_paint(page, path) for _ in range(_LOADS)]
        page.wait_for_timeout(_SETTLE_SECONDS * 1_000)
        shift = page.evaluate("window.shift")
    yield Result(f"page {path}: first paint, median", statistics.median(paints), "s")
    yield Result(f"page {path}: first paint, worst", max(paints), "s")
    yield Result(f"page {path}: layout shift", shift, "")


@contextmanager
def _tab(browser: "Browser", address: str) -> Iterator["Page"]:
    context = browser.new_context(base_url=address, viewport={"width": WIDE, "height": 900})
    try:
        page = context.new_page()
        page.add_init_script(_RECORD_SHIFTS)
        yield page
    finally:
        context.close()


def _first_paint(page: "Page", path: str) -> float:
    """Load a page; return the seconds to its first text or picture."""
    page.goto(path)
    page.wait_for_function(f"{_FIRST_PAINT} !== undefined")
    return float(page.evaluate(_FIRST_PAINT)) / 1_000


def _processor(pid: int, address: str, path: str, tabs: int, seconds: float) -> Result:
    with open_tabs(address + path, tabs):
        time.sleep(_SETTLE_SECONDS)
        before = sample(pid)
        time.sleep(seconds)
        after = sample(pid)
    cores = (after.core_seconds - before.core_seconds) / (after.at_ms - before.at_ms) * 1_000
    return Result(f"page {path}: process with {tabs} open tab{'' if tabs == 1 else 's'}", cores, "cores")
