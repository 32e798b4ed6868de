"""The pipeline as boxes and edges, derived from the readings: what the diagram of the overview shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Final

from contract.alerts import ALERTS
from contract.declared import EVENT, TABLES
from contract.topics import aggregated_topic_name
from live_page.formatting import UNKNOWN, format_compact, format_count
from live_page.pages.links import KEYED, table_href
from observer.reading_history import Reading, ReadingHistory, Stage, stage_rate
from observer.services import OK
from observer.snapshot import Snapshot

WAITING: Final = "waiting"
"""The state before the first reading."""
_GRACE: Final = 5.0
"""Seconds for which a record may wait before an edge is behind, as for the badge."""
_TOPIC: Final = "Kafka topic"


class Flow(StrEnum):
    """What an edge shows."""

    FLOWING = "flowing"
    IDLE = "idle"
    BEHIND = "behind"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Lag:
    """Rows that a process has not processed yet."""

    rows: int | None
    is_behind: bool
    """Whether some have waited for too long."""

    @property
    def text(self) -> str:
        """The lag to be read."""
        return f"{'behind by' if self.is_behind else 'lag'} {format_count(self.rows)}"


@dataclass(frozen=True)
class Box:
    """A process or a store of the pipeline. None: unknown."""

    name: str
    title: str
    kind: str
    """What it is, in a word or two."""
    href: str
    """The page that shows more of it, or where one acts."""
    rate: float | None
    """Rows per second."""
    figure: str
    """Its rows, or its lag."""
    state: str
    """`OK`, or the reason why not."""
    is_behind: bool = False
    is_store: bool = False
    parts: tuple[tuple[str, int | None], ...] = ()
    """The rows of each of its parts."""

    @property
    def rate_text(self) -> str:
        """The rate to be read."""
        return format_rows_per_second(self.rate)

    @property
    def has_problem(self) -> bool:
        """Whether its state is known and not well."""
        return _has_problem(self.state)


@dataclass(frozen=True)
class Edge:
    """The way of the rows from one box, by its name, to another."""

    source: str
    target: str
    rate: float | None
    lag: Lag | None = None

    @property
    def flow(self) -> Flow:
        """What it shows: one that is behind may move or not."""
        if self.lag is not None and self.lag.is_behind:
            return Flow.BEHIND
        if self.rate is None:
            return Flow.UNKNOWN
        return Flow.FLOWING if self.rate else Flow.IDLE

    @property
    def text(self) -> str:
        """The edge in words."""
        behind = f", {self.lag.text}" if self.lag is not None and self.lag.is_behind else ""
        return f"{self.source} to {self.target}: {format_rows_per_second(self.rate)}{behind}"


@dataclass(frozen=True)
class PipelineModel:
    """The boxes in the order in which rows pass them, and the edges between them."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def format_rows_per_second(rate: float | None) -> str:
    """Format a rate in little space.

    >>> format_rows_per_second(199.7), format_rows_per_second(0.0), format_rows_per_second(None)
    ('200/s', '0/s', '–/s')
    """
    return f"{UNKNOWN if rate is None else format_compact(round(rate, 1))}/s"


