"""The topics page: topics, partitions, lag, records and dead letters."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui

from contract import dead_letters
from live_page.address import current_query, one_of, remember
from live_page.components import Column, Panel, RecordTable, toggle
from live_page.formatting import format_count
from live_page.pages.records import DEAD_LETTERS, RecordsPanel, dead_letter_columns, record_row
from live_page.sources import Sources
from live_page.sources.records import Record
from live_page.sources.topics import Topics, TopicState

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
_LATEST_DEAD_LETTERS: Final = 30
_INTERVAL: Final = 2.0
"""Seconds between two refreshes of what is around the records, which are refreshed more often."""


def show(sources: Sources) -> None:
    """Build the page."""
    topics = sources.topics
    _show_topics(topics)
    topic = toggle(topics.names, one_of(current_query().get("topic"), topics.names, topics.names[0]))
    remember(topic, "topic", lambda: topics.names[0])
    _show_partitions(topics, topic)
    RecordsPanel(sources, topic)
    _show_dead_letters(sources)


def _show_topics(topics: Topics) -> None:
    with Panel("Topics") as panel:
        table = RecordTable(_TOPICS, "Kafka has no topics yet", row_key="topic", height="min-h-28")

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

    panel.refresh_from(lambda: [topics.state(name) for name in topics.names], show_topics, _INTERVAL)


def _show_partitions(topics: Topics, topic: ui.toggle) -> None:
    with Panel("Partitions") as panel:
        table = RecordTable(_PARTITIONS, "The topic does not exist yet", row_key="partition", height="min-h-36")

    def show_partitions(state: TopicState) -> None:
        table.rows = list(_partition_rows(state))

    panel.refresh_from(lambda: topics.state(topic.value), show_partitions, _INTERVAL)
    topic.on_value_change(panel.choose)


def _show_dead_letters(sources: Sources) -> None:
    *_, topic = sources.topics.names
    with Panel("Dead letters") as panel:
        table = RecordTable(DEAD_LETTERS, "No dead letters: all records were valid", links="at", height="min-h-48")
        ui.markdown(
            "A time opens the dead letter, to be replayed from there. "
            "`python -m elasticsearch_sink_alert dead-letters list | show | replay` does the same for many."
        ).classes("text-sm opacity-75")

    def show_dead_letters(records: list[Record]) -> None:
        replayed = {record.headers.get(dead_letters.REPLAYED) for record in records}
        found = [record for record in records if record.is_dead_letter][:_LATEST_DEAD_LETTERS]
        table.rows = [_dead_letter_row(topic, record, is_replayed=record.id in replayed) for record in found]

    panel.refresh_from(lambda: sources.records.latest(topic), show_dead_letters, _INTERVAL)


def _dead_letter_row(topic: str, record: Record, *, is_replayed: bool) -> dict[str, Any]:
    row = record_row(record) | dead_letter_columns(record)
    row["reason"] += "  (replayed)" * is_replayed
    opened = {"topic": topic, "partition": record.partition, "offset": record.offset, "open": record.id}
    return row | {"href": f"/topics?{urlencode(opened)}"}


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
