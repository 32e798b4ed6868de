"""The live page with hostile records, ids, numbers, queries and sites; no other service of the pipeline runs."""

import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import orjson
import psutil
import pytest
import requests
from arro3.core import Array, DataType, Table
from confluent_kafka import Producer
from data_producer.controls import Controls, Flow, application
from deltalake import CommitProperties, write_deltalake
from elasticsearch import helpers
from elasticsearch_sink_alert.indexing.index_templates import mappings
from playwright.sync_api import Browser, Locator, Page, expect
from stream_processing.metrics import AGGREGATED, FINISHED_BATCH, LAKE_ROWS

from contract.dead_letters import ELASTICSEARCH_SINK, OFFSET, PARTITION, REASON, REPLAY_OF, SERVICE, TOPIC
from contract.declared import table_named
from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from live_page.formatting import format_text
from live_page.pages.links import row_href
from live_page.settings import PageSettings
from live_page.sources import elasticsearch_client
from live_page.sources.consumers import Consumers
from live_page.sources.records import RecordQuery, TopicRecords
from local_stack.services import PAGE
from observer.snapshot import Observer
from runtime import topic_admin
from runtime.health import Health, serve
from runtime.kafka_client import headers_of
from tests.browser import NARROW, TIMEOUT_MS, WIDE, go_to, page_of, write_query
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually
from tests.processes import command_line

LARGE = 9_007_199_254_740_993
"""The first integer that JavaScript cannot represent exactly."""
ATTACK = "<img src=x onerror=\"window.hacked='yes'\">"
IDS = (
    ATTACK, "{{7*7}}{{constructor.constructor('window.hacked=1')()}}", "[/red]", "\x1b]0;title\x07", "\u202egnp.exe",
    '" onclick="window.hacked=1" innerHTML="<img src=x>', "a/b", "a;b", "a%25b", "a%2Fb", "a?b=c", "a#b", " a b ", "..",
    "a\\b", "~2F", "é😀", "</title><script>window.hacked=1</script>", "x" * 512, "漢" * 170,
    "`${window.hacked=1}`\\",
)  # fmt: skip
USERS, ITEMS = table_named("agg_interactions_user"), table_named("agg_interactions_item")
TIME = datetime.now(UTC).replace(microsecond=0)
ROW_KEY, ROW = f"{ITEMS.name}-back".encode(), '{"item_id":"back","max_interactions":7}'
JSON = f'{{"n": {LARGE}, "x": 1e400, "list": [1, {{}}], "by": "{{{{7*7}}}} \\u202e<img src=x>"}}'
WORST = (
    "select repeat('x', 1000000) from range(400)",
    "select repeat(range::varchar, 1000000) from range(400)",
    "select range % 10, list(range) from range(3000000) group by 1",
    "select list(range) from range(1000000000)",
    "select count(*) from range(1000000) a, range(1000000) b where a.range < b.range",
)


@dataclass
class Site:
    pipeline: Pipeline
    controls: Controls
    address: str
    settings: PageSettings


