"""The live page of `make demo`: the badge, and the buttons that kill a process, in a real browser."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from contract.alerts import ALERTS, ID, RULE, STATUS
from local_stack.services import ROOT
from tests.browser import NARROW, WIDE, page_of
from tests.pipeline import assert_equal, eventually

NAMES = ("Kafka", "Elasticsearch", "data_producer", "stream_processing", "elasticsearch_sink_alert", "live_page")
POPULAR = ["item_0", "item_1", "item_2"]
EQUAL = r"sent [\d,]+ = lake = indexed: nothing lost, nothing twice"


@dataclass
class Demo:
    """A running demo, and what it has printed."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until a text is printed that often, and return everything printed."""

        def check() -> None:
            assert self.process.poll() is None, self.output.read_text()
            assert self.output.read_text().count(text) >= times

        eventually(check)
        return self.output.read_text()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Start nothing again during the `with` block, so that a fast machine misses it for long enough, too."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def viral_items(self) -> list[str]:
        """Return the status of each alert about a viral item.

        Without the most popular ones, which are about to fire when a slow machine has a backlog.
        """
        (es_host,) = re.findall(r"ready Elasticsearch +(http://\S+)", self.output.read_text())
        client = Elasticsearch([es_host])
        client.indices.refresh(index=ALERTS, ignore_unavailable=True)
        query = {"bool": {"filter": {"term": {RULE: "viral item"}}, "must_not": {"terms": {ID: POPULAR}}}}
        hits = client.search(index=ALERTS, ignore_unavailable=True, query=query)["hits"]["hits"]
        return [hit["_source"][STATUS] for hit in hits]

    @property
    def address(self) -> str:
        (address,) = re.findall(r"running: open (http://localhost:\d+)", self.output.read_text())
        return str(address)


@pytest.fixture(scope="module")
def demo(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "local_stack", "demo", "--no-view", "--free-ports", "--data", str(folder / "data")]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200", "RANDOM_DATA_SEED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    demo = Demo(process, folder / "output")
    try:
        demo.wait_for("Ctrl-C stops")
        yield demo
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, demo.output.read_text()
        assert "nothing lost, nothing twice" in demo.output.read_text().splitlines()[-1]
    finally:
        process.kill()
        process.wait()


def _badge(page: Page) -> Locator:
    return page.locator("[data-badge]")


def _kill(page: Page, name: str) -> None:
    confirm = page.get_by_role("button", name=f"Really kill it? {name}", exact=True)
    while True:
        page.get_by_role("button", name=f"Kill it {name}", exact=True).click()
        # A busy machine may be too slow for the second click.
        with contextlib.suppress(TimeoutError):
            confirm.click(timeout=4_000)
            return


def test_a_process_that_is_killed_on_the_page_is_missed_and_then_nothing_was_lost(demo: Demo, browser: Browser) -> None:
    with page_of(browser, demo.address) as page:
        badge = _badge(page)
        expect(badge).to_have_attribute("data-badge", "equal")
        expect(badge).to_have_text(re.compile(EQUAL))
        with demo.suspended():
            _kill(page, "stream_processing")
            expect(badge).to_have_attribute("data-badge", "behind")
            expect(badge).to_contain_text(re.compile(r"catching up: [\d,]+ to go, for \d+ s"))
        expect(badge).to_contain_text(re.compile(rf"{EQUAL} \(recovered in \d+ s\)"))
        demo.wait_for("starting again: stream_processing was killed by SIGKILL")
        output = demo.wait_for("ready again stream_processing after ")
        (seconds,) = re.findall(r"ready again stream_processing after ([\d.]+) s", output)
        for title in ("Interactions per second (UTC)", "Latency from Kafka to Elasticsearch (UTC)"):
            panel = page.locator(".q-card", has=page.get_by_role("heading", name=title, exact=True))
            for text in ("stream_processing", f"ready again after {seconds} s"):
                expect(panel.locator("svg text", has_text=text)).to_be_visible()
        deaths = page.locator(".q-table tbody tr", has_text="was killed by SIGKILL")
        expect(deaths).to_contain_text([re.compile(rf"stream_processing.*{re.escape(seconds)} s", re.S)])
        # On every page.
        page.get_by_role("navigation").get_by_role("link", name="Lake", exact=True).click()
        expect(page.get_by_role("heading", name="Lake", level=1)).to_be_visible()
        expect(badge).to_have_text(re.compile(EQUAL))


