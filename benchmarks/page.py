"""Benchmark: how soon the live page paints each of its pages, and what it costs while many tabs are open."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from statistics import median
from typing import Final

from playwright.sync_api import BrowserContext

from benchmarks.cost import costs
from benchmarks.process_tree import process_id, sample
from benchmarks.results import Result
from benchmarks.stack import Stack
from img.browser import WIDE, chromium
from live_page.pages.links import KEYED, plural, table_href
from local_stack import services

_RATE: Final = 200
"""Interactions a second."""
_TABS: Final = (0, 50)
_VISITS: Final = 5
"""Of each page, after one that fills the browser's cache."""
_SETTLE_SECONDS: Final = 15.0
_FIRST_PAINT: Final = """new Promise(resolve => {
  const find = () => performance.getEntriesByName("first-contentful-paint")[0];
  const wait = () => find() ? resolve(find().startTime) : setTimeout(wait, 20);
  wait();
})"""
_PAGES: Final = {
    "overview": "/",
    **{plural(table): table_href(table) for table in KEYED},
    **{name: f"/{name}" for name in ("alerts", "topics", "lake", "controls")},
}


def measure(stack: Stack, seconds: float) -> Iterator[Result]:
    """Measure the first paint of each page, and the cost over `seconds` of the overview without and with open tabs."""
    topic = "page"
    with ExitStack() as running:
        pipeline = {
            "STREAM_URL": running.enter_context(stack.service(services.STREAM, topic)),
            "SINK_URL": running.enter_context(stack.service(services.SINK, topic)),
            "PRODUCER_URL": running.enter_context(
                stack.service(services.PRODUCER, topic, PRODUCER_RATE=1 / _RATE, PRODUCER_CONTROLS="true")
            ),
        }
        urls = {name: executor.url.geturl().removesuffix("/health") for name, executor in pipeline.items()}
        page = running.enter_context(stack.service(services.PAGE, topic, **urls))
        address = page.url.geturl().removesuffix("/health")
        browser = running.enter_context(chromium())
        time.sleep(_SETTLE_SECONDS)
        with closing(browser.new_context(viewport={"width": WIDE, "height": 900})) as context:
            for name, path in _PAGES.items():
                paints = [_first_paint(context, address + path) for _ in range(1 + _VISITS)]
                yield Result(f"live page, {name} → first paint, warm", median(paints[1:]), "s")
        for tabs in _TABS:
            with closing(browser.new_context(viewport={"width": WIDE, "height": 900})) as context:
                for _ in range(tabs):
                    context.new_page().goto(address)
                time.sleep(_SETTLE_SECONDS)
                before = sample(process_id(page))
                time.sleep(seconds)
                yield from costs(f"live page, {tabs} tabs at {_RATE}/s", before, sample(process_id(page)))


def _first_paint(context: BrowserContext, url: str) -> float:
    """Return the seconds from the request to the first paint with content, in a new tab."""
    with closing(context.new_page()) as page:
        page.goto(url)
        milliseconds: float = page.evaluate(_FIRST_PAINT)
    return milliseconds / 1_000
