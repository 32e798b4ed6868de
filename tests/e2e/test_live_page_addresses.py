"""What is chosen on the live page stays with its address, and its box for SQL; no other service runs."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from arro3.core import Array, DataType, Table
from confluent_kafka import Producer
from deltalake import write_deltalake
from elasticsearch import helpers
from elasticsearch_sink_alert.indexing.index_templates import mappings
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect

from contract.declared import PIPELINE, table_named
from contract.topics import aggregated_topic, dead_letter_topic, interactions_topic
from live_page.pages.links import row_href
from live_page.pages.queries import example_queries
from local_stack import servers
from local_stack.services import PAGE
from runtime import topic_admin
from tests.browser import NARROW, SQL_EDITOR, TIMEOUT_MS, expect_path, go_to, page_of, write_query
from tests.pipeline import Pipeline, assert_equal, assert_more_than, eventually

USERS = table_named("agg_interactions_user")
OVERALL = table_named("avg_interactions")
SPECIAL_IDS = ("a/b", "a;b", "50% off", "a%2Fb", "é 漢😀")
IDS = (*SPECIAL_IDS, *(f"user_{n}" for n in range(30)))
TIME = datetime.now(UTC).replace(microsecond=0)
RULES = ("many likes", "few views")
APPENDS = 3
ROWS = 10
"""Rows of an append."""


@dataclass
class Site:
    pipeline: Pipeline
    address: str


@pytest.fixture(scope="module")
def site(kafka: str, elasticsearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("addresses")
    pipeline = Pipeline(kafka, elasticsearch_url, "addresses", data)
    topics = [topic(pipeline.settings) for topic in (interactions_topic, aggregated_topic, dead_letter_topic)]
    topic_admin.create_missing_topics(pipeline.settings.kafka_client, threading.Event(), *topics)
    producer = Producer({"bootstrap.servers": kafka})
    for n in range(5):
        producer.produce(pipeline.topic, key=b"user_1", value=f"interaction {n}")
        producer.produce(pipeline.settings.aggregated_topic, key=b"a;b", value=f"row {n}")
    assert producer.flush(60) == 0
    _fill_elasticsearch(pipeline)
    _fill_lake(data / "warehouse")
    nowhere = f"http://{servers.HOST}:{servers.free_port()}"
    urls = dict.fromkeys(("PRODUCER_URL", "STREAM_URL", "SINK_URL"), nowhere)
    with pipeline.running(PAGE, **urls, SQL_SECONDS="30") as page:
        yield Site(pipeline, page.url.geturl().removesuffix("/health"))
    assert "Traceback" not in pipeline.log(PAGE)
    with pipeline.elasticsearch as client:
        client.indices.delete(index=",".join(index for index, _ in mappings()), ignore_unavailable=True)


def _fill_elasticsearch(pipeline: Pipeline) -> None:
    actions: list[dict[str, Any]] = []
    for n, id_ in enumerate(IDS):
        row: dict[str, Any] = dict.fromkeys(USERS.measures, n * 7 % 31)
        row |= {"user_id": id_, "total_interactions": 1_000 + n, "last_interaction": TIME.isoformat()}
        actions.append({"_index": USERS.name, "_id": id_, "_source": row})
        alert = {
            "rule": RULES[n % 2], "alert_text": "total_like > 3", "severity": "warning", "index": USERS.name, "id": id_,
            "field": "total_like", "operator": ">", "threshold": 3, "value": n, "row": {},
            "status": "firing" if n % 5 else "resolved", "fired_at": (TIME - timedelta(minutes=n)).isoformat(),
            "resolved_at": None if n % 5 else TIME.isoformat(), "partition": 0, "version": 1,
        }  # fmt: skip
        actions.append({"_index": "alerts", "_source": alert})
    with pipeline.elasticsearch as client:
        for index, mapping in mappings():
            client.indices.create(index=index, mappings=mapping)
        helpers.bulk(client, actions, refresh=True)


def _fill_lake(warehouse: Path) -> None:
    for append in range(APPENDS):
        microseconds = [int((TIME - timedelta(minutes=n)).timestamp()) * 1_000_000 for n in range(ROWS)]
        times = Array(microseconds, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
        texts = [Array([value] * ROWS, DataType.string()) for value in (f"user_{append}", "item_1", "view")]
        names = ["user_id", "item_id", "interaction_type", "timestamp"]
        write_deltalake(str(warehouse / "interactions"), Table.from_arrays([*texts, times], names=names), mode="append")
    users = {"user_id": Array(["user_1"], DataType.string())}
    users["total_interactions"] = Array([9_007_199_254_740_993], DataType.int64())
    write_deltalake(str(warehouse / USERS.name), Table.from_arrays(list(users.values()), names=list(users)))


def _panel(page: Page, title: str) -> Locator:
    return page.locator(".q-card", has=page.get_by_role("heading", name=title, exact=True))


def _column(panel: Locator, number: int) -> list[str]:
    cells = panel.locator(f"tbody tr td:nth-child({number})")
    return [f"{text}".strip() for text in cells.evaluate_all("cells => cells.map(each => each.textContent)")]


def _wait_for_column(panel: Locator, number: int, expected: list[str]) -> None:
    eventually(lambda: assert_equal(_column(panel, number), expected), TIMEOUT_MS / 1000)


def _expect_query(page: Page, *parts: str) -> None:
    """Expect the values of the page's address, in any order."""
    query = r"\?" + "".join(rf"(?=.*\b{re.escape(part)}(&|$))" for part in parts) if parts else "$"
    expect(page).to_have_url(re.compile(rf"^[^?]*{query}"))


