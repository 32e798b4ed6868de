"""Reads the status of a running pipeline, within seconds whatever does not answer."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract import metric_names
from contract.declared import EVENT, TABLES
from observer import disks, log_errors
from observer.backlog import Backlog
from observer.reading_history import ReadingHistory, Stage, stage_rate
from observer.services import OK
from observer.settings import StatusSettings
from observer.snapshot import Observer, Snapshot
from observer.status import MAY_HAVE_ENDED, Batch, Disk, Figures, LoggedError, Part, TableRows

_KAFKA_TIMEOUT: Final = 2.0
"""Seconds of a request."""
_ELASTICSEARCH_TIMEOUT: Final = 2.5
"""The same; under load it takes longer than the others."""
_DEADLINE: Final = 3.5
"""Seconds after which what has not answered is unknown: with the start of Python, less than 5."""
_BETWEEN_SNAPSHOTS: Final = 1.0
"""Seconds between the two snapshots from which the first rates follow."""
_ENOUGH: Final = 1.5
"""Seconds that have to be left for the second one."""
_SERVERS: Final = ("Kafka", "Elasticsearch")
_PRODUCER: Final = "data_producer"
_STREAM: Final = "stream_processing"
_EXPECTED: Final = (KafkaException, ElasticsearchException, DeltaError, OSError, ValueError)
"""Errors of what does not answer, or is not there."""

T = TypeVar("T")


class Background:
    """Runs functions in threads that do not keep the program from ending."""

    def __init__(self) -> None:
        self._running: dict[str, Future[Any]] = {}

    def start(self, name: str, function: Callable[[], T]) -> "Future[T]":
        """Start a function, unless the last one of this name still runs."""
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = Future()
            threading.Thread(target=_run, args=(function, running), daemon=True).start()
        return running


def result_of(future: "Future[T]", deadline: float) -> T | None:
    """Wait for a result until `deadline` (monotonic clock); None without one, and after an expected error."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, *_EXPECTED):
        return None


def _run(function: Callable[[], T], future: "Future[T]") -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)


class StatusReader:
    """Asks servers, services and the lake, all at the same time."""

    def __init__(self, settings: StatusSettings, behind_seconds: float) -> None:
        """A record that waits for more than `behind_seconds` is overdue."""
        self._settings = settings
        self._behind_seconds = behind_seconds
        # Two clients: while one waits for its first answer, all threads that use it wait.
        self._elasticsearch = _elasticsearch_client(settings)
        self._observer = Observer(
            settings,
            _elasticsearch_client(settings),
            settings.warehouse,
            settings.service_urls,
            settings.kafka_group_id,
        )
        self._backlog = Backlog(settings, settings.kafka_group_id, _KAFKA_TIMEOUT)
        self._history = ReadingHistory()
        self._background = Background()
        self._folder = _local_folder(settings.warehouse)

    def read(self) -> Figures:
        """Read everything now."""
        began = time.monotonic()
        deadline = began + _DEADLINE
        pending_rows = self._background.start("rows", self._count_lake_rows)
        pending_errors = self._background.start("errors", self._read_errors)
        pending_sink_backlog = self._background.start("sink backlog", self._read_sink_backlog)
        pending_disks = self._start_disks()
        snapshot = self._take_snapshots(began, deadline)
        cut = snapshot.cuts[-1] if snapshot.cuts else None
        age = None if cut is None or cut.at is None else max(0.0, time.time() - cut.at)
        return Figures(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            parts=tuple(self._part(name, snapshot) for name in (*_SERVERS, *self._settings.service_urls)),
            stages=_stages(self._history),
            sent=snapshot.sent,
            in_the_lake=snapshot.in_the_lake,
            malformed=snapshot.malformed,
            indexed=snapshot.indexed,
            dead_letters=snapshot.dead_letters,
            alerts_firing=snapshot.firing,
            counts=self._history.latest.verdict,
            tables=_tables(snapshot, result_of(pending_rows, deadline) or {}),
            batch=None if age is None else _batch(age, snapshot),
            behind_seconds=self._behind_seconds,
            lake_is_readable=cut is not None if snapshot.health else None,
            lake_overdue=self._count_lake_overdue(snapshot, deadline),
            aggregates_overdue=_aggregates_overdue(snapshot, age, self._behind_seconds),
            sink_overdue=result_of(pending_sink_backlog, deadline),
            disks=tuple(
                result_of(pending, deadline) or Disk(name, None, None) for name, pending in pending_disks.items()
            ),
            errors=result_of(pending_errors, deadline) or (),
            seconds=round(time.monotonic() - began, 3),
        )

    def _take_snapshots(self, began: float, deadline: float) -> Snapshot:
        """Return a snapshot, and add it to the history: two of them if it is new and there is time for another."""
        is_first = not self._history.readings()
        snapshot = self._take_snapshot(deadline)
        if is_first and deadline - time.monotonic() > _ENOUGH:
            time.sleep(max(0.0, began + _BETWEEN_SNAPSHOTS - time.monotonic()))
            snapshot = self._take_snapshot(deadline) or snapshot
        if snapshot is None:
            self._history.add(Snapshot(), time.monotonic())
        return snapshot or Snapshot()

    def _take_snapshot(self, deadline: float) -> Snapshot | None:
        at = time.monotonic()
        snapshot = result_of(self._background.start("snapshot", self._observer.snapshot), deadline)
        if snapshot is not None:
            self._history.add(snapshot, at)
        return snapshot

    def _count_lake_overdue(self, snapshot: Snapshot, deadline: float) -> int | None:
        if snapshot.sent is None or not snapshot.cuts:
            return None
        topic, offsets = self._settings.kafka_topic, snapshot.cuts[-1].offsets
        before = time.time() - self._behind_seconds
        return result_of(
            self._background.start("lake backlog", lambda: self._backlog.after(topic, offsets, before)), deadline
        )

    def _part(self, name: str, snapshot: Snapshot) -> Part:
        metrics = snapshot.metrics.get(name, {})
        state = snapshot.health.get(name, f"unknown: not everything has answered within {_DEADLINE:g} s")
        is_service = name in self._settings.service_urls
        answers = None if name not in snapshot.health else bool(metrics) if is_service else state == OK
        if name == _PRODUCER and answers is False and self._settings.producer_may_end:
            state = MAY_HAVE_ENDED
        log, started = self._log(name), _finite(metrics.get(metric_names.PROCESS_START_SECONDS))
        return Part(
            name,
            state,
            answers,
            memory=_whole(metrics.get(metric_names.PROCESS_MEMORY_BYTES)),
            uptime=None if started is None else round(time.time() - started, 1),
            log=str(log) if log and log.exists() else None,
        )

    def _read_sink_backlog(self) -> int:
        return self._backlog.of_group(self._settings.aggregated_topic, time.time() - self._behind_seconds)

    def _count_lake_rows(self) -> Mapping[str, int | None]:
        return {name: self._observer.lake_rows(name) for name in (EVENT.name, *(table.name for table in TABLES))}

    def _start_disks(self) -> "dict[str, Future[Disk]]":
        readers = {"Elasticsearch": lambda: disks.disk_of_elasticsearch(self._elasticsearch)}
        if self._folder is not None:
            readers["the lake"] = partial(disks.disk_of_folder, "the lake", self._folder)
            # Kafka's protocol tells it, and its client library does not ask.
            if (kafka := self._folder.parent / "kafka").is_dir():
                readers["Kafka"] = partial(disks.disk_of_folder, "Kafka", kafka)
        return {name: self._background.start(f"disk of {name}", reader) for name, reader in readers.items()}

    def _read_errors(self) -> tuple[LoggedError, ...]:
        now = datetime.now(UTC)
        logs = {name: self._log(name) for name in self._settings.service_urls}
        errors = {name: log_errors.last_error(log, now) for name, log in logs.items() if log and log.exists()}
        return tuple(LoggedError(name, line) for name, line in errors.items() if line)

    def _log(self, name: str) -> Path | None:
        """Return where the local stack has the log of a server or service."""
        return None if self._folder is None else self._folder.parent / "logs" / f"{name.lower()}.log"


