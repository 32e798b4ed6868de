"""Topics, partitions, lag, and what is in them."""

from collections.abc import Callable, Iterator
from typing import Any

from nicegui import run, ui

from contract import dead_letters
from live_page.components import Column, Panel, choice, table
from live_page.sources import Sources
from live_page.text import UNKNOWN, clock, count, visible
from live_page.topics import Record, TopicState, is_dead_letter
from live_page.unavailable import UnavailableError

_TOPICS = (
    Column("topic", "topic", wraps=True),
    Column("partitions", "partitions", is_number=True),
    Column("records", "records", is_number=True),
    Column("lag", "behind: the sink", is_number=True),
)
_PARTITIONS = (
    Column("partition", "partition"),
    Column("start", "first offset", is_number=True),
    Column("end", "next offset", is_number=True),
    Column("committed", "the sink's offset", is_number=True, is_minor=True),
    Column("lag", "behind", is_number=True),
    Column("leader", "leader", is_number=True, is_minor=True),
)
_RECORDS = (
    Column("at", "at (UTC)"),
    Column("place", "partition-offset", is_minor=True),
    Column("record_key", "key"),
    Column("value", "value", wraps=True),
)
_LETTERS = (
    Column("at", "at (UTC)"),
    Column("place", "partition-offset", is_minor=True),
    Column("reason", "reason", wraps=True),
    Column("origin", "came from", is_minor=True, wraps=True),
    Column("value", "the record's value", wraps=True),
)

_LONGEST = 2_000
"""Characters of a key, value or reason that are shown."""


def show(sources: Sources) -> None:
    """The pipeline's topics."""
    topics = sources.topics
    with Panel("Topics") as listed:
        summary = table(_TOPICS, "Kafka has no topics yet", row_key="topic", height="min-h-36")
    chosen = choice(topics.names)
    with Panel("Partitions") as partitioned:
        partitions = table(_PARTITIONS, "There is no such topic yet", row_key="partition", height="min-h-48")
    with Panel("Latest records") as latest:
        records = table(_RECORDS, "No records yet", height="min-h-96")
    with Panel("Records of a key") as by_key:
        with ui.row().classes("items-center gap-3 w-full"):
            wanted = (
                ui.input(label="key, such as user_1")
                .classes("grow max-w-md")
                .props("dense outlined clearable maxlength=600")
            )
            find = ui.button("Search").props("no-caps unelevated")
        ui.label("It looks through the topic's latest 50,000 records.").classes("text-sm opacity-75")
        found = table(_RECORDS, "No record of that key is among them")
        found.set_empty("Nothing was looked for yet")
    with Panel("Dead letters, and why they are") as aside:
        letters = table(_LETTERS, "None: every record so far was fit", height="min-h-48")
        ui.markdown(
            "`python -m elasticsearch_sink_alert dead-letters list | show | replay` shows all, and sends again."
        ).classes("text-sm opacity-75")

    async def search() -> None:
        found.rows = []
        by_key.note("looking …")
        try:
            hits = await run.io_bound(topics.find, chosen.value, (wanted.value or "").strip())
        except UnavailableError as reason:
            found.rows = []
            by_key.unknown(str(reason))
            return
        by_key.known()
        by_key.note(f"{len(hits or [])} found in {chosen.value}")
        found.rows = [_record(record) for record in hits or []]

    def show_letters(read: list[Record]) -> None:
        letters.rows = [_letter(record) for record in read if is_dead_letter(record)]

    find.on_click(search)
    wanted.on("keydown.enter", search)
    listed.keep(lambda: list(_states(topics.state, topics.names)), lambda rows: setattr(summary, "rows", rows))
    partitioned.keep(
        lambda: topics.state(chosen.value), lambda state: setattr(partitions, "rows", list(_partitions(state)))
    )
    latest.keep(
        lambda: topics.latest(chosen.value), lambda read: setattr(records, "rows", [_record(each) for each in read])
    )
    aside.keep(lambda: topics.latest(topics.names[2], 30), show_letters, every=2.0)
    chosen.on_value_change(partitioned.renew)
    chosen.on_value_change(latest.renew)


def _states(state: Callable[[str], TopicState], names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for name in names:
        topic = state(name)
        if topic.is_there:
            yield {
                "topic": name,
                "partitions": count(len(topic.partitions)),
                "records": count(topic.records),
                "lag": count(topic.lag),
            }


def _partitions(state: TopicState) -> Iterator[dict[str, Any]]:
    for each in state.partitions:
        yield {
            "partition": each.partition,
            "start": count(each.start),
            "end": count(each.end),
            "committed": count(each.committed),
            "lag": count(each.lag),
            "leader": each.leader,
        }


def _record(record: Record) -> dict[str, Any]:
    return {
        "key": f"{record.partition}-{record.offset}",
        "at": clock(record.at),
        "place": f"{record.partition}-{record.offset}",
        "record_key": visible(record.key, _LONGEST) if record.key else UNKNOWN,
        "value": visible(record.value, _LONGEST),
    }


def _letter(record: Record) -> dict[str, Any]:
    headers = record.headers
    topic, partition, offset = (
        headers.get(name, UNKNOWN) for name in (dead_letters.TOPIC, dead_letters.PARTITION, dead_letters.OFFSET)
    )
    return _record(record) | {
        "reason": visible(headers[dead_letters.REASON], _LONGEST),
        "origin": visible(f"{topic} {partition}-{offset}", _LONGEST),
    }
