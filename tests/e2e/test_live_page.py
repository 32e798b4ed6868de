"""The live page in a real browser, over a whole pipeline of its own."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from mirakuru import HTTPExecutor, SimpleExecutor
from playwright.sync_api import Browser, Locator, Page, expect

from contract.declared import TABLES, table_named
from contract.tables import Table
from live_page.pages.links import KEYED, row_href, row_label
from local_stack import servers
from local_stack.services import PAGE, PRODUCER, SINK, STREAM
from tests.browser import NARROW, TIMEOUT_MS, WIDE, go_to, page_of, write_query
from tests.interaction import INTERACTION_TYPES
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually, kill_9

USERS = table_named("agg_interactions_user")
MINUTES, ITEM_HOURS = table_named("agg_interactions_minute"), table_named("agg_interactions_item_hour")
PATHS = (
    "/", "/users", "/items", "/minutes", "/items-by-hour", "/alerts", "/topics", "/lake", "/controls",
    "/users/user_1", "/items/item_1", row_href(MINUTES, "2026-01-31T12:00:00Z"),
    row_href(ITEM_HOURS, "item_1|2026-01-31T12:00:00Z"),
)  # fmt: skip


@dataclass
class Site:
    """A pipeline whose producer sends 50 interactions per second, and its page."""

    pipeline: Pipeline
    elasticsearch: SimpleExecutor
    producer: HTTPExecutor
    sink: HTTPExecutor
    page: HTTPExecutor
    address: str

    def control(self, **changes: Any) -> dict[str, Any]:
        response = requests.post(self.control_url, json=changes, timeout=5)
        response.raise_for_status()
        flow: dict[str, Any] = response.json()
        return flow

    @property
    def control_url(self) -> str:
        return self.producer.url.geturl().replace("/health", "/control")

    def sent(self) -> int:
        return len(self.pipeline.read(self.pipeline.topic))

    def dead_lettered(self) -> int:
        return len(self.pipeline.read(self.pipeline.settings.dead_letter_topic))

    def counted(self, by: Table = USERS) -> int:
        return sum(row["total_interactions"] for row in self.pipeline.documents(by.name).values())

    def firing(self) -> list[dict[str, Any]]:
        """Read the alerts that fire now: those of a window are resolved when it is over, without any new record."""
        return [alert for alert in self.pipeline.alerts() if alert["status"] == "firing"]

    def pause(self) -> None:
        """Pause the producer, and wait until everything sent is counted."""
        self.control(paused=True)
        time.sleep(1)
        eventually(lambda: assert_equal(self.counted() + self.dead_lettered(), self.sent()))


@pytest.fixture(scope="module")
def site(kafka: str, cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("live-page")
    port = servers.free_port()
    pipeline = Pipeline(kafka, f"http://{servers.HOST}:{port}", "live-page", data)
    with ExitStack() as stack:
        # Not the shared one: it is killed.
        elasticsearch = servers.elasticsearch(data, port)
        stack.callback(elasticsearch.kill)
        elasticsearch.start()
        stream, sink = pipeline.service(STREAM), pipeline.service(SINK)
        producer = pipeline.service(PRODUCER, PRODUCER_CONTROLS="true", PRODUCER_RATE="0.02")
        urls = {
            f"{name}_URL": executor.url.geturl().removesuffix("/health")
            for name, executor in {"PRODUCER": producer, "STREAM": stream, "SINK": sink}.items()
        }
        page = pipeline.service(PAGE, **urls, SQL_SECONDS="15")
        for executor in (page, stream, sink, producer):
            stack.callback(executor.kill)
            executor.start()
        site = Site(pipeline, elasticsearch, producer, sink, page, page.url.geturl().removesuffix("/health"))
        stack.callback(lambda: site.elasticsearch.kill())
        yield site
        for executor in (producer, page, sink, stream):
            executor.stop()
    assert "Traceback" not in pipeline.log(PAGE)


_LINE = "edge => [getComputedStyle(edge).color, getComputedStyle(edge, '::before').backgroundImage]"
_BOXES_WITH_TOP = "all => all.map(each => each.getBoundingClientRect()).map(box => [box.top, box.left, box.right])"
_RECORD_SHIFTS = """
  window.shifts = []
  new PerformanceObserver(list => list.getEntries().forEach(
    each => window.shifts.push([each.value, each.sources.map(source => source.node?.outerHTML?.slice(0, 120))])
  )).observe({type: 'layout-shift', buffered: true})
"""
_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
_FIND_VIOLATIONS = """async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
  const {violations} = await axe.run({runOnly: tags, resultTypes: ["violations"]})
  return violations.flatMap(rule => rule.nodes.map(
    node => `${rule.id} at ${node.target}: ${node.html.slice(0, 160)} (${node.failureSummary})`
  ))
}"""
_IS_STILL = "document.getAnimations().every(each => !(each instanceof CSSTransition))"
_SQL_RESULT = "/lake?sql=select+'a'+as+name,+1+as+n"
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_OVERVIEW = (
    "Pipeline", "Interactions per second (UTC)", "Latency from Kafka to Elasticsearch (UTC)",
    "Interactions per minute, by type (UTC)", "Interactions by type", "Health", "Latest alerts",
)  # fmt: skip
_BOXES = "links => links.map(link => link.getBoundingClientRect()).map(box => [box.left, box.right, box.height])"


def _tile(page: Page, name: str) -> Locator:
    return page.locator(f'[data-tile="{name}"]')


def _box(page: Page, name: str) -> Locator:
    """Return a box of the pipeline's diagram."""
    return page.locator(f'[data-box="{name}"]')


