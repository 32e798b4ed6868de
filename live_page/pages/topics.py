"""The topics page: topics, partitions, lag, records and dead letters."""

from collections.abc import Iterator
from typing import Any

from nicegui import run, ui

from contract import dead_letters
from live_page.address import current_query, one_of, remember, set_query
from live_page.components import Column, Panel, RecordTable, button, hint, toggle
from live_page.formatting import UNKNOWN, format_count, format_text, format_time
from live_page.sources import Sources
from live_page.sources.errors import UnavailableError
from live_page.sources.topics import SEARCHED_RECORDS, Record, Topics, TopicState, is_dead_letter

_TOPICS = (
    Column("topic", "Topic", wraps=True),
    Column("partitions", "Partitions", is_number=True),
    Column("records", "Records", is_number=True),
    Column("lag", "Lag of the sink", is_number=True),
)
_PARTITIONS = (
    Column("partition", "Partition"),
    Column("start", "Start offset", is_number=True),
    Column("end", "End offset", is_number=True),
    Column("committed", "Committed by the sink", is_number=True, is_minor=True),
    Column("lag", "Lag", is_number=True),
    Column("leader", "Leader", is_number=True, is_minor=True),
)
_RECORDS = (
    Column("at", "Time (UTC)"),
    Column("position", "Partition-offset", is_minor=True),
    Column("record_key", "Key"),
    Column("value", "Value", wraps=True),
)
_DEAD_LETTERS = (
    Column("at", "Time (UTC)"),
    Column("position", "Partition-offset", is_minor=True),
    Column("reason", "Reason", wraps=True),
    Column("origin", "Source", is_minor=True, wraps=True),
    Column("value", "Value", wraps=True),
)
_LATEST_DEAD_LETTERS = 30
_MAX_KEY = 600
_MAX_LENGTH = 2_000
"""Characters of a key, value or reason that are shown."""


def show(sources: Sources) -> None:
    """Build the page."""
    topics = sources.topics
    _show_topics(topics)
    topic = toggle(topics.names, one_of(current_query().get("topic"), topics.names, topics.names[0]))
    remember(topic, "topic", lambda: topics.names[0])
    _show_partitions(topics, topic)
    _show_latest(topics, topic)
    _show_search(topics, topic)
    _show_dead_letters(topics)


def _show_topics(topics: Topics) -> None:
    with Panel("Topics") as panel:
        table = RecordTable(_TOPICS, "Kafka has no topics yet", row_key="topic", height="min-h-36")

    def show_topics(states: list[TopicState]) -> None:
        table.rows = [
            {
                "topic": each.name,
                "partitions": format_count(len(each.partitions)),
                "records": format_count(each.records),
                "lag": format_count(each.lag),
            }
            for each in states
            if each.exists
        ]

    panel.refresh_from(lambda: [topics.state(name) for name in topics.names], show_topics)


def _show_partitions(topics: Topics, topic: ui.toggle) -> None:
    with Panel("Partitions") as panel:
        table = RecordTable(_PARTITIONS, "The topic does not exist yet", row_key="partition", height="min-h-48")

    def show_partitions(state: TopicState) -> None:
        table.rows = list(_partition_rows(state))

    panel.refresh_from(lambda: topics.state(topic.value), show_partitions)
    topic.on_value_change(panel.refresh)


def _show_latest(topics: Topics, topic: ui.toggle) -> None:
    with Panel("Latest records") as panel:
        table = RecordTable(_RECORDS, "No records yet", height="min-h-96")

    def show_records(records: list[Record]) -> None:
        table.rows = [_record_row(record) for record in records]

    panel.refresh_from(lambda: topics.latest(topic.value), show_records)
    topic.on_value_change(panel.refresh)


def _show_search(topics: Topics, topic: ui.toggle) -> None:
    with Panel("Search by key") as panel:
        with ui.row().classes("items-center gap-3 w-full"):
            key = ui.input(label="Key, such as user_1", value=current_query().get("key", "")[:_MAX_KEY])
            key.classes("grow max-w-md").props(f"dense outlined clearable maxlength={_MAX_KEY}")
            search = button("Search")
        hint(f"Searches the latest {SEARCHED_RECORDS:,} records of the topic.")
        table = RecordTable(_RECORDS, "No record has this key")
        table.clear_rows("Enter a key to see its records")

    async def run_search() -> None:
        set_query({"key": key.value or ""})
        table.rows = []
        panel.set_status("searching …")
        try:
            found = await run.io_bound(topics.find, topic.value, (key.value or "").strip())
        except UnavailableError as reason:
            table.rows = []
            panel.set_unavailable(str(reason))
            return
        panel.set_loaded()
        panel.set_status(f"{len(found or [])} found in {topic.value}")
        table.rows = [_record_row(record) for record in found or []]

    if key.value:
        ui.timer(0, run_search, once=True)
    search.on_click(run_search)
    key.on("keydown.enter", run_search)


def _show_dead_letters(topics: Topics) -> None:
    *_, topic = topics.names
    with Panel("Dead letters") as panel:
        table = RecordTable(_DEAD_LETTERS, "No dead letters: all records were valid", height="min-h-48")
        ui.markdown(
            "`python -m elasticsearch_sink_alert dead-letters list | show | replay` lists, shows and replays them."
        ).classes("text-sm opacity-75")

    def show_dead_letters(records: list[Record]) -> None:
        table.rows = [_dead_letter_row(record) for record in records if is_dead_letter(record)]

    panel.refresh_from(lambda: topics.latest(topic, _LATEST_DEAD_LETTERS), show_dead_letters, interval=2.0)


def _partition_rows(state: TopicState) -> Iterator[dict[str, Any]]:
    for each in state.partitions:
        yield {
            "partition": each.partition,
            "start": format_count(each.start),
            "end": format_count(each.end),
            "committed": format_count(each.committed),
            "lag": format_count(each.lag),
            "leader": each.leader,
        }


def _record_row(record: Record) -> dict[str, Any]:
    return {
        "key": f"{record.partition}-{record.offset}",
        "at": format_time(record.at),
        "position": f"{record.partition}-{record.offset}",
        "record_key": format_text(record.key, _MAX_LENGTH) if record.key else UNKNOWN,
        "value": format_text(record.value, _MAX_LENGTH),
    }


def _dead_letter_row(record: Record) -> dict[str, Any]:
    headers = record.headers
    topic, partition, offset = (
        headers.get(name, UNKNOWN) for name in (dead_letters.TOPIC, dead_letters.PARTITION, dead_letters.OFFSET)
    )
    return _record_row(record) | {
        "reason": format_text(headers[dead_letters.REASON], _MAX_LENGTH),
        "origin": format_text(f"{topic} {partition}-{offset}", _MAX_LENGTH),
    }