def _elasticsearch_client(settings: StatusSettings) -> Elasticsearch:
    return Elasticsearch(settings.es_hosts, timeout=_ELASTICSEARCH_TIMEOUT, max_retries=0, **settings.es_client)


def _local_folder(warehouse: str) -> Path | None:
    folder = warehouse.removeprefix("file://")
    return None if "://" in folder else Path(folder)


def _stages(history: ReadingHistory) -> tuple[Stage, ...]:
    """Return the stages, with the sink as the last one: it has the lag of the published rows."""
    *stages, published = history.stages()
    readings = history.readings()
    committed, rate = readings[-1].snapshot.committed, stage_rate(readings, attrgetter("committed"))
    return (*stages, replace(published, lag=None), Stage("rows indexed", committed, rate, published.lag))


def _tables(snapshot: Snapshot, lake_rows: Mapping[str, int | None]) -> tuple[TableRows, ...]:
    metrics = snapshot.metrics.get(_STREAM, {})
    events = TableRows(EVENT.name, None, lake_rows.get(EVENT.name), None)
    return events, *(
        TableRows(
            table.name,
            _whole(metrics.get(f"{metric_names.STATE_ROWS}/{table.name}")),
            lake_rows.get(table.name),
            snapshot.documents.get(table.name),
        )
        for table in TABLES
    )


def _batch(age: float, snapshot: Snapshot) -> Batch:
    metrics = snapshot.metrics.get(_STREAM, {})
    return Batch(
        age, _whole(metrics.get(metric_names.LAST_BATCH_ROWS)), _finite(metrics.get(metric_names.LAST_BATCH_SECONDS))
    )


def _aggregates_overdue(snapshot: Snapshot, age: float | None, behind_seconds: float) -> int | None:
    """Return what the aggregates do not cover, if it is all older than the latest append."""
    if snapshot.in_the_lake is None or snapshot.aggregated is None or age is None:
        return None
    return max(0, snapshot.in_the_lake - snapshot.aggregated) if age > behind_seconds else 0


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _whole(value: float | None) -> int | None:
    finite = _finite(value)
    return None if finite is None else int(finite)