@pytest.fixture(scope="module")
def site(kafka: str, elasticsearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("a page with a space")
    pipeline = Pipeline(kafka, elasticsearch_url, "hostile-page", data)
    _fill_kafka(pipeline)
    _fill_elasticsearch(pipeline)
    _fill_lake(data)
    controls = Controls(Flow(rate=0.005, users=10, items=10))
    state = Health("kafka", "elasticsearch")
    state.ok("kafka")
    state.failing("elasticsearch", f"{ATTACK} {{{{7*7}}}} \x1b]0;title\x07")
    url = f"http://127.0.0.1:{serve(state, '127.0.0.1', 0, {'/control': application(controls)})}"
    urls = {"PRODUCER_URL": url, "STREAM_URL": url, "SINK_URL": url}
    settings = PageSettings(
        kafka_broker=kafka, kafka_topic=pipeline.topic, es_host=elasticsearch_url, warehouse=str(data / "warehouse"),
        stream_url=url,
    )  # fmt: skip
    # A proxy that does not answer: the page ignores it.
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    proxies |= {"no_proxy": "", "NO_PROXY": ""}
    with pipeline.running(PAGE, **urls, **proxies, SQL_SECONDS="15") as page:
        yield Site(pipeline, controls, page.url.geturl().removesuffix("/health"), settings)
    assert "Traceback" not in pipeline.log(PAGE)
    with pipeline.elasticsearch as client:
        client.indices.delete(index=",".join(index for index, _ in mappings()), ignore_unavailable=True)


def _fill_kafka(pipeline: Pipeline) -> None:
    _create_topics(pipeline)
    values = [f'{{"user_id": "{LARGE}", "n": 12345678901234567890, "x": 1e400, "by": "{n}"}}' for n in range(5)]
    pipeline.send(pipeline.topic, [(id_.encode(), f"{id_} {{{{7*7}}}}".encode()) for id_ in IDS])
    pipeline.send(pipeline.topic, [(b"numbers", value.encode()) for value in values])
    pipeline.send(pipeline.topic, [(b"\xff\xfe\x00", b"\x00\xff\x1b[31m")])
    _transact(pipeline, 3, is_committed=True)
    _transact(pipeline, 2_000, is_committed=False)
    producer = Producer({"bootstrap.servers": pipeline.kafka})
    for id_ in IDS:
        origin_headers = [(TOPIC, id_.encode()), (PARTITION, b"0"), (OFFSET, b"1"), (SERVICE, b"test")]
        reason = (REASON, f"interaction_type: {id_} is none".encode())
        producer.produce(pipeline.settings.dead_letter_topic, value=id_.encode(), headers=[*origin_headers, reason])
    # A dead letter as another program might write it.
    producer.produce(pipeline.settings.dead_letter_topic, value=b"odd", headers=[(REASON, b"\xff only a reason")])
    of_sink = {TOPIC: pipeline.settings.aggregated_topic, PARTITION: "0", OFFSET: "1", SERVICE: ELASTICSEARCH_SINK}
    headers: list[tuple[str, str | bytes | None]] = [
        (name, text.encode()) for name, text in {**of_sink, REASON: "refused by Elasticsearch"}.items()
    ]
    producer.produce(pipeline.settings.dead_letter_topic, key=ROW_KEY, value=ROW.encode(), headers=headers)
    # A record of the greatest size with a time after the year 9999, and one whose header has a name that is no UTF-8.
    large = json.dumps({"large": "x" * 900_000})
    far = 300_000_000_000_000
    producer.produce(pipeline.settings.dead_letter_topic, key=b"large", value=large, timestamp=far)
    odd_headers: dict[str, str | bytes | None] = {"trace": b"\xff\x1b]0;t\x07", ATTACK: b"<b>"}
    producer.produce(pipeline.topic, key=b"open", value=JSON, headers=odd_headers, partition=1)
    assert producer.flush(60) == 0


def _create_topics(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    declared = (interactions_topic, aggregated_topic, dead_letter_topic)
    topics = [topic(settings) for topic in declared]
    topic_admin.create_missing_topics(settings.kafka_client, threading.Event(), *topics)


def _transact(pipeline: Pipeline, size: int, *, is_committed: bool) -> None:
    """Send records in a transaction, and commit or abort it."""
    producer = Producer({"bootstrap.servers": pipeline.kafka, "transactional.id": f"{pipeline.topic}-{is_committed}"})
    producer.init_transactions()
    producer.begin_transaction()
    for n in range(size):
        producer.produce(pipeline.topic, key=b"transaction", value=f"{n} committed: {is_committed}".encode())
    # The broker can abort only what it has received.
    assert producer.flush(60) == 0
    if is_committed:
        producer.commit_transaction()
    else:
        producer.abort_transaction()


def _fill_elasticsearch(pipeline: Pipeline) -> None:
    time_ = TIME.isoformat()
    actions = []
    for n, id_ in enumerate(IDS):
        user = dict.fromkeys(USERS.measures, n) | {"user_id": id_, "avg_interactions": 1.5, "last_interaction": time_}
        item = {"item_id": id_, "min_interactions": n, "max_interactions": LARGE + n, "last_interaction": time_}
        actions += [{"_index": index.name, "_id": id_, "_source": row} for index, row in ((USERS, user), (ITEMS, item))]
        for index, field, operator, threshold, value in (
            (USERS.name, "avg_interactions", "<", 40, 1.5 + n / 10),
            (ITEMS.name, "max_interactions", ">", 12, LARGE + n),
        ):
            text = f"{field} {operator} {threshold}"
            alert = {
                "rule": f"{index}: {text}", "alert_text": text, "severity": "warning", "index": index, "id": id_,
                "field": field, "operator": operator, "threshold": threshold, "value": value, "row": {},
                "status": "firing", "fired_at": (TIME - timedelta(minutes=n)).isoformat(), "resolved_at": None,
                "partition": 0, "version": 1,
            }  # fmt: skip
            actions.append({"_index": "alerts", "_source": alert})
    average = {"avg_interactions": 12.34, "last_interaction": time_}
    actions.append({"_index": "avg_interactions", "_id": "avg_interactions", "_source": average})
    with pipeline.elasticsearch as client:
        for index, mapping in mappings():
            client.indices.create(index=index, mappings=mapping)
        helpers.bulk(client, actions, refresh=True)


def _fill_lake(data: Path) -> None:
    names = ("user_id", "item_id", "interaction_type", "timestamp")
    microseconds = [int((TIME - timedelta(minutes=n)).timestamp()) * 1_000_000 for n in range(len(IDS))]
    times = Array(microseconds, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    texts = [Array(list(column), DataType.string()) for column in (IDS, IDS, ["view"] * len(IDS))]
    rows = Table.from_arrays([*texts, times], names=list(names))
    write_deltalake(str(data / "warehouse" / "interactions"), rows)


def _panel(page: Page, title: str) -> Locator:
    return page.locator(".q-card", has=page.get_by_role("heading", name=title, exact=True))


def _column(panel: Locator, number: int) -> list[str]:
    cells = panel.locator(f"tbody tr td:nth-child({number})")
    return [f"{text}" for text in cells.evaluate_all("cells => cells.map(each => each.textContent)")]


def _assert_nothing_ran(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    text = page.evaluate("document.body.textContent + document.title")
    # No control or direction character reaches the page unescaped.
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_text_from_records_is_shown_as_text_on_every_page(site: Site, browser: Browser) -> None:
    shown = sorted(map(format_text, IDS))
    with page_of(browser, site.address) as page:
        expect(page.locator('[data-health="elasticsearch_sink_alert"]')).to_contain_text(ATTACK)
        expect(page.locator('[data-health="elasticsearch_sink_alert"]')).to_contain_text("{{7*7}} \\x1b]0;title\\x07")
        expect(_panel(page, "Latest alerts").locator("tbody tr").first).to_be_visible()
        _assert_nothing_ran(page)

        for name, table in (("Users", USERS), ("Items", ITEMS)):
            go_to(page, name)
            panel = _panel(page, name)
            expect(panel.locator("tbody tr")).to_have_count(15)
            assert set(_column(panel, 1)) <= set(shown), table
            # Tooltips show ids too.
            chart = _panel(page, "Top 10").locator(".nicegui-echart")
            _hover_all_over(page, chart)
            _assert_nothing_ran(page)

        go_to(page, "Alerts")
        alerts = _panel(page, "Alerts")
        expect(alerts.locator("tbody tr")).to_have_count(len(IDS) * 2)
        assert sorted(set(_column(alerts, 4))) == shown
        _hover_all_over(page, _panel(page, "Values against the threshold").locator(".nicegui-echart"))
        _assert_nothing_ran(page)

        go_to(page, "Topics")
        dead_letters = _panel(page, "Dead letters")
        expect(dead_letters.locator("tbody tr")).to_have_count(len(IDS) + 2)
        values = set(_column(dead_letters, 5))
        assert values == {*map(format_text, IDS), "odd", ROW}
        assert "\\xff only a reason" in _column(dead_letters, 3)
        expect(_panel(page, "Records").locator("tbody tr")).to_have_count(len(IDS) + 5 + 1 + 3 + 1)
        _assert_nothing_ran(page)

        go_to(page, "Lake")
        sample = _panel(page, "Sample rows")
        expect(sample.locator("tbody tr")).to_have_count(10)
        assert set(_column(sample, 1)) <= set(shown)
        query = _panel(page, "SQL query")
        write_query(query, "SELECT user_id AS \"<img src=x>{{7*7}}\", 'wrong' FROM interactions")
        query.get_by_role("button", name="Run").click()
        expect(query.get_by_role("status").last).to_contain_text(f"{len(IDS)} rows")
        expect(query.get_by_role("columnheader").first).to_have_text("<img src=x>{{7*7}}")
        write_query(query, f'SELECT * FROM "{ATTACK.replace(chr(34), chr(34) * 2)}"')
        query.get_by_role("button", name="Run").click()
        expect(query.get_by_role("status").last).to_contain_text("<img src=x onerror=")
        _assert_nothing_ran(page)


def _hover_all_over(page: Page, chart: Locator) -> None:
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    for n in range(1, 10):
        # Diagonally, for vertical and horizontal bars.
        page.mouse.move(box["x"] + box["width"] * n / 10, box["y"] + box["height"] * n / 10)
        page.wait_for_timeout(60)
    assert chart.locator("div", has_text=re.compile(r"\d")).count() > 0


def test_every_id_links_to_its_own_row(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        for n, id_ in enumerate(IDS):
            if n % 2:
                page.goto(row_href(USERS, id_))
            else:
                # By a click on its link.
                go_to(page, "Users")
                # Text typed before the page is connected is lost: wait for the first rows.
                expect(_panel(page, "Users").locator("tbody tr")).to_have_count(15)
                _panel(page, "Users").get_by_role("textbox").fill(id_)
                # Wait until the link no longer moves.
                expect(_panel(page, "Users").locator("tbody tr")).to_have_count(1)
                page.get_by_role("link", name=format_text(id_), exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(f"User {format_text(id_)}")
            measures = _panel(page, "Measures")
            expect(measures.locator("tbody tr")).to_have_count(7)
            assert dict(zip(_column(measures, 1), _column(measures, 2), strict=True))["total_click"] == f"{n}"
            interactions = _panel(page, "Latest interactions in the lake")
            expect(interactions.locator("tbody tr")).to_have_count(1)
            alerts = _panel(page, "Alerts")
            # Not the alert of the item with the same id.
            expect(alerts.locator("tbody tr")).to_have_count(1)
            _assert_nothing_ran(page)
        page.goto(row_href(USERS, "unknown / id"))
        expect(_panel(page, "Measures")).to_contain_text("No user has this id")
        expect(page.get_by_text("index")).to_have_count(0)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_long_text_neither_widens_nor_stretches_a_page(site: Site, browser: Browser, width: int) -> None:
    paths = ("/", "/users", "/alerts", "/topics", "/lake", row_href(USERS, "x" * 512), row_href(USERS, ATTACK))
    with page_of(browser, site.address, width=width) as page:
        for path in paths:
            page.goto(path)
            expect(page.locator("tbody tr").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == width, path
            rows = page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.offsetHeight)")
            assert max(rows) < 260, path
        page.goto("/alerts")
        expect(_panel(page, "Alerts").locator("tbody tr")).to_have_count(len(IDS) * 2)
        assert page.evaluate("document.documentElement.scrollHeight") < 4_000
        whole = _panel(page, "Alerts").locator(f'td [title="{"x" * 512}"]').first
        assert whole.evaluate("each => each.offsetHeight") < 40


def test_numbers_are_exact_and_formatted(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Items")
        items = _panel(page, "Items")
        expect(items.locator("tbody tr")).to_have_count(15)
        highest = LARGE + len(IDS) - 1
        assert f"{highest:,}" in items.locator("tbody tr").first.inner_text()
        chart = _panel(page, "Top 10").locator(".nicegui-echart")
        box = chart.bounding_box()
        assert box is not None
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30)
        expect(chart).to_contain_text(f"{highest}")
        go_to(page, "Alerts")
        expect(_panel(page, "Alerts")).to_contain_text(f"{LARGE:,}")
        go_to(page, "Topics")
        expect(_panel(page, "Records")).to_contain_text('"n": 12345678901234567890, "x": 1e400')
        go_to(page, "Lake")
        query = _panel(page, "SQL query")
        write_query(query, "SELECT 12345678901234567890 AS n, 170141183460469231731687303715884105727")
        query.get_by_role("button", name="Run").click()
        expect(query.locator("tbody")).to_contain_text("12345678901234567890")
        expect(query.locator("tbody")).to_contain_text("170141183460469231731687303715884105727")


def test_controls_show_rates_per_second_and_refuse_values_out_of_bounds(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Controls")
        flow = page.locator("[data-flow]")
        for rate in (1, 200, 1_000, 5_000):
            page.get_by_role("button", name=f"{rate:,}", exact=True).click()
            text = f"{rate:,} interaction{'' if rate == 1 else 's'} per second"
            expect(page.get_by_role("alert").get_by_text(text, exact=True)).to_be_visible()
            expect(flow).to_have_text(f"{text}, 10 users, 10 items")
        users = page.get_by_role("spinbutton", name="users")
        for wrong in ("5000000", "0", "", "1.5"):
            users.fill(wrong)
            page.get_by_role("button", name="Set", exact=True).click()
            expect(page.get_by_text("a whole number from 1 to 1,000,000")).to_be_visible()
            assert users.input_value() == wrong
        assert site.controls.flow.users == 10
        users.fill("1000000")
        page.get_by_role("button", name="Set", exact=True).click()
        expect(flow).to_contain_text("1,000,000 users")
        expect(page.get_by_text("a whole number from 1 to 1,000,000")).to_have_count(0)


def test_controls_without_effect_on_a_replay_are_disabled_and_named(site: Site, browser: Browser) -> None:
    without_effect = dict.fromkeys(("users", "items", "burst", "malformed", "viral_interactions"), "no effect")
    controls = Controls(Flow(rate=0.02, users=10, items=10), f"{ATTACK}.csv", without_effect)
    state = Health("kafka")
    state.ok("kafka")
    url = f"http://127.0.0.1:{serve(state, '127.0.0.1', 0, {'/control': application(controls)})}"
    with (
        site.pipeline.running(PAGE, PRODUCER_URL=url, STREAM_URL=url, SINK_URL=url) as service,
        page_of(browser, service.url.geturl().removesuffix("/health")) as page,
    ):
        go_to(page, "Controls")
        flow = page.locator("[data-flow]")
        expect(flow).to_have_text(f"replaying {ATTACK}.csv at 50 interactions per second")
        text = "No effect during this replay: users, items, burst, malformed, viral interactions"
        expect(page.locator("[data-without-effect]")).to_have_text(text)
        for name in ("+ 1,000", "+ 10 malformed", "Viral item", "Set"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
        expect(page.get_by_role("spinbutton", name="users")).to_be_disabled()
        page.get_by_role("button", name="200", exact=True).click()
        page.get_by_role("button", name="Pause", exact=True).click()
        expect(flow).to_have_text(f"paused; replaying {ATTACK}.csv at 200 interactions per second")
        assert page.evaluate("window.hacked") is None


def test_a_threshold_is_visible_above_all_bars(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Alerts")
        panel = _panel(page, "Values against the threshold")
        panel.get_by_role("combobox", name="rule").press("Enter")
        page.get_by_role("option", name=f"{USERS.name}: avg_interactions < 40").click()
        expect(panel.locator("svg text", has_text="threshold 40")).to_be_visible()
        at, top, bottom = panel.locator(".nicegui-echart").evaluate(
            """e => {
                const chart = getElement(Number(e.id.slice(1))).chart
                const grid = chart.getModel().getComponent('grid').coordinateSystem.getRect()
                return [chart.convertToPixel({yAxisIndex: 0}, 40), grid.y, grid.y + grid.height]
            }"""
        )
        assert top <= at <= bottom


def test_charts_are_in_utc_whatever_the_browsers_time_zone(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address, time_zone="Asia/Kathmandu") as page:
        expect(page.get_by_text("All times are UTC")).to_be_visible()
        go_to(page, "Alerts")
        expect(page.get_by_text("All times are UTC")).to_be_visible()
        chart = _panel(page, "Alerts per minute (UTC)").locator(".nicegui-echart")
        labels = chart.locator("svg text", has_text=re.compile(r"^\d\d:\d\d$"))
        expect(labels.first).to_be_visible()
        # The axis is the last hour's; in that zone it is 5:45 later.
        allowed = {(datetime.now(UTC) - timedelta(minutes=n)).strftime("%H:%M") for n in range(-5, 75)}
        assert set(labels.all_text_contents()) <= allowed


CONTRAST = """element => {
    const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2])
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    const pen = canvas.getContext('2d', {willReadFrequently: true})
    const parse = colour => {  // In any notation, as red, green, blue, and how opaque.
        pen.clearRect(0, 0, 1, 1)
        pen.fillStyle = colour
        pen.fillRect(0, 0, 1, 1)
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data
        return [r, g, b, a / 255]
    }
    let ground = null
    for (let e = element; e !== null && ground === null; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor)
        if (c[3] === 1) ground = c
    }
    ground ??= document.body.classList.contains('body--dark') ? [18, 18, 18] : [255, 255, 255]
    const style = getComputedStyle(element)
    let ink = parse(element.closest('svg') ? style.fill : style.color)
    let alpha = ink[3]
    for (let e = element; e !== null; e = e.parentElement) alpha *= Number(getComputedStyle(e).opacity)
    ink = [0, 1, 2].map(n => alpha * ink[n] + (1 - alpha) * ground[n])
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x)
    return (a + 0.05) / (b + 0.05)
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_contrast_and_every_page_has_one_heading(site: Site, browser: Browser, dark: bool) -> None:
    with page_of(browser, site.address, dark=dark) as page:
        for path in ("/", "/users", "/items", "/alerts", "/topics", "/lake", "/controls", row_href(USERS, "a/b")):
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_have_count(1)
            expect(page.locator("tbody tr").first).to_be_visible()
            texts = page.locator(
                ".nicegui-echart svg text, :is(.pipeline, .tile) div:not(:has(*), :empty), h1,"
                " .q-table td .cell, .q-table th"
            )
            if path not in ("/topics", "/lake", "/controls"):
                expect(page.locator(".nicegui-echart svg text").first).to_be_visible()
            # The change from light to dark is animated.
            low_contrast = f"all => all.filter(each => ({CONTRAST})(each) < 4.5).map(each => each.textContent)"
            eventually(partial(_assert_none, texts, low_contrast), 30)


def _assert_none(locator: Locator, query: str) -> None:
    assert locator.evaluate_all(query) == []


def test_no_other_site_can_open_the_socket_or_frame_the_page(site: Site) -> None:
    port = int(site.address.rsplit(":", 1)[1])
    polling = f"{site.address}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    for origin, is_in in {
        f"http://localhost:{port}": False,  # The page is served at 127.0.0.1: another origin.
        site.address: True,
        "http://evil.example.com": False,
        "null": False,
        "http://localhost:3000": False,
    }.items():
        assert _socket_status(port, origin) == (101 if is_in else 403), origin
        response = requests.get(polling, headers={"Origin": origin}, timeout=30)
        assert response.status_code != 403 if is_in else response.status_code == 403
        assert "Access-Control-Allow-Origin" not in response.headers
        assert requests.post(polling, headers={"Origin": origin}, timeout=30).status_code != 200 or is_in
    headers = requests.get(site.address, timeout=30).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def _socket_status(port: int, origin: str) -> int:
    """Return the status of a WebSocket handshake."""
    with closing(socket.create_connection(("127.0.0.1", port), 30)) as connection:
        connection.sendall(
            (
                "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{port}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ).encode()
        )
        return int(connection.recv(64).split()[1])


def test_the_page_answers_while_the_worst_queries_run(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page, ThreadPoolExecutor() as pool:
        go_to(page, "Lake")
        query = _panel(page, "SQL query")
        status = query.get_by_role("status").last

        def run(sql: str) -> None:
            write_query(query, sql)
            query.get_by_role("button", name="Run").click()

        for sql in WORST:
            # Between two of them, so that what is read is not the status of the one before.
            run("SELECT 42 AS answer")
            expect(query.locator("tbody")).to_contain_text("42")
            query_finished = threading.Event()
            health_times = pool.submit(_health_seconds, site.address, query_finished)
            run(sql)
            # The previous result disappears at once; in the end there is one line.
            expect(query.locator("tbody")).not_to_contain_text("42")
            expect(status).to_contain_text(re.compile("rows, cells truncated|more than 256 MB|longer than 15 seconds"))
            query_finished.set()
            seconds = health_times.result()
            print(f"{sql}: /health in {statistics.median(seconds):.3f} s, at most {max(seconds):.3f} s")
            # On an idle machine 0.2 s at most; without a process of its own, a query blocks the page until it ends.
            assert statistics.median(seconds) < 2
        run(WORST[-1])
        query.get_by_role("button", name="Cancel").click()
        expect(status).to_have_text("The query was cancelled.")
        run("SELECT 43 AS answer")
        expect(query.locator("tbody")).to_contain_text("43")
        run("SELECT wrong")
        expect(status).to_contain_text("wrong")
        expect(query.locator("tbody tr")).to_have_count(0)


def test_a_query_whose_page_is_left_ends_and_the_next_one_need_not_wait(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Lake")
        query = _panel(page, "SQL query")
        write_query(query, WORST[-1])
        query.get_by_role("button", name="Run").click()
        # Its process, not one of the page's own queries.
        eventually(lambda: assert_more_than(max(map(_cpu_seconds, _workers()), default=0.0), 2))
        go_to(page, "Users")
        # Long before its time is up.
        eventually(lambda: assert_equal(_workers(), []), 5)
    assert "An element has been deleted" not in site.pipeline.log(PAGE)


def _workers() -> list[psutil.Process]:
    """The processes of the page's queries."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any(part.endswith("sql_worker.py") for part in command_line(child))]


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def _health_seconds(address: str, query_finished: threading.Event) -> list[float]:
    found: list[float] = []
    with requests.Session() as session:
        while not found or not query_finished.is_set():
            began = time.monotonic()
            session.get(f"{address}/health", timeout=60).raise_for_status()
            found.append(time.monotonic() - began)
            query_finished.wait(0.05)
    return found


# --- Topics ------------------------------------------------------------------------------------------


def _expect_query(page: Page, **values: str | None) -> None:
    """Expect values of the page's address; None: it has none of this name."""

    def read() -> dict[str, str | None]:
        query = dict(parse_qsl(urlsplit(page.url).query))
        return {name: query.get(name) for name in values}

    eventually(lambda: assert_equal(read(), values), TIMEOUT_MS / 1000)


def _wait_for_times(records: Locator, times: list[str]) -> None:
    eventually(lambda: assert_equal([each[2:].strip() for each in _column(records, 1)], times), TIMEOUT_MS / 1000)


def test_records_are_filtered_opened_and_paused_and_the_address_has_it_all(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Topics")
        records = _panel(page, "Records")
        about, rows = records.locator("[data-about]"), records.locator("tbody tr")
        expect(about).to_contain_text("live: the latest")
        records.get_by_role("textbox", name="Text").fill("COMMITTED: t")
        expect(about).to_contain_text("live: 3 records found in the latest")
        expect(about).to_contain_text("the whole topic")
        expect(rows).to_have_count(3)
        _expect_query(page, text="COMMITTED: t", until=None)
        # An opened record stays where it is.
        records.get_by_role("button", name=re.compile("^Record ")).first.press("Enter")
        expect(records.get_by_role("region", name=re.compile("^Value"))).to_contain_text("committed: True")
        expect(about).to_contain_text("paused: 3 records found")
        opened = dict(parse_qsl(urlsplit(page.url).query))["open"]
        page.reload()
        expect(records.get_by_role("button", name=f"Record {opened}")).to_have_attribute("aria-expanded", "true")
        expect(records.get_by_role("region", name=re.compile("^Value"))).to_contain_text("committed: True")
        expect(records.get_by_role("textbox", name="Text")).to_have_value("COMMITTED: t")
        records.get_by_role("button", name="Resume").click()
        expect(about).to_contain_text("live")
        _expect_query(page, text="COMMITTED: t", until=None, open=None)

        records.get_by_role("textbox", name="Text").fill("")
        partition, offset = opened.split("-")
        records.get_by_role("textbox", name="Partition").fill(partition)
        records.get_by_role("textbox", name="From offset").fill(offset)
        expect(about).to_contain_text("from there on, the oldest first")
        eventually(lambda: assert_equal(_column(records, 2)[:1], [opened]), TIMEOUT_MS / 1000)
        assert {each.split("-")[0] for each in _column(records, 2)} == {partition}
        _expect_query(page, partition=partition, offset=offset, text=None)
        go_to(page, "Overview")
        page.go_back()
        expect(records.get_by_role("textbox", name="From offset")).to_have_value(offset)
        eventually(lambda: assert_equal(_column(records, 2)[:1], [opened]), TIMEOUT_MS / 1000)

        records.get_by_role("textbox", name="From offset").fill("")
        records.get_by_role("textbox", name="Partition").fill("99")
        expect(records).to_contain_text("has no partition 99: it has 0 to 3")
        records.get_by_role("textbox", name="Partition").fill("x")
        expect(records).to_contain_text("A whole number")
        records.get_by_role("textbox", name="Partition").fill("")
        page.get_by_role("button", name=site.pipeline.settings.dead_letter_topic, exact=True).click()
        expect(about).to_contain_text("live: the latest")
        # Only the record of the far future is later.
        records.get_by_role("textbox", name="From time (UTC)").fill("9000-01-01")
        expect(about).to_contain_text("1 record from there on")
        _wait_for_times(records, ["9999-12-31 23:59:59"])
        records.get_by_role("textbox", name="From time (UTC)").fill("soon")
        expect(records).to_contain_text("Such as 14:05")


def test_a_live_page_shows_new_records_and_a_paused_one_does_not(site: Site, browser: Browser) -> None:
    topic = site.pipeline.settings.aggregated_topic
    with page_of(browser, site.address) as page, page_of(browser, site.address) as paused:
        for each in (page, paused):
            each.goto(f"/topics?topic={topic}")
            expect(_panel(each, "Records").locator("[data-about]")).to_contain_text("live")
        site.pipeline.send(topic, [(b"before", b"{}")])
        for each in (page, paused):
            expect(_panel(each, "Records")).to_contain_text("before")
        _panel(paused, "Records").get_by_role("button", name="Pause").click()
        expect(_panel(paused, "Records").locator("[data-about]")).to_contain_text("paused")
        site.pipeline.send(topic, [(b"after", b"{}")])
        expect(_panel(page, "Records")).to_contain_text("after")
        paused.reload()
        expect(_panel(paused, "Records")).to_contain_text("before")
        assert "after" not in _panel(paused, "Records").inner_text()
        _panel(paused, "Records").get_by_role("button", name="Resume").click()
        expect(_panel(paused, "Records")).to_contain_text("after")


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)])
def test_hostile_records_open_as_text_and_within_bounds(site: Site, browser: Browser, width: int, dark: bool) -> None:
    with page_of(browser, site.address, width=width, dark=dark) as page:
        page.goto("/topics?key=open")
        records = _panel(page, "Records")
        records.get_by_role("button", name=re.compile("^Record ")).click()
        value = records.get_by_role("region", name=re.compile("^Value"))
        expect(value).to_contain_text(f'{{\n  "n": {LARGE},\n  "x": 1e400,\n  "list": [\n    1,\n    {{}}\n  ],')
        expect(value).to_contain_text("{{7*7}} \\u202e<img src=x>")
        expect(records.locator(".record")).to_contain_text(f"trace\\xff\\x1b]0;t\\x07{ATTACK}<b>")
        _assert_nothing_ran(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        texts = page.locator(".record :is(dt, dd, pre, .title, span), .opener, [data-about]")
        low_contrast = f"all => all.filter(each => ({CONTRAST})(each) < 4.5).map(each => each.textContent)"
        eventually(partial(_assert_none, texts, low_contrast), 30)

        page.goto(f"/topics?topic={site.pipeline.settings.dead_letter_topic}&key=large")
        expect(records).to_contain_text("9999-12-31 23:59:59")
        expect(records).to_contain_text("(900.0 kB)")
        records.get_by_role("button", name=re.compile("^Record ")).click()
        expect(records.locator(".record")).to_contain_text("Value, 900.0 kB, the first 100,000 characters")
        assert len(value.inner_text()) == 100_000
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert value.evaluate("each => each.offsetHeight") < 400


def test_a_dead_letter_is_replayed_after_a_confirmation_and_only_once(site: Site, browser: Browser) -> None:
    topic, dead_letter_topic = site.pipeline.settings.aggregated_topic, site.pipeline.settings.dead_letter_topic

    def replays() -> list[bytes | None]:
        found = site.pipeline.read(topic)
        return [
            message.value() for message in found if message.key() == ROW_KEY and REPLAY_OF in dict(headers_of(message))
        ]

    with page_of(browser, site.address) as page:
        go_to(page, "Topics")
        letters = _panel(page, "Dead letters")
        letters.locator("tbody tr", has_text="only a reason").get_by_role("link").click()
        records = _panel(page, "Records")
        expect(records.locator(".replay")).to_contain_text("the same bytes would be rejected again")
        expect(records.get_by_role("button", name="Replay …")).to_have_count(0)
        letters.locator("tbody tr", has_text="refused by Elasticsearch").get_by_role("link").click()
        expect(records.locator(".record")).to_contain_text("dead_letter.reasonrefused by Elasticsearch")
        _expect_query(page, topic=dead_letter_topic, key=None)
        dialog = page.get_by_role("dialog")
        records.get_by_role("button", name="Replay …").click()
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)
        assert replays() == []
        records.get_by_role("button", name="Replay …").click()
        expect(dialog).to_contain_text(f"sent to {topic}")
        dialog.get_by_role("button", name="Replay", exact=True).click()
        expect(page.get_by_role("alert").get_by_text("was replayed", exact=False)).to_be_visible()
        assert replays() == [ROW.encode()]
        expect(letters).to_contain_text("refused by Elasticsearch  (replayed)")
        records.get_by_role("button", name="Replay …").click()
        dialog.get_by_role("button", name="Replay", exact=True).click()
        expect(page.get_by_role("alert").get_by_text("it was replayed already", exact=False)).to_be_visible()
        assert replays() == [ROW.encode()]


def test_only_committed_records_are_shown_and_found(site: Site) -> None:
    reader = TopicRecords(Consumers(site.settings))
    committed = {f"{n} committed: True" for n in range(3)}
    topic = site.pipeline.topic

    def assert_committed() -> None:
        # The latest 2,000 offsets of their partition are aborted records and a marker.
        for query in (RecordQuery(topic, key="transaction"), RecordQuery(topic, text="COMMITTED: t")):
            found = reader.read(query)
            assert [record.key for record in found.records] == ["transaction"] * 3
            assert {record.value for record in found.records} == committed
            # All but those of aborted transactions were looked at, from the start on.
            assert (found.looked, found.since) == (len(IDS) + 5 + 1 + 3 + 1, None)
        latest = reader.latest(topic)
        assert {record.value for record in latest if record.key == "transaction"} == committed
        assert len(latest) == len(IDS) + 5 + 1 + 3 + 1

    # On a slow machine a read may time out early.
    eventually(assert_committed)


def test_a_pipeline_is_drained_after_an_aborted_transaction(site: Site, kafka: str, tmp_path: Path) -> None:
    """Replace the stream job by an append with its offsets, and its metrics."""
    pipeline = Pipeline(kafka, site.pipeline.es_url, "drained-page", tmp_path)
    _create_topics(pipeline)
    _transact(pipeline, 3, is_committed=True)
    _transact(pipeline, 50, is_committed=False)
    settings = site.settings.model_copy(update={"kafka_topic": pipeline.topic, "warehouse": f"{tmp_path}/warehouse"})
    observer = Observer(
        settings, elasticsearch_client(settings), settings.warehouse, {"stream": settings.stream_url}, "drained-page"
    )
    try:
        sent = observer.snapshot().sent
        assert sent is not None
        assert sent > 53
        ends = observer._end_offsets(pipeline.topic)
        metadata = {"batch": 0, "topic_id": "id", "offsets": {pipeline.topic: {str(n): end for n, end in ends.items()}}}
        rows = Table.from_arrays([Array(["a"] * 3, DataType.string())], names=["user_id"])
        properties = CommitProperties(custom_metadata={"userMetadata": orjson.dumps(metadata).decode()})
        write_deltalake(f"{settings.warehouse}/interactions", rows, commit_properties=properties)
        LAKE_ROWS.set(3)
        AGGREGATED.set(3)
        FINISHED_BATCH.labels("ingest").set(-1)
        # In the middle of a batch, which may still write dead letters.
        assert observer.snapshot().unread is None
        FINISHED_BATCH.labels("ingest").set(0)
        drained = observer.snapshot()
        assert (drained.unread, drained.in_the_lake, drained.dead_letters) == (0, 3, 0)
        assert drained.uncommitted == 0
        assert replace(drained, sink_lag=0).is_drained
        assert not drained.offsets_match_records
        pipeline.send(pipeline.topic, [(b"a", b"b")] * 4)
        pipeline.send(pipeline.settings.aggregated_topic, [(b"a", b"b")] * 3)
        assert (observer.snapshot().unread, observer.snapshot().uncommitted) == (4, 3)
        # Records of an open transaction are not committed yet.
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{pipeline.topic}-open"})
        producer.init_transactions()
        producer.begin_transaction()
        for partition in range(4):
            producer.produce(pipeline.topic, value=b"not yet", partition=partition)
        assert producer.flush(60) == 0
        assert observer.snapshot().unread == 4
        producer.commit_transaction()
        eventually(lambda: assert_equal(observer.snapshot().unread, 12))  # Including a marker in each partition.
    finally:
        observer.close()