def _edge(page: Page, name: str) -> Locator:
    return page.locator(f'[data-edge="{name}"]')


def _number(text: str | None) -> int:
    """Return the number that a text begins with."""
    return int((text or "").partition(" ")[0].replace(",", ""))


def _panel(page: Page, title: str) -> Locator:
    return page.locator(".q-card", has=page.get_by_role("heading", name=title, exact=True))


def _rows(panel: Locator) -> list[list[str]]:
    return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in panel.locator("tbody tr").all()]


def _values(page: Page) -> dict[str, str]:
    """Return the measures of the page of a row."""
    return {name: value for name, value, *_ in (row for row in _rows(_panel(page, "Measures")) if len(row) > 1)}


def _wait_for(read: Callable[[], object], expected: object) -> None:
    """Wait until `read` returns what is expected: each panel of a page is filled independently."""
    eventually(lambda: assert_equal(read(), expected), TIMEOUT_MS / 1000)


def _bars(panel: Locator) -> list[float]:
    return [
        float(bar["value"])
        for bar in panel.locator(".nicegui-echart").evaluate(
            "e => getElement(Number(e.id.slice(1))).chart.getOption().series[0].data"
        )
    ]


def _numbers_by_rule(site: Site) -> dict[str, list[str]]:
    """Count the alerts that fire and all alerts, by rule."""
    firing = Counter(alert["rule"] for alert in site.firing())
    every = Counter(alert["rule"] for alert in site.pipeline.alerts())
    return {rule: [str(firing[rule]), str(every[rule])] for rule in every}


def _assert_lists_alerts(page: Page, number: int) -> None:
    assert page.get_by_text(f"{number} alerts", exact=False).first.is_visible()
    assert _panel(page, "Alerts").locator("tbody tr").count() == min(50, number)


def _sum_of_bars(panel: Locator) -> float:
    return sum(_bars(panel))


def _series(panel: Locator) -> dict[str, list[tuple[int, int | None]]]:
    """Return the points of each series of a chart over time."""
    series = panel.locator(".nicegui-echart").evaluate(
        "e => getElement(Number(e.id.slice(1))).chart.getOption().series.map(each => [each.name, each.data])"
    )
    return {name: [(at, value) for at, value in points] for name, points in series}


def _shown_seconds(panel: Locator) -> float:
    """Return how many seconds the time axis of a chart shows."""
    bounds = panel.locator(".nicegui-echart").evaluate(
        "e => getElement(Number(e.id.slice(1))).chart.getOption().xAxis.map(each => [each.min, each.max])[0]"
    )
    return float(bounds[1] - bounds[0]) / 1_000


def _assert_between(read: Callable[[], float], least: float, most: float) -> None:
    assert least <= read() <= most


def _sums(panel: Locator) -> dict[str, int]:
    return {name: sum(value or 0 for _, value in points) for name, points in _series(panel).items()}


def test_every_page_shows_what_is_in_elasticsearch(site: Site, browser: Browser) -> None:
    eventually(lambda: assert_more_than(site.counted(), 1_500))
    site.pause()
    documents = {table.name: site.pipeline.documents(table.name) for table in KEYED}
    users = documents["agg_interactions_user"]
    alerts = site.pipeline.alerts()
    assert site.firing()
    with page_of(browser, site.address) as page:
        expect(_tile(page, "Interactions counted")).to_have_text(f"{site.counted():,}")
        average = site.pipeline.documents("avg_interactions")["avg_interactions"]["avg_interactions"]
        expect(_tile(page, "Average per user")).to_have_text(f"{average:,.2f}")
        eventually(lambda: assert_equal(_tile(page, "Alerts firing").inner_text(), f"{len(site.firing()):,}"))
        expect(_tile(page, "Interactions per second")).to_have_text("0.0")
        of_types = [sum(user[f"total_{kind}"] for user in users.values()) for kind in INTERACTION_TYPES]
        _wait_for(lambda: _bars(_panel(page, "Interactions by type")), of_types)
        for name in ("Kafka", "Elasticsearch", "data_producer", "stream_processing", "elasticsearch_sink_alert"):
            expect(page.locator(f'[data-health="{name}"]')).to_have_text("ok")
        expect(_box(page, "topic")).to_contain_text(f"{site.sent():,} records")
        expect(_box(page, "lake")).to_contain_text(f"{site.pipeline.lake_count():,} rows")
        expect(_box(page, "indices")).to_contain_text(f"{site.counted():,} counted")
        expect(_box(page, "indices")).to_contain_text(re.compile(rf"Users\s*{len(users)}(?!\d)"))
        expect(_panel(page, "Latest alerts").locator("tbody tr")).to_have_count(min(8, len(alerts)))

        for name, table, measure in (
            ("Users", "agg_interactions_user", "total_interactions"),
            ("Items", "agg_interactions_item", "max_interactions"),
        ):
            go_to(page, name)
            expect(_panel(page, name).locator("tbody tr")).to_have_count(10)
            shown = {row[0]: row for row in _rows(_panel(page, name))}
            for id_, document in documents[table].items():
                assert f"{document[measure]:,}" in shown[id_]
            greatest = sorted((document[measure] for document in documents[table].values()), reverse=True)
            top, distribution = _panel(page, "Top 10"), _panel(page, "Distribution")
            _wait_for(partial(_bars, top), greatest)
            _wait_for(partial(_sum_of_bars, distribution), 10)

        go_to(page, "Alerts")
        expect(page.get_by_text(f"{len(alerts)} alerts", exact=False)).to_be_visible()
        by_rule = _panel(page, "Alerts by rule")
        eventually(lambda: assert_equal({row[0]: row[1:3] for row in _rows(by_rule)}, _numbers_by_rule(site)))
        page.get_by_role("button", name="firing", exact=True).click()
        eventually(lambda: _assert_lists_alerts(page, len(site.firing())))

        go_to(page, "Topics")
        expect(_panel(page, "Topics").locator("tbody tr")).to_have_count(3)
        topics = _panel(page, "Topics")
        interactions, aggregated = site.pipeline.topic, site.pipeline.settings.aggregated_topic
        sent = f"{site.sent():,}"
        _wait_for(lambda: {row[0]: row[1:3] for row in _rows(topics)}.get(interactions), ["4", sent])
        _wait_for(lambda: {row[0]: row[3] for row in _rows(topics)}.get(aggregated), "0")

        go_to(page, "Lake")
        expect(_panel(page, "Delta tables").locator("tbody tr")).to_have_count(1 + len(TABLES))
        lake, row_count = _panel(page, "Delta tables"), f"{site.pipeline.lake_count():,}"
        _wait_for(lambda: {row[0]: row[1] for row in _rows(lake)}.get("interactions"), row_count)


