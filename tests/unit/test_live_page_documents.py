"""What the live page sends to a browser at first, built without a browser."""

import asyncio
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import pytest
from nicegui import app, run, ui

from contract.declared import table_named
from live_page import overview_model, stylesheet
from live_page.charts import Chart, bar_chart, line_options, update_bars
from live_page.components import Column, Panel, RecordTable, report, use_many_threads
from live_page.guard import Guard
from live_page.layout import build
from live_page.pages import overview, row
from live_page.pages.tiles import show_tiles, tile_texts
from live_page.pipeline_model import PipelineModel, pipeline_model
from live_page.settings import PageSettings
from live_page.sources import Sources, create_sources
from live_page.sources.documents import ELASTICSEARCH
from live_page.sources.errors import UnavailableError
from observer.reading_history import ReadingHistory
from observer.snapshot import Snapshot
from tests.page_client import page_client


def _sources(*snapshots: Snapshot) -> Sources:
    """Sources that connect to nothing, with one snapshot per second."""
    sources = create_sources(PageSettings.read({}, {}))
    for second, snapshot in enumerate(snapshots, start=1):
        sources.history.add(snapshot, float(second))
    return sources


def _head(path: str = "/", headers: dict[str, str] | None = None) -> str:
    with page_client(path, headers) as client:
        build(_sources())
    return client.head_html


# --- The overview ----------------------------------------------------------------------------------


def test_pages_of_one_reading_and_span_share_the_diagram_the_tiles_and_the_charts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[PipelineModel] = []

    def counted(history: ReadingHistory, topic: str) -> PipelineModel:
        computed.append(pipeline_model(history, topic))
        return computed[-1]

    monkeypatch.setattr(overview_model, "pipeline_model", counted)
    sources = _sources(Snapshot(sent=40_000), Snapshot(sent=41_203))
    drawings = []
    for _ in range(2):
        with page_client() as client:
            overview.show(sources)
        elements = client.elements.values()
        assert "41,203 records" in [getattr(element, "text", "") for element in elements]
        drawings.append([element.props["drawing"] for element in elements if isinstance(element, Chart)])
    assert len(computed) == 1
    # The same text, not an equal one.
    assert [first is second for first, second in zip(*drawings, strict=True)][:2] == [True, True]


def test_a_newer_reading_and_a_death_are_in_the_next_overview() -> None:
    sources = _sources(Snapshot(sent=40_000))
    first = sources.overview.get()
    assert sources.overview.get() is first
    drawing = first.rate("5 min")
    assert first.rate("5 min") is drawing
    sources.history.add(Snapshot(sent=40_200), 2.0)
    second = sources.overview.get()
    assert second.reading is sources.history.latest
    assert second.rate("5 min") != drawing


def test_an_alert_that_fires_lasts_until_the_time_of_each_reading() -> None:
    fired = datetime.now(UTC) - timedelta(seconds=20)
    alert = {
        "rule": "viral item", "alert_text": "max_interactions > 1500", "index": "agg_interactions_item", "id": "item_7",
        "value": 1_501, "status": "firing", "fired_at": fired.isoformat(), "resolved_at": None,
    }  # fmt: skip
    sources = _sources(Snapshot(firing=1, alerts=(alert,)))
    (first,) = sources.overview.get().alerts
    time.sleep(1.1)
    sources.history.add(Snapshot(firing=1, alerts=(alert,)), 2.0)
    (second,) = sources.overview.get().alerts
    seconds = [int(row["lasted"].removesuffix(" s")) for row in (first, second)]
    assert 20 <= seconds[0] < seconds[1]


def test_a_chart_that_has_not_changed_is_not_sent_again() -> None:
    with page_client() as client:
        chart = Chart({}, "per second")
    client.outbox.updates.clear()
    chart.show(line_options("per second", [(0.0, 1.0), (1.0, 2.0)]))
    assert list(client.outbox.updates) == [chart.id]
    client.outbox.updates.clear()
    chart.show(line_options("per second", [(0.0, 1.0), (1.0, 2.0)]))
    assert not client.outbox.updates
    # Its options are text, so that nothing looks into each of their values.
    assert isinstance(chart.props["drawing"], str)
    assert "options" not in chart.props


def test_what_is_not_of_the_readers_choice_is_not_shown_as_its_last_state() -> None:
    async def choose() -> None:
        await panel.choose()
        assert [row["name"] for row in table.rows] == ["a"]
        # The server does not answer: at first this is the last state, then it is that of another choice.
        answers.clear()
        await panel.refresh()
        assert [row["name"] for row in table.rows] == ["a"]
        assert "as of" in panel._status.text
        await panel.choose()
        assert (table.rows, table.props["no-data-label"]) == ([], "Not available: Elasticsearch does not answer")
        assert panel._status.text == "unknown"
        assert chart.options["series"][0]["data"] == chart.options["xAxis"]["data"] == []
        assert is_cleared == [True]
        # An answer for the choice before arrives late.
        answers.append("late")
        late = asyncio.ensure_future(panel.refresh())
        await asyncio.to_thread(is_read.wait, 10)
        answers[0] = "c"
        await panel.choose()
        may_answer.set()
        await late
        assert [row["name"] for row in table.rows] == ["c"]

    def read() -> str:
        answer = answers[0] if answers else ""
        if answer == "late":
            is_read.set()
            may_answer.wait()
        if not answer:
            raise UnavailableError("Elasticsearch does not answer", ELASTICSEARCH)
        return answer

    def show(answer: str) -> None:
        table.rows = [{"key": answer, "name": answer}]
        update_bars(chart, [answer], [1])

    answers, is_cleared = ["a"], list[bool]()
    is_read, may_answer = threading.Event(), threading.Event()
    with page_client():
        with Panel("Rows") as panel:
            table, chart = RecordTable((Column("name", "Name"),), "No rows"), bar_chart([], "rows")
        panel.refresh_from(read, show, clear=lambda: is_cleared.append(True))
    asyncio.run(choose())