# --- Addresses --------------------------------------------------------------------------------------


def test_search_sort_and_page_survive_a_reload_and_back(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        go_to(page, "Users")
        users = _panel(page, "Users")
        expect(users.locator("tbody tr")).to_have_count(15)
        _expect_query(page)
        users.get_by_role("textbox").fill("user_2")
        found = sorted([id_ for id_ in IDS if "user_2" in id_], reverse=True, key=IDS.index)
        _wait_for_column(users, 1, found)
        users.get_by_role("columnheader", name="User id").click()
        _wait_for_column(users, 1, sorted(found))
        _expect_query(page, "search=user_2", "sort=user_id", "order=asc")
        for step in _steps(page.reload, lambda: _visit(page, "user_21")):
            step()
            expect(users.get_by_role("textbox")).to_have_value("user_2")
            _wait_for_column(users, 1, sorted(found))
            _expect_query(page, "search=user_2", "sort=user_id", "order=asc")
        # The navigation leads to the page without them.
        go_to(page, "Users")
        expect(users.locator("tbody tr")).to_have_count(15)
        expect(users.get_by_role("textbox")).to_have_value("")
        _expect_query(page)
        page.go_back()
        expect(users.get_by_role("textbox")).to_have_value("user_2")
        _wait_for_column(users, 1, sorted(found))

        page.goto("/users?measure=total_like&page=3")
        expect(users).to_contain_text(f"31-{len(IDS)} of {len(IDS)}")
        page.get_by_role("combobox", name="Measure").press("Enter")
        page.get_by_role("option", name="total_view", exact=True).click()
        _expect_query(page, "measure=total_view")
        expect(users).to_contain_text(f"1-15 of {len(IDS)}")
        page.reload()
        expect(page.get_by_role("combobox", name="Measure")).to_have_value("total_view")
        # Of an address after the last page the last one is shown, and wrong values are ignored.
        page.goto("/users?page=99&sort=nothing&measure=nothing&order=x")
        expect(users).to_contain_text(f"31-{len(IDS)} of {len(IDS)}")


def _steps(*steps: Callable[[], object]) -> tuple[Callable[[], object], ...]:
    """Return what does not change what is shown."""
    return steps


def _do_nothing() -> None:
    pass


def _visit(page: Page, id_: str) -> None:
    """Follow the link to a row, and go back."""
    page.get_by_role("link", name=id_, exact=True).click()
    expect(page).to_have_title(f"{id_} · Users")
    expect_path(page, row_href(USERS, id_))
    page.go_back()


def test_an_id_with_special_characters_survives_link_reload_and_back(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        for id_ in SPECIAL_IDS:
            page.goto("/users?sort=total_interactions&order=asc")
            page.get_by_role("link", name=id_, exact=True).click()
            for step in _steps(_do_nothing, page.reload, lambda: (page.go_back(), page.go_forward())):
                step()
                expect(page.get_by_role("heading", level=1)).to_have_text(f"User {id_}")
                expect(page).to_have_title(f"{id_} · Users")
                expect_path(page, row_href(USERS, id_))
                total = f"{1_000 + IDS.index(id_):,}"
                expect(_panel(page, "Measures")).to_contain_text(total)


def test_the_theme_is_kept_on_every_page_and_after_a_reload(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        body, button = page.locator("body"), page.get_by_role("button", name=re.compile("Colour theme"))
        go_to(page, "Users")
        button.click()
        _expect_query(page, "theme=light")
        button.click()
        _expect_query(page, "theme=dark")
        expect(body).to_have_class(re.compile("body--dark"))
        go_to(page, "Alerts")
        _expect_query(page, "theme=dark")
        page.reload()
        expect(body).to_have_class(re.compile("body--dark"))
        go_to(page, "Lake")
        _expect_query(page, "theme=dark")
        # The address from before the change gets the theme too.
        for _ in range(3):
            page.go_back()
        expect(page).to_have_url(re.compile(r"/\?theme=dark$"))
        expect(body).to_have_class(re.compile("body--dark"))
        button.click()
        _expect_query(page)
        expect(body).not_to_have_class(re.compile("body--dark"))


def test_filters_of_alerts_and_the_topic_are_in_the_address(site: Site, browser: Browser) -> None:
    firing = [n for n in range(len(IDS)) if n % 5 and n % 2]
    with page_of(browser, site.address) as page:
        go_to(page, "Alerts")
        alerts = _panel(page, "Alerts")
        alerts.get_by_role("button", name="firing", exact=True).click()
        alerts.get_by_role("combobox", name="Rule").press("Enter")
        page.get_by_role("option", name=RULES[1], exact=True).click()
        for step in _steps(_do_nothing, page.reload):
            step()
            expect(alerts.get_by_text(f"{len(firing)} alerts")).to_be_visible()
            _expect_query(page, "status=firing", f"rule={RULES[1].replace(' ', '+')}")

        go_to(page, "Topics")
        topic = site.pipeline.settings.aggregated_topic
        page.get_by_role("button", name=topic, exact=True).click()
        records = _panel(page, "Records")
        _wait_for_column(records, 3, ["a;b"] * 5)
        records.get_by_role("textbox", name="Key").fill("a;b")
        for step in _steps(_do_nothing, page.reload):
            step()
            _expect_query(page, f"topic={topic}", "key=a%3Bb")
            expect(records.locator("[data-about]")).to_contain_text("5 records found")
            _wait_for_column(records, 3, ["a;b"] * 5)
        go_to(page, "Overview")
        page.get_by_role("button", name="1 min", exact=True).click()
        _expect_query(page, "span=1+min")
        page.reload()
        expect(page.get_by_role("button", name="1 min", exact=True)).to_have_attribute("aria-pressed", "true")


def test_an_unknown_address_or_id_says_what_there_is(site: Site, browser: Browser) -> None:
    assert requests.get(f"{site.address}/nothing", timeout=60).status_code == 404
    # Not `page_of`: the browser reports the status as an error.
    context = browser.new_context(base_url=site.address)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    try:
        page.goto("/nothing?theme=dark")
        expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
        expect(page).to_have_title(re.compile("^Page not found"))
        expect(page.get_by_text("There is no page /nothing", exact=True)).to_be_visible()
        page.locator(".nicegui-sub-pages").get_by_role("link", name="Items", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Items")
        # An id that was typed.
        page.goto("/users/a/b")
        page.get_by_role("link", name="Did you mean the user a/b?").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("User a/b")
        expect(_panel(page, "Measures")).to_contain_text("1,000")
        expect(page.get_by_text("such as")).to_have_count(0)
        page.goto(row_href(USERS, "unknown / id"))
        expect(_panel(page, "Measures")).to_contain_text("No user has this id")
        expect(page.get_by_text(f"No user has this id. There are {len(IDS)} users, such as")).to_be_visible()
        page.get_by_role("link", name="50% off", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("User 50% off")
        expect_path(page, row_href(USERS, "50% off"))
        page.go_back()
        page.get_by_role("link", name="All users").click()
        expect(_panel(page, "Users").locator("tbody tr")).to_have_count(15)
    finally:
        context.close()


# --- Lake -------------------------------------------------------------------------------------------


def _run(page: Page, sql: str = "") -> Locator:
    """Run a query, as default that of the box, and return the line about its result."""
    query = _panel(page, "SQL query")
    if sql:
        write_query(query, sql)
    query.get_by_role("button", name="Run", exact=True).click()
    return query.get_by_role("status").last


def _go_to_lake(page: Page) -> Locator:
    go_to(page, "Lake")
    query = _panel(page, "SQL query")
    expect(query.locator(SQL_EDITOR)).to_be_visible()
    return query


def test_the_box_takes_no_input_before_it_is_ready_and_runs_what_it_shows(site: Site, browser: Browser) -> None:
    address, typed = "SELECT 1 AS of_the_address", "SELECT 42 AS typed"
    with page_of(browser, site.address) as page:
        release = _hold_answers(page)
        page.goto(f"/lake?{urlencode({'sql': address})}")
        query = _panel(page, "SQL query")
        box, run = query.locator(".cm-content"), query.get_by_role("button", name="Run", exact=True)
        expect(box).to_have_text(address)
        expect(run).to_be_disabled()
        box.click()
        _type(page, "SELECT 41 AS early")
        expect(box).to_have_text(address)
        release()
        # At the first moment.
        query.locator(SQL_EDITOR).click()
        _type(page, typed)
        run.click()
        expect(query.get_by_role("status").last).to_contain_text("1 row,")
        expect(box).to_have_text(typed)
        expect(query.locator("thead")).to_contain_text("typed")
        assert _column(query, 1) == ["42"]


def test_what_runs_is_shown_also_if_the_page_has_lost_a_change_of_it(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address) as page:
        query = _go_to_lake(page)
        lose = "e => getElement(Number(e.closest('.nicegui-codemirror').id.slice(1))).emitting = false"
        query.locator(".cm-content").evaluate(lose)
        expect(_run(page, "SELECT 42 AS lost")).to_contain_text("1 row,")
        expect(query.locator("thead")).to_contain_text("lost")
        _expect_query(page, "sql=SELECT+42+AS+lost")


def _type(page: Page, text: str) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.type(text, delay=3)


def _hold_answers(page: Page) -> Callable[[], None]:
    """Hold back what the server sends by the socket of the page that is opened next, until the result is called."""
    held: list[str | bytes] | None = []
    sockets: list[WebSocketRoute] = []

    def on_message(message: str | bytes) -> None:
        if held is None:
            sockets[-1].send(message)
        else:
            held.append(message)

    def on_socket(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server().on_message(on_message)

    def release() -> None:
        nonlocal held
        before, held = held or [], None
        for message in before:
            sockets[-1].send(message)

    page.route_web_socket("**/socket.io/**", on_socket)
    return release


def test_the_examples_run_and_the_columns_are_beside_the_box(site: Site, browser: Browser) -> None:
    examples = example_queries(PIPELINE)
    with page_of(browser, site.address) as page:
        query = _go_to_lake(page)
        # Keywords have a colour of their own.
        expect(query.locator(".cm-line span", has_text=re.compile("^SELECT$")).first).to_be_visible()
        expect(query.locator("details").first).to_contain_text("interaction_type")
        for title, sql in examples.items():
            query.get_by_role("button", name=title, exact=True).click()
            expect(query.locator(".cm-line").first).to_have_text(sql.partition("\n")[0])
            status = _run(page)
            expect(status).to_have_text(re.compile(r"^[1-9]\d* rows?, "))
            has_chart = not title.startswith("Latest") and not title.startswith("All")
            expect(query.locator(".nicegui-echart")).to_have_count(1 if has_chart else 0)
        last = list(examples.values())[-1]
        _expect_query(page, urlencode({"sql": last}, safe="*"))
        page.reload()
        expect(query.locator(".cm-line").first).to_have_text(last.partition("\n")[0])


def test_values_are_exact_and_an_error_leaves_nothing_of_the_answer_before(site: Site, browser: Browser) -> None:
    special = (
        "SELECT * FROM (VALUES ('a', 9223372036854775807, NULL, 'nan'::DOUBLE), ('b', -9007199254740993, 'NULL', "
        "'inf'::DOUBLE), (NULL, 1, '', '-inf'::DOUBLE)) AS t(label, n, word, x)"
    )
    with page_of(browser, site.address) as page:
        query = _go_to_lake(page)
        expect(_run(page, special)).to_contain_text("3 rows")
        assert _column(query, 1) == ["a", "b", "NULL"]
        assert _column(query, 2) == ["9223372036854775807", "-9007199254740993", "1"]
        assert _column(query, 3) == ["NULL", "NULL", ""]
        # The text is another value.
        expect(query.locator("tbody td:nth-child(3) .cell.null")).to_have_count(1)
        assert _column(query, 4) == ["NaN", "Infinity", "-Infinity"]
        expect(query.locator(".nicegui-echart")).to_have_count(1)
        csv = query.get_by_role("button", name=re.compile("CSV"))
        with page.expect_download() as download:
            csv.click()
        assert download.value.suggested_filename == "query.csv"
        assert Path(download.value.path()).read_bytes().decode() == (
            '"label","n","word","x"\r\n"a","9223372036854775807",,"nan"\r\n"b","-9007199254740993","NULL","inf"\r\n'
            ',"1","","-inf"\r\n'
        )
        for wrong in ("SELECT wrong", "SELECT FROM", "DROP VIEW interactions"):
            expect(_run(page, wrong)).to_have_class(re.compile("text-red"))
            expect(query.locator("tbody tr")).to_have_count(0)
            expect(query.locator(".nicegui-echart")).to_have_count(0)
            expect(csv).to_be_disabled()
            expect(_run(page, special)).to_contain_text("3 rows")


def test_a_query_is_in_the_address_and_in_the_history_of_the_browser(site: Site, browser: Browser) -> None:
    queries = ["SELECT 1 AS \"100%\", 'é;&' AS b", "SELECT 2\n  AS c"]
    with page_of(browser, site.address) as page:
        query = _go_to_lake(page)
        for sql in queries:
            expect(_run(page, sql)).to_contain_text("1 row,")
        # The line about the first result was there already.
        _wait_for_column(query, 1, ["2"])
        _expect_query(page, "sql=SELECT+2%0A++AS+c")
        page.reload()
        expect(query.locator(".cm-line")).to_have_text(["SELECT 2", "  AS c"])
        # An address shows its query, and does not run it.
        expect(query).to_contain_text("Run a query to see its rows")
        query.get_by_role("combobox", name=re.compile("History")).press("Enter")
        options = page.get_by_role("option")
        expect(options).to_have_text(["SELECT 2 AS c", queries[0]])
        options.nth(1).click()
        expect(query.locator(".cm-line")).to_have_text([queries[0]])
        _expect_query(page, "sql=SELECT+1+AS+%22100%25%22%2C+%27%C3%A9%3B%26%27+AS+b")
        query.get_by_role("textbox").press("Control+Enter")
        expect(query.get_by_role("status").last).to_contain_text("1 row,")
        expect(query.locator("thead")).to_contain_text("100%")
        # No line was added to the query.
        expect(query.locator(".cm-line")).to_have_text([queries[0]])
    with page_of(browser, site.address) as page:
        # Another browser has another history.
        query = _go_to_lake(page)
        query.get_by_role("combobox", name=re.compile("History")).press("Enter")
        expect(page.get_by_role("option")).to_have_count(0)


def test_samples_and_queries_read_the_version_of_the_slider(site: Site, browser: Browser) -> None:
    last = APPENDS - 1
    count = "SELECT count(*) AS n FROM interactions"
    with page_of(browser, site.address) as page:
        query = _go_to_lake(page)
        text, slider = page.locator("[data-version]"), page.get_by_role("slider").locator("[tabindex]")
        expect(text).to_have_text(f"latest version, kept are 0 to {last}")
        expect(_run(page, count)).to_contain_text("1 row,")
        _wait_for_column(query, 1, [f"{APPENDS * ROWS}"])
        for version in (1, 0):
            slider.press("ArrowLeft")
            expect(text).to_contain_text(f"version {version},")
        expect(text).to_have_text(f"version 0, kept are 0 to {last}")
        sample = _panel(page, "Sample rows")
        for step in _steps(_do_nothing, page.reload):
            step()
            _expect_query(page, "version=0")
            _wait_for_column(sample, 1, ["user_0"] * ROWS)
            expect(_run(page, count)).to_contain_text("interactions as of version 0")
            _wait_for_column(query, 1, [f"{ROWS}"])
        slider.press("ArrowRight")
        expect(text).to_contain_text("version 1,")
        expect(_run(page)).to_contain_text("interactions as of version 1")
        _wait_for_column(query, 1, [f"{2 * ROWS}"])
        slider.press("ArrowRight")
        expect(text).to_contain_text("latest version")
        expect(_run(page)).not_to_contain_text("as of")
        _wait_for_column(query, 1, [f"{APPENDS * ROWS}"])
        # A version that does not exist is the latest one.
        page.goto("/lake?version=99&table=nothing")
        expect(text).to_have_text(f"latest version, kept are 0 to {last}")
        _expect_query(page, "table=nothing")
        page.get_by_role("button", name=USERS.name, exact=True).click()
        expect(text).to_have_text("latest version, kept are 0 to 0")
        eventually(partial(_assert_exact, sample), TIMEOUT_MS / 1000)


def test_a_new_version_does_not_move_the_slider_that_is_dragged(site: Site, browser: Browser) -> None:
    table = str(site.pipeline.data / "warehouse" / OVERALL.name)
    row = Table.from_arrays([Array([1.5], DataType.float64())], names=["avg_interactions"])
    for _ in range(APPENDS):
        write_deltalake(table, row, mode="append")
    with page_of(browser, site.address) as page:
        page.goto(f"/lake?table={OVERALL.name}")
        text, slider = page.locator("[data-version]"), page.get_by_role("slider")
        expect(text).to_have_text(f"latest version, kept are 0 to {APPENDS - 1}")
        track = slider.locator(".q-slider__track").bounding_box()
        assert track is not None
        page.mouse.move(track["x"] + track["width"], track["y"])
        page.mouse.down()
        page.mouse.move(track["x"] + track["width"] / 2, track["y"], steps=5)
        expect(slider).to_have_attribute("aria-valuenow", "1")
        write_deltalake(table, row, mode="append")
        expect(text).to_have_text(f"latest version, kept are 0 to {APPENDS}")
        expect(slider).to_have_attribute("aria-valuenow", "1")
        page.mouse.up()
        expect(text).to_have_text(f"version 1, kept are 0 to {APPENDS}")
        expect(slider).to_have_attribute("aria-valuemax", f"{APPENDS}")
        _expect_query(page, "version=1")


def test_the_keyboard_reaches_the_box_by_its_name_and_a_table_that_is_too_wide(site: Site, browser: Browser) -> None:
    with page_of(browser, site.address, width=NARROW) as page:
        query = _go_to_lake(page)
        expect(query.get_by_role("textbox", name="SQL (DuckDB), one SELECT")).to_be_visible()
        table = query.get_by_role("region", name="SQL query")
        expect(_run(page, "SELECT 1 AS n")).to_contain_text("1 row,")
        expect(table).to_have_count(0)
        expect(_run(page, f"SELECT {', '.join(f'{n} AS column_{n}' for n in range(20))}")).to_contain_text("1 row,")
        table.focus()
        table.press("ArrowRight")
        eventually(lambda: assert_more_than(table.evaluate("table => table.scrollLeft"), 0), TIMEOUT_MS / 1000)


def _assert_exact(sample: Locator) -> None:
    assert _column(sample, 2) == ["9007199254740993"]