def pipeline_model(history: ReadingHistory, topic: str) -> PipelineModel:
    """Return the pipeline as of the latest reading; `topic` is the name of the topic of events."""
    readings = history.readings() or [history.latest]
    now, rate = readings[-1].snapshot, readings[-1].rate
    _, lake, aggregated, published = history.stages()
    committed = stage_rate(readings, attrgetter("committed"))
    fired = stage_rate(readings, lambda snapshot: snapshot.documents.get(ALERTS))
    rejected = stage_rate(readings, attrgetter("dead_letters"))
    counted = stage_rate(readings, attrgetter("indexed"))
    health = {
        name: now.health.get(name, WAITING)
        for name in ("Kafka", "Elasticsearch", "data_producer", "stream_processing", "elasticsearch_sink_alert")
    }
    kafka, elasticsearch, producer, stream, sink = health.values()
    ingest_lag = _lag(readings, _after_the_lake(now, lake), "sent", stream)
    aggregate_lag = _lag(readings, aggregated.lag, "in_the_lake", stream)
    sink_lag = _lag(readings, now.waiting_rows, "published", sink)
    # What cannot be indexed stays with the sink.
    index_lag = Lag(sink_lag.rows, bool(sink_lag.rows) and _has_problem(elasticsearch))

    store = partial(Box, is_store=True)

    def process(name: str, title: str, kind: str, href: str, rate: float | None, lag: Lag, state: str) -> Box:
        return Box(name, title, kind, href, rate, lag.text, state, is_behind=lag.is_behind)

    indices = table_href(KEYED[0]) if KEYED else "/alerts"
    boxes = (
        Box("producer", "Producer", EVENT.name, "/controls", rate, _rows(now.sent, "sent"), producer),
        store("topic", topic, _TOPIC, "/topics", rate, _rows(now.sent), kafka),
        process("ingest", "Ingest", "Spark", "/lake", lake.rate, ingest_lag, stream),
        store("dead letters", "Dead letters", _TOPIC, "/topics", rejected, _rows(now.dead_letters), kafka),
        store("lake", "Lake", "Delta table", "/lake", lake.rate, _rows(lake.rows, "rows"), _lake_state(now)),
        process("aggregate", "Aggregate", "Spark", "/lake", aggregated.rate, aggregate_lag, stream),
        store(
            "aggregated topic", aggregated_topic_name(topic), _TOPIC, "/topics", published.rate, _rows(published.rows),
            kafka,
        ),
        process("sink", "Sink", "bulk upserts", "/topics", committed, sink_lag, sink),
        store("alerts", "Alerts", "index", "/alerts", fired, _rows(now.firing, "firing"), elasticsearch),
        store(
            "indices", "Indices", "Elasticsearch", indices, counted, _rows(now.indexed, "counted"), elasticsearch,
            parts=_parts(now.documents),
        ),
    )  # fmt: skip
    edges = (
        Edge("producer", "topic", rate),
        Edge("topic", "ingest", lake.rate, ingest_lag),
        Edge("ingest", "dead letters", rejected),
        Edge("ingest", "lake", lake.rate),
        Edge("lake", "aggregate", aggregated.rate, aggregate_lag),
        Edge("aggregate", "aggregated topic", published.rate),
        Edge("aggregated topic", "sink", committed, sink_lag),
        Edge("sink", "alerts", fired, index_lag),
        Edge("sink", "indices", committed, index_lag),
    )
    return PipelineModel(boxes, edges)


def _after_the_lake(now: Snapshot, lake: Stage) -> int | None:
    """Count the offsets after the latest append, which says so with transactions and malformed records too."""
    if now.ends is None or not now.cuts:
        return lake.lag
    appended = now.cuts[-1].offsets
    return sum(max(0, end - appended.get(partition, 0)) for partition, end in now.ends.items())


def _lag(readings: Sequence[Reading], rows: int | None, arrived: str, consumer: str) -> Lag:
    """Return a lag, which is too long if it exceeds what arrived within the grace, or if the consumer has a problem.

    `arrived` is the field of the snapshots that counts the rows before the consumer.
    """
    if not rows or _has_problem(consumer):
        return Lag(rows, bool(rows))
    last = readings[-1]
    old_enough = (each for each in reversed(readings) if last.at - each.at >= _GRACE)
    earlier = next((each for each in map(attrgetter(f"snapshot.{arrived}"), old_enough) if each is not None), None)
    now = getattr(last.snapshot, arrived)
    return Lag(rows, now is not None and earlier is not None and rows > now - earlier)


def _has_problem(state: str) -> bool:
    return state not in (OK, WAITING)


def _lake_state(now: Snapshot) -> str:
    if now.cuts or now.in_the_lake is not None:
        return OK
    return "cannot be read" if now.health else WAITING


def _parts(documents: Mapping[str, int]) -> tuple[tuple[str, int | None], ...]:
    return tuple((table.plural, documents.get(table.name)) for table in TABLES)


def _rows(number: int | None, what: str = "records") -> str:
    return f"{format_count(number)} {what}"