def test_the_counts_of_a_row_are_as_old_as_its_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UnavailableError("Elasticsearch does not answer", ELASTICSEARCH)

    sources = _sources()
    monkeypatch.setattr(sources.documents, "row", fail)
    with page_client() as client:
        row.show(sources, table_named("agg_interactions_user"), "user_1")
    cards = {
        next(label.text for label in card.descendants() if isinstance(label, ui.label)): card
        for card in client.elements.values()
        if isinstance(card, ui.card)
    }

    async def read() -> None:
        (refresh,) = [
            each.callback
            for each in cards["Measures"].descendants()
            if isinstance(each, ui.timer) and each.callback is not None
        ]
        await refresh()

    asyncio.run(read())
    for title in ("Measures", "Counts"):
        status = [label.text for label in cards[title].descendants() if isinstance(label, ui.label)][1]
        assert (status, "stale" in cards[title].classes) == ("unknown", True), title


def test_a_server_that_does_not_answer_does_not_hold_up_what_is_read_from_others() -> None:
    async def read() -> None:
        waiting = [asyncio.ensure_future(run.io_bound(end.wait, 60)) for _ in range(panels)]
        try:
            assert await asyncio.wait_for(run.io_bound(lambda: "of another server"), 20) == "of another server"
        finally:
            end.set()
            await asyncio.gather(*waiting)

    # Those of the topics page in ten browsers.
    panels, end = 40, threading.Event()
    use_many_threads()
    try:
        asyncio.run(read())
    finally:
        run.reset()


@pytest.mark.parametrize("reason", ["", "The producer does not answer"])
def test_a_reader_who_has_left_the_page_is_told_the_result_of_a_change(reason: str) -> None:
    def change() -> None:
        card.delete()
        if reason:
            raise UnavailableError(reason)

    async def click() -> None:
        with card:
            assert await report(change, "paused") is not bool(reason)

    with page_client() as client:
        card = ui.card()
    client.outbox.messages.clear()
    asyncio.run(click())
    (message,) = [data for _, kind, data in client.outbox.messages if kind == "notify"]
    assert message["message"] == (reason or "paused")


@pytest.mark.parametrize(
    ("indexed", "shown", "about"),
    [
        ([100, 200, 300], "0.5 s", ""),
        ([100, 100, 100], "≥ 1 s", "waits and is not counted yet"),
        ([100, 100, None], "–", "≥ 0.9 s as of 1970-01-01 00:00:02"),
    ],
)
def test_the_tile_of_the_latency_shows_a_lower_bound_as_such(indexed: list[int | None], shown: str, about: str) -> None:
    sent = [100, 250, 350]
    snapshots = [Snapshot(sent=a, indexed=b, dead_letters=0) for a, b in zip(sent, indexed, strict=True)]
    with page_client() as client:
        show_tiles()(tile_texts(_sources(*snapshots).history))
    (tile,) = (each for each in client.elements.values() if each.props.get("data-tile") == "Latency")
    (change,) = (each for each in client.elements.values() if each.props.get("data-change") == "Latency")
    assert (getattr(tile, "text", ""), getattr(change, "text", "")) == (shown, about)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3, "100 as of 1970-01-01 00:00:01"), (300, "100 as of 1970-01-01 00:00:01"), (1900, "")]
)
def test_the_tile_of_a_figure_that_is_unknown_shows_the_last_one_of_half_an_hour_with_its_time(
    seconds: int, shown: str
) -> None:
    snapshots = [Snapshot(indexed=100), *[Snapshot()] * (seconds - 1)]
    with page_client() as client:
        show_tiles()(tile_texts(_sources(*snapshots).history))
    (change,) = (each for each in client.elements.values() if each.props.get("data-change") == "Interactions counted")
    assert getattr(change, "text", "") == shown


# --- The style sheet -------------------------------------------------------------------------------


async def _get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(Guard(app, names=[]))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)


def _links(head: str) -> list[str]:
    return re.findall(r'<link rel="stylesheet" href="([^"]*)">', head)


@pytest.mark.parametrize("path", ["/", "/alerts", "/users/user_1"])
def test_every_document_loads_the_style_of_the_overview_as_a_file_and_has_none_of_its_rules(path: str) -> None:
    head = _head(path)
    assert _links(head) == [stylesheet.PATH]
    assert ".pipeline" not in head
    # What every page needs is in it.
    assert ".banner {" in head


def test_the_style_is_found_behind_a_proxy_that_serves_the_page_below_a_path() -> None:
    assert _links(_head(headers={"X-Forwarded-Prefix": "/shop"})) == [f"/shop{stylesheet.PATH}"]
    hostile = _head(headers={"X-Forwarded-Prefix": '"><script>alert(1)</script>'})
    assert "<script" not in hostile


def test_a_browser_may_load_the_style_and_keeps_it_until_it_changes() -> None:
    stylesheet.serve()
    response = asyncio.run(_get(stylesheet.PATH))
    assert response.status_code == 200
    assert ".pipeline {" in response.text
    # Browsers refuse a style sheet of another type.
    assert response.headers["Content-Type"].startswith("text/css")
    assert "style-src 'self'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "public, max-age=31536000"
    # Its address has a digest of what it contains.
    assert sha256(response.content).hexdigest()[:16] in stylesheet.PATH