def test_one_click_kills_nothing(demo: Demo, browser: Browser) -> None:
    with page_of(browser, demo.address) as page:
        for name in NAMES:
            page.get_by_role("button", name=f"Kill it {name}", exact=True).click()
            expect(page.get_by_role("button", name=f"Really kill it? {name}", exact=True)).to_be_visible()
            # After some seconds the first click is forgotten.
            expect(page.get_by_role("button", name=f"Kill it {name}", exact=True)).to_be_visible()
    for name in NAMES:
        assert demo.output.read_text().count(f"starting again: {name}") <= (name == "stream_processing")


def test_a_kill_that_would_end_the_demo_is_not_offered(demo: Demo, browser: Browser) -> None:
    with page_of(browser, demo.address) as page:
        _kill(page, "elasticsearch_sink_alert")
        demo.wait_for("ready again elasticsearch_sink_alert")
        _kill(page, "elasticsearch_sink_alert")
        expect(page.locator('[data-reason="elasticsearch_sink_alert"]')).to_contain_text(
            re.compile(r"a third death within a minute would end the demo: enabled in \d+ s")
        )
        expect(page.get_by_role("button", name="Kill it elasticsearch_sink_alert", exact=True)).to_be_disabled()
        expect(page.get_by_role("button", name="Kill it data_producer", exact=True)).to_be_enabled()
        # It is offered again.
        demo.wait_for("ready again elasticsearch_sink_alert", times=2)
        expect(page.get_by_role("button", name="Kill it elasticsearch_sink_alert", exact=True)).to_be_enabled()


def test_a_viral_item_causes_an_alert_that_is_resolved_when_it_is_over(demo: Demo, browser: Browser) -> None:
    assert demo.viral_items() == []
    with page_of(browser, demo.address) as page:
        page.get_by_role("navigation").get_by_role("link", name="Controls", exact=True).click()
        expect(page.locator("[data-flow]")).to_have_text(
            "200 interactions per second on average, in waves of 180 s, 1,000 users, 200 items"
        )
        panel = page.locator(".q-card", has=page.get_by_role("heading", name="Alert rules", exact=True))
        expect(panel).to_contain_text("03-ElasticsearchSink-Alert/demo_data_mapper.yml")
        expect(panel.locator("tbody tr")).to_have_count(3)
        page.get_by_role("button", name="Viral item", exact=True).click()
        eventually(lambda: assert_equal(len(demo.viral_items()), 1))
        eventually(lambda: assert_equal(demo.viral_items(), ["resolved"]))


def test_the_page_itself_can_be_killed_and_comes_back(demo: Demo, browser: Browser) -> None:
    context = browser.new_context(base_url=demo.address)
    page = context.new_page()
    page.goto("/")
    _kill(page, "live_page")
    demo.wait_for("ready again live_page after ")
    # It reloads itself.
    expect(_badge(page)).to_have_text(re.compile(EQUAL))
    context.close()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_badge_and_buttons_fit_the_width_in_light_and_dark(demo: Demo, browser: Browser, width: int) -> None:
    for dark in (False, True):
        with page_of(browser, demo.address, width=width, dark=dark) as page:
            for name in NAMES:
                button = page.get_by_role("button", name=f"Kill it {name}", exact=True)
                box = button.bounding_box()
                assert box is not None
                assert 0 <= box["x"] < box["x"] + box["width"] <= width
            box = _badge(page).bounding_box()
            assert box is not None
            assert (box["x"], box["width"]) == (0, width)
            page.mouse.wheel(0, 2_000)
            expect(_badge(page)).to_be_in_viewport()
            assert page.evaluate("document.documentElement.scrollWidth") == width