def test_every_page_says_whether_everything_sent_is_in_the_lake_and_indexed(site: Site, browser: Browser) -> None:
    site.control(paused=False, malformed=3)
    eventually(lambda: assert_more_than(site.dead_lettered(), 2))
    site.pause()
    counted, malformed = f"{site.counted():,}", f"{site.dead_lettered():,}"
    text = f"sent {site.sent():,} = lake = indexed {counted} + {malformed} malformed: nothing lost, nothing twice"
    with page_of(browser, site.address) as page:
        badge = page.locator("[data-badge]")
        for path in PATHS:
            page.goto(path)
            expect(badge).to_have_attribute("data-badge", "equal")
            expect(badge).to_contain_text(text)


def test_a_page_that_no_local_stack_has_started_has_no_buttons_that_kill(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        expect(page.locator('[data-health="Kafka"]')).to_have_text("ok")
        expect(page.get_by_role("button", name=re.compile("kill", re.IGNORECASE))).to_have_count(0)


def test_a_table_is_searched_and_sorted_and_links_to_its_rows(site: Site, browser: Browser) -> None:
    site.pause()
    users = site.pipeline.documents("agg_interactions_user")
    with page_of(browser, site.address) as page:
        go_to(page, "Users")
        panel = _panel(page, "Users")
        by_purchases = sorted(users, key=lambda id_: users[id_]["total_purchase"])
        panel.get_by_role("columnheader", name="Total purchase").click()
        eventually(lambda: assert_equal({_rows(panel)[0][4]}, {f"{users[by_purchases[0]]['total_purchase']:,}"}), 30)
        page.get_by_role("combobox", name="Measure").press("Enter")
        page.get_by_role("option", name="total_like", exact=True).click()
        highest = max(user["total_like"] for user in users.values())
        eventually(lambda: assert_equal({_rows(panel)[0][2]}, {f"{highest:,}"}), 30)
        top = _panel(page, "Top 10")
        _wait_for(lambda: _bars(top)[0], highest)
        panel.get_by_role("textbox").fill("R_3")
        expect(panel.locator("tbody tr")).to_have_count(1)
        panel.get_by_role("link", name="user_3").click()
        expect(page).to_have_url(re.compile("/users/user_3$"))
        expect(page.get_by_role("heading", level=1)).to_have_text("User user_3")
        measures = _panel(page, "Measures")
        expect(measures.locator("tbody tr")).to_have_count(7)
        total = users["user_3"]["total_interactions"]
        rank = 1 + sum(user["total_interactions"] > total for user in users.values())
        shown = {name: (value, place) for name, value, place in _rows(measures)}
        assert shown["total_interactions"] == (f"{total:,}", f"{rank} of {len(users)}")
        interactions = _panel(page, "Latest interactions in the lake")
        expect(interactions.locator("tbody tr")).to_have_count(15)
        assert {row[1] for row in _rows(interactions)} == {"user_3"}
        _assert_is_linked(page, total)
        page.go_back()
        expect(panel.get_by_role("textbox")).to_have_value("R_3")
        expect(panel.locator("tbody tr")).to_have_count(1)
        panel.get_by_role("textbox").fill("")
        expect(panel.locator("tbody tr")).to_have_count(10)
        page.goto("/users/unknown")
        expect(_panel(page, "Measures")).to_contain_text("No user has this id")


def _assert_is_linked(page: Page, total: int) -> None:
    """Check the trend and the items of user_3, and follow the link to one of them and back."""
    per_minute = _panel(page, "Interactions per minute (UTC)")
    _wait_for(lambda: sum(_sums(per_minute).values()), total)
    assert set(_series(per_minute)) == set(INTERACTION_TYPES)
    expect(per_minute).to_contain_text("up to its latest event")
    items, users = _panel(page, "Items of this user"), _panel(page, "Users of this item")
    _wait_for(lambda: sum(_number(n) for _, n in _rows(items)), total)
    item, n = _rows(items)[0]
    items.get_by_role("link", name=item, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Item {item}")
    _wait_for(lambda: dict(_rows(users)).get("user_3"), n)
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("User user_3")


def test_the_activity_over_time_is_that_of_the_windows_and_each_of_them_has_a_page(
    site: Site, browser: Browser
) -> None:
    site.pause()
    counted = site.counted()
    eventually(lambda: assert_equal(site.counted(MINUTES), counted))
    minutes = site.pipeline.documents(MINUTES.name)
    latest = max(minutes)
    of_latest = minutes[latest]["total_interactions"]
    with page_of(browser, site.address) as page:
        activity = _panel(page, "Interactions per minute, by type (UTC)")
        of_kinds = {kind: sum(row[f"total_{kind}"] for row in minutes.values()) for kind in INTERACTION_TYPES}
        _wait_for(lambda: _sums(activity), of_kinds)
        starts = [at for at, _ in _series(activity)["click"]]
        assert {b - a for a, b in pairwise(starts)} == {60_000}
        first, last = (datetime.fromisoformat(found(minutes)).timestamp() * 1000 for found in (min, max))
        # It begins with the first one, and has ten at least.
        assert (starts[0], starts[-1]) == (min(first, last - 9 * 60_000), last)

        go_to(page, "Minutes")
        panel = _panel(page, "Minutes")
        labels = [row_label(MINUTES, id_) for id_ in sorted(minutes, reverse=True)][:15]
        _wait_for(lambda: [row[0] for row in _rows(panel)], labels)
        _wait_for(lambda: _sums(_panel(page, "Over time (UTC)")), {"total_interactions": counted})
        panel.get_by_role("link", name=labels[0], exact=True).click()
        expect(page).to_have_url(re.compile(f"{row_href(MINUTES, latest)}$"))
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Minute {labels[0]}")
        _wait_for(lambda: _values(page).get("total_interactions"), f"{of_latest:,}")
        interactions = _panel(page, "Latest interactions in the lake")
        expect(interactions.locator("tbody tr")).to_have_count(min(15, of_latest))
        assert {row[0][-8:-3] for row in _rows(interactions)} == {latest[11:16]}

        go_to(page, "Items by hour")
        panel = _panel(page, "Items by hour")
        expect(panel.locator("tbody tr").first).to_be_visible()
        hours = site.pipeline.documents(ITEM_HOURS.name)
        id_ = min(hours, key=lambda id_: (-datetime.fromisoformat(hours[id_]["hour"]).timestamp(), id_))
        item, hour = row_label(ITEM_HOURS, id_).split(", ")
        _wait_for(lambda: _rows(panel)[0][:2], [item, hour])
        panel.get_by_role("link", name=item, exact=True).first.click()
        expect(page).to_have_url(re.compile(f"{row_href(ITEM_HOURS, id_)}$"))
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Item by hour {item}, {hour}")
        total = hours[id_]["total_interactions"]
        _wait_for(lambda: _values(page).get("total_interactions"), f"{total:,}")
        expect(interactions.locator("tbody tr")).to_have_count(min(15, total))
        item_column = [cell.strip() for cell in interactions.locator("thead th").all_inner_texts()].index("item_id")
        assert {row[item_column] for row in _rows(interactions)} == {item}

        for path in ("/minutes/unknown", row_href(MINUTES, "2026-01-31T12:00:01Z")):
            page.goto(path)
            for name in ("Measures", "Latest interactions in the lake"):
                expect(_panel(page, name)).to_contain_text("No minute has this id")


def test_the_page_updates_itself_and_the_controls_change_the_producer(site: Site, browser: Browser) -> None:
    site.pause()
    counted, dead_lettered = site.counted(), site.dead_lettered()
    with page_of(browser, site.address) as page, page_of(browser, site.address) as controls:
        expect(_tile(page, "Interactions counted")).to_have_text(f"{counted:,}")
        go_to(controls, "Controls")
        expect(controls.locator("[data-flow]")).to_contain_text("paused")
        controls.get_by_role("button", name="+ 1,000", exact=True).click()
        # The other tab updates itself.
        expect(_tile(page, "Interactions counted")).to_have_text(f"{counted + 1_000:,}")
        controls.get_by_role("button", name="+ 10 malformed").click()
        expect(_tile(page, "Dead letters")).to_have_text(f"{dead_lettered + 10}")
        go_to(page, "Topics")
        dead_letters = _panel(page, "Dead letters")
        expect(dead_letters.locator("tbody tr")).to_have_count(dead_lettered + 10)
        assert any("stare" in " ".join(row) for row in _rows(dead_letters))
        assert all(row[2] for row in _rows(dead_letters))

        controls.get_by_role("spinbutton", name="users").fill("25")
        controls.get_by_role("button", name="Set", exact=True).click()
        expect(controls.locator("[data-flow]")).to_contain_text("25 users")
        controls.get_by_role("button", name="200", exact=True).click()
        controls.get_by_role("button", name="Resume").click()
        expect(controls.locator("[data-flow]")).to_have_text("200 interactions per second, 25 users, 10 items")
        assert requests.get(site.control_url, timeout=5).json() == {
            "rate": 0.005,
            "users": 25,
            "items": 10,
            "wave": 0,
            "paused": False,
        }
        go_to(page, "Users")
        expect(_panel(page, "Users")).to_contain_text("1-15 of 25")
        go_to(page, "Overview")
        eventually(lambda: assert_more_than(float(_tile(page, "Interactions per second").inner_text()), 150), 30)
        # Less than 30 s, and of what is counted: a lower bound has a sign.
        expect(_tile(page, "Latency")).to_have_text(re.compile(r"^[12]?\d\.\d s$"), timeout=60_000)
        rules = _panel(controls, "Alert rules").locator("tbody tr")
        expect(rules).to_have_count(5)
        controls.get_by_role("button", name="Pause", exact=True).click()
        expect(controls.locator("[data-flow]")).to_contain_text("paused")

        go_to(page, "Topics")
        records = _panel(page, "Records")
        records.get_by_role("textbox", name="Key").fill("user_7")
        expect(records.locator("[data-about]")).to_contain_text("50 records found in the latest")
        eventually(lambda: assert_equal({row[2] for row in _rows(records)}, {"user_7"}))
        assert len(_rows(records)) == 50


def test_the_sql_box_runs_queries_and_refuses_writes_and_runaways(site: Site, browser: Browser) -> None:
    site.pause()
    with page_of(browser, site.address) as page:
        go_to(page, "Lake")
        query = _panel(page, "SQL query")
        status = query.get_by_role("status").last

        def run(sql: str) -> None:
            write_query(query, sql)
            query.get_by_role("button", name="Run").click()

        run("SELECT count(*) AS n, count(DISTINCT user_id) AS users FROM interactions")
        expect(status).to_contain_text("1 row,")
        expected = [f"{site.pipeline.lake_count()}", f"{len(site.pipeline.documents('agg_interactions_user'))}"]
        _wait_for(lambda: [[cell.replace(",", "") for cell in row] for row in _rows(query)], [expected])
        run("SELECT * FROM range(1000)")
        expect(status).to_contain_text("500 rows, truncated at 500 rows")
        files = _data_files(site)
        target = site.pipeline.data / "warehouse" / "stolen.parquet"
        for sql, reason in {
            "DELETE FROM interactions": "Only SELECT is allowed, not DELETE",
            "DROP VIEW interactions": "Only SELECT is allowed, not DROP",
            f"COPY interactions TO '{target}'": "Only SELECT is allowed, not COPY",
            "SELECT 1; SELECT 2": "Expected one SELECT, not 2 statements",
            "SET threads=8": "Only SELECT is allowed, not SET",
            "SELECT * FROM read_text('/etc/passwd')": "Permission Error",
            "SELECT * FROM nowhere": "nowhere does not exist",
            "SELECT FROM WHERE": "syntax error",
            "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < b.range": "longer than 15 seconds",
            "SELECT list(range) FROM range(1000000000)": "more than 256 MB of memory",
        }.items():
            run(sql)
            expect(status).not_to_have_text("running …")
            expect(status).to_contain_text(reason)
            expect(status).not_to_contain_text(re.compile(r"^[\d,]+ rows?,"))
            expect(query.locator("tbody tr")).to_have_count(0)
        assert not target.exists()
        # Nothing is gone; what is new can be a table that the stream job has written meanwhile.
        assert files <= (after := _data_files(site))
        assert [path for path in after - files if not path.name.startswith("part-")] == []
        run("SELECT 42 AS answer")
        expect(status).to_contain_text("1 row,")


def _data_files(site: Site) -> set[Path]:
    files = site.pipeline.data.joinpath("warehouse").rglob("*")
    return {path for path in files if path.is_file() and "_delta_log" not in path.parts}


def test_the_diagram_shows_rates_and_links_to_the_pages(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        for name in ("producer", "topic", "ingest", "lake", "aggregate", "aggregated topic", "sink", "indices"):
            box = _box(page, name)
            expect(box.locator(".rate")).to_have_text(re.compile(r"^[1-9][\d,.]*/s$"))
            expect(box.locator(".state")).to_contain_text("ok")
        for edge in ("producer to topic", "topic to ingest", "lake to aggregate", "aggregated topic to sink"):
            expect(_edge(page, edge)).to_have_attribute("data-state", "flowing")
            # In words, too.
            expect(_edge(page, edge)).to_have_attribute("aria-label", re.compile(rf"^{edge}: [\d,.]+/s$"))
        # Wider than an edge without any, once a whole batch is in the rate.
        width = "edge => parseFloat(getComputedStyle(edge, '::before').height)"
        eventually(lambda: assert_more_than(_edge(page, "topic to ingest").evaluate(width), 3), 60)
        for name, path in {"topic": "topics", "lake": "lake", "alerts": "alerts", "producer": "controls"}.items():
            _box(page, name).click()
            expect(page).to_have_url(re.compile(f"/{path}$"))
            go_to(page, "Overview")


def test_an_edge_is_red_and_dashed_while_rows_wait_for_the_sink(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        edge = _edge(page, "aggregated topic to sink")
        expect(edge).to_have_attribute("data-state", "flowing")
        flowing = edge.evaluate(_LINE)
        site.sink.stop()
        try:
            expect(edge).to_have_attribute("data-state", "behind")
            expect(edge).to_have_attribute("aria-label", re.compile(r"behind by [\d,]+$"))
            colour, line = edge.evaluate(_LINE)
            assert colour != flowing[0]
            assert "repeating-linear-gradient" in line
            assert "repeating-linear-gradient" not in flowing[1]
            expect(_box(page, "sink")).to_contain_text("does not answer")
            expect(_box(page, "sink").locator(".figure")).to_have_text(re.compile(r"^behind by [\d,]+$"))
            # What it is behind grows, and what comes before goes on.
            before = _number(_box(page, "sink").locator(".figure").inner_text()[len("behind by ") :])
            figure = _box(page, "sink").locator(".figure")
            eventually(lambda: assert_more_than(_number(figure.inner_text()[len("behind by ") :]), before), 60)
            expect(_edge(page, "topic to ingest")).to_have_attribute("data-state", "flowing")
        finally:
            site.sink.start()
        expect(edge).to_have_attribute("data-state", "flowing")


def test_buttons_choose_the_time_that_the_charts_show(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        panels = [
            _panel(page, title)
            for title in ("Interactions per second (UTC)", "Latency from Kafka to Elasticsearch (UTC)")
        ]
        for name, least, most in (("1 min", 60, 60), ("30 min", 61, 1_800), ("5 min", 60, 300)):
            page.get_by_role("button", name=name, exact=True).click()
            for panel in panels:
                eventually(partial(_assert_between, partial(_shown_seconds, panel), least, most))
        latency = panels[1]
        for level in ("p50", "p95"):
            expect(latency.locator("svg text", has_text=re.compile(rf"^{level} [\d.]+ s$"))).to_be_visible()


def test_the_charts_have_a_crosshair_in_common(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        rate, latency = (
            _panel(page, title).locator(".nicegui-echart")
            for title in ("Interactions per second (UTC)", "Latency from Kafka to Elasticsearch (UTC)")
        )
        expect(latency.locator("svg text").first).to_be_visible()
        box = rate.bounding_box()
        assert box is not None

        def assert_both() -> None:
            # On the right, where there are values.
            page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
            for chart, what in ((rate, "per second"), (latency, "latency in s")):
                tooltip = chart.locator("div", has_text=what).last
                assert tooltip.is_visible(), what

        eventually(assert_both)


def test_the_whole_overview_is_above_the_fold(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        expect(_panel(page, "Latest alerts").locator("tbody tr").first).to_be_visible()
        expect(page.locator(".nicegui-echart:not(:has(svg))")).to_have_count(0)
        panels = [_panel(page, title) for title in _OVERVIEW]
        for shown in (*panels, *page.locator(".tile").all()):
            box = shown.bounding_box()
            assert box is not None
            assert 0 <= box["y"] < box["y"] + box["height"] <= 900, shown.inner_text()
        # What is cut off there, can be scrolled by the keyboard.
        alerts = _panel(page, "Latest alerts").locator(".q-table__middle")
        if alerts.evaluate("box => box.scrollHeight > box.clientHeight"):
            expect(alerts).to_have_attribute("tabindex", "0")
        boxes = page.locator("[data-box]").evaluate_all("all => all.map(each => each.getBoundingClientRect().y)")
        # The main way is one row; the branches are another.
        assert len({round(y) for y in boxes}) == 2


def test_on_a_phone_the_diagram_leads_from_top_to_bottom(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address, width=NARROW) as page:
        expect(page.locator("[data-box]")).to_have_count(10)
        boxes = page.locator("[data-box]").evaluate_all(_BOXES_WITH_TOP)
        assert [top for top, *_ in boxes] == sorted({top for top, *_ in boxes})
        assert all(0 <= left < right <= NARROW for _, left, right in boxes)
        cut = "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each => each.textContent)"
        assert page.locator(".pipeline :is(.rate, .figure)").evaluate_all(cut) == []


def test_nothing_moves_while_the_overview_fills_and_updates(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        page.add_init_script(_RECORD_SHIFTS)
        page.goto("/")
        expect(page.locator(".nicegui-echart svg").last).to_be_visible()
        expect(_box(page, "sink").locator(".rate")).to_have_text(re.compile(r"^[1-9][\d,.]*/s$"))
        shown = _box(page, "topic").locator(".figure")
        for _ in range(3):
            before = shown.inner_text()
            expect(shown).not_to_have_text(before)
        shifts = page.evaluate("window.shifts")
        assert sum(value for value, _ in shifts) < 0.05, shifts


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_moves_while_the_other_pages_fill_and_update(site: Site, browser: Browser, width: int) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address, width=width) as page:
        page.add_init_script(_RECORD_SHIFTS)
        badge = page.locator("[data-badge]")
        for path in ("/items", "/users", "/items/item_1", "/topics", "/alerts", "/lake", "/controls"):
            page.goto(path)
            expect(page.get_by_text("Loading …", exact=True)).to_have_count(0)
            expect(page.locator(".nicegui-echart:not(:has(svg))")).to_have_count(0)
            for _ in range(3):
                before = badge.inner_text()
                expect(badge).not_to_have_text(before)
            shifts = page.evaluate("window.shifts")
            assert sum(value for value, _ in shifts) < 0.05, (path, shifts)


def test_a_killed_elasticsearch_is_shown_and_the_other_panels_go_on(site: Site, browser: Browser) -> None:
    site.control(paused=False, rate=0.02)
    with page_of(browser, site.address) as page:
        state, badge = page.locator('[data-health="Elasticsearch"]'), page.locator("[data-badge]")
        banner, activity = page.locator("[data-banner]"), _panel(page, "Interactions per minute, by type (UTC)")
        of_types, alerts = _panel(page, "Interactions by type"), _panel(page, "Latest alerts")
        expect(state).to_have_text("ok")
        # What was never loaded is not "as of" a time.
        eventually(lambda: assert_more_than(sum(_sums(activity).values()), 0))
        eventually(lambda: assert_more_than(len(_bars(of_types)), 0))
        expect(alerts).not_to_contain_text("Loading")
        expect(_tile(page, "Interactions counted")).not_to_have_text("–")
        kill_9(site.elasticsearch)
        expect(state).to_have_text("does not answer")
        expect(page.locator('[data-health="Kafka"]')).to_have_text("ok")
        expect(_tile(page, "Interactions counted")).to_have_text("–")
        expect(_box(page, "indices")).to_contain_text("– counted")
        expect(_box(page, "indices")).to_contain_text("does not answer")
        # One banner, not a note in each panel.
        expect(banner).to_contain_text("Elasticsearch does not answer")
        for panel in (activity, of_types, alerts):
            expect(panel).to_have_class(re.compile(r"\bstale\b"))
            expect(panel.get_by_role("status").first).to_have_text(re.compile(r"^as of \d\d:\d\d:\d\d$"))
        expect(page.locator('[data-change="Interactions counted"]')).to_have_text(re.compile(r"^[\d,]+ as of \d\d:"))
        sent = _box(page, "topic").locator(".figure")
        before = _number(sent.inner_text())
        eventually(lambda: assert_more_than(_number(sent.inner_text()), before), 30)
        for name in ("Users", "Alerts"):
            go_to(page, name)
            expect(_panel(page, name)).to_contain_text("Elasticsearch does not answer")
            expect(badge).to_contain_text("unknown: Elasticsearch does not answer")
        go_to(page, "Lake")
        expect(_panel(page, "Delta tables").locator("tbody tr")).to_have_count(1 + len(TABLES))
        site.elasticsearch = servers.elasticsearch(site.pipeline.data, int(site.pipeline.es_url.rsplit(":", 1)[1]))
        site.elasticsearch.start()
        go_to(page, "Users")
        expect(_panel(page, "Users").locator("tbody tr").first).to_be_visible()
        go_to(page, "Overview")
        expect(page.locator('[data-health="Elasticsearch"]')).to_have_text("ok")
        expect(banner).to_be_hidden()
        expect(page.locator(".stale")).to_have_count(0)
        site.pause()
        expect(_tile(page, "Interactions counted")).to_have_text(f"{site.counted():,}")


def test_a_page_can_be_left_before_its_charts_are_drawn(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        expect(page.locator(".nicegui-echart svg").last).to_be_visible()
        # As on a slow machine: NiceGUI draws a chart in a timer of 0 ms.
        page.evaluate("""() => {
          const set = window.setTimeout;
          window.setTimeout = (f, ms, ...rest) => set(f, ms === 0 ? 2000 : ms, ...rest);
        }""")
        go_to(page, "Users")
        charts = page.locator(".nicegui-echart")
        expect(charts).to_have_count(2)
        go_to(page, "Lake")
        expect(_panel(page, "Delta tables").locator("tbody tr").first).to_be_visible()
        expect(page.locator(".nicegui-echart")).to_have_count(0)
        go_to(page, "Overview")
        expect(page.locator(".nicegui-echart svg").last).to_be_visible()


def test_the_lake_can_be_left_before_its_editor_is_there(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        # A race, which one of these rounds may lose.
        for _ in range(10):
            for name in ("Lake", "Controls"):
                page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Controls")
        page.wait_for_load_state("networkidle")


def _assert_fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == width, page.url


def test_every_page_fits_its_width_in_light_and_dark(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address, width=NARROW) as page:
        for path in PATHS:
            page.goto(path)
            expect(page.get_by_role("heading").first).to_be_visible()
            expect(page.get_by_text("Loading …", exact=True)).to_have_count(0)
            expect(page.locator(".nicegui-echart:not(:has(svg))")).to_have_count(0)
            # As loaded, wider, and narrower again.
            for width in (NARROW, WIDE, NARROW):
                page.set_viewport_size({"width": width, "height": 900})
                for scheme in _SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    expect(page.locator("body.body--dark")).to_have_count(int(scheme == "dark"))
                    eventually(partial(_assert_fits, page, width), 30)


def test_axe_finds_no_violation_on_any_page_in_any_size_or_theme(site: Site, browser: Browser) -> None:
    site.control(paused=False, malformed=1)
    eventually(lambda: assert_more_than(site.dead_lettered(), 0))
    site.pause()
    found: list[str] = []
    with page_of(browser, site.address) as page:
        # In every document: a page that has lost its connection reloads itself.
        page.add_init_script(_AXE)
        for path in (*PATHS, *_further_paths(site)):
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if path == _SQL_RESULT:
                page.get_by_role("button", name="Run", exact=True).click()
                expect(_panel(page, "SQL query").locator("tbody tr").first).to_be_visible()
            found += _violations(page)
        # The browser reports the status 404 of such an address as an error, but not within the page.
        page.evaluate("history.pushState(null, '', '/nothing'); dispatchEvent(new PopStateEvent('popstate'))")
        expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
        found += _violations(page)
    assert found == [], "\n".join(found)


def _violations(page: Page) -> Iterator[str]:
    """Run axe-core on a page at two widths and in two themes; yields what it finds, each with its rule and element."""
    expect(page.get_by_text("Loading …", exact=True)).to_have_count(0)
    expect(page.locator(".nicegui-echart:not(:has(svg))")).to_have_count(0)
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in _SCHEMES:
            page.emulate_media(color_scheme=scheme)
            expect(page.locator("body.body--dark")).to_have_count(int(scheme == "dark"))
            # The change of colours is animated.
            page.wait_for_function(_IS_STILL)
            for each in page.evaluate(_FIND_VIOLATIONS):
                yield f"{page.url} at {width} px, {scheme}: {each}"


def _further_paths(site: Site) -> Iterator[str]:
    """Return the addresses of rows that exist, of opened records, of a query, and of an unknown id."""
    for table in (MINUTES, ITEM_HOURS):
        yield row_href(table, max(site.pipeline.documents(table.name)))
    for topic in (site.pipeline.topic, site.pipeline.settings.dead_letter_topic):
        # Of a partition that has some.
        record = next(iter(site.pipeline.read(topic)))
        yield f"/topics?topic={topic}&open={record.partition()}-{record.offset()}"
    yield _SQL_RESULT
    yield "/users/unknown"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_pages_work_by_keyboard_in_light_and_dark(site: Site, browser: Browser, width: int) -> None:
    for dark in (False, True):
        with page_of(browser, site.address, width=width, dark=dark) as page:
            links = page.get_by_role("navigation").get_by_role("link")
            expect(links).to_have_count(len(KEYED) + 5)
            for left, right, height in links.evaluate_all(_BOXES):
                # In the window, and its name on one line.
                assert 0 <= left < right <= width
                assert height < 40
            page.goto("/")
            page.keyboard.press("Tab")
            assert "Skip" in page.evaluate("document.activeElement.textContent")
            page.keyboard.press("Tab")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            expect(page).to_have_url(re.compile("/users$"))


def test_on_a_phone_the_result_of_a_query_follows_its_status(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address, width=NARROW) as page:
        go_to(page, "Lake")
        query = _panel(page, "SQL query")
        query.get_by_role("button", name="Run", exact=True).click()
        expect(query.locator(".nicegui-echart svg")).to_be_visible()
        expect(query.locator("tbody tr").first).to_be_visible()
        parts = (query.get_by_role("status").last, query.locator(".nicegui-echart"), query.locator("table"))
        boxes = [part.bounding_box() for part in (*parts, query.locator("[data-columns]"))]
        tops = [box["y"] for box in boxes if box is not None]
        assert len(tops) == len(boxes)
        assert tops == sorted(tops)


def test_an_unknown_host_name_is_refused(site: Site) -> None:
    assert requests.get(site.address, headers={"Host": "evil.example.com"}, timeout=5).status_code == 400
    assert requests.get(site.address, timeout=5).ok


def test_without_servers_and_services_the_page_shows_reasons_and_remedies(
    pipeline: Pipeline, browser: Browser, tmp_path: Path
) -> None:
    nowhere = f"http://{servers.HOST}:{servers.free_port()}"
    urls = dict.fromkeys(("PRODUCER_URL", "STREAM_URL", "SINK_URL"), nowhere)
    with (
        pipeline.running(PAGE, **urls, ES_HOST=nowhere) as served,
        page_of(browser, served.url.geturl().removesuffix("/health")) as page,
    ):
        for name in ("Elasticsearch", "data_producer", "stream_processing"):
            expect(page.locator(f'[data-health="{name}"]')).to_have_text("does not answer")
        # Unknown is shown neither as zero nor as empty.
        for tile in ("Alerts firing", "Interactions counted"):
            expect(_tile(page, tile)).to_have_text("–")
        assert _bars(_panel(page, "Interactions by type")) == []
        latest = _panel(page, "Latest alerts")
        expect(latest).to_contain_text("Not available: Elasticsearch does not answer")
        expect(latest).not_to_contain_text("No alerts")
        go_to(page, "Lake")
        expect(page.get_by_text("the stream job creates").first).to_be_visible()
        go_to(page, "Controls")
        expect(page.get_by_text("The producer does not answer")).to_be_visible()
        rules = _panel(page, "Alert rules")
        expect(rules.locator("tbody tr")).to_have_count(5)
        assert all(row[2:5] == ["–"] * 3 for row in _rows(rules))
        for name in ("Users", "Alerts"):
            go_to(page, name)
            shown = _panel(page, name)
            expect(shown).to_contain_text("Elasticsearch does not answer")
            expect(shown).to_contain_text("Not available")
            expect(shown).not_to_contain_text(re.compile("No rows yet|No alerts"))
        go_to(page, "Topics")
        for name in ("Partitions", "Records", "Dead letters"):
            # Once, and not beside the title too.
            expect(_panel(page, name).get_by_text("The topic does not exist yet")).to_have_count(1)
    assert "Traceback" not in pipeline.log(PAGE)
