"""Follows the lake: counts what each append added, and publishes the changed rows to Kafka.

The counts are a function of the lake's version. A snapshot has both; after a start, the later appends are added, and
every row that they change is published again. So nothing has to be committed together with Kafka, and every published
row is computed from committed interactions.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl
from pyspark.sql import SparkSession

from contract.interaction import MAX_ID_BYTES
from contract.tables import AGGREGATE_TABLES, AggregateTable
from runtime.health import Health
from stream_processing import metrics
from stream_processing.engines import POLARS
from stream_processing.kafka_io import RowProducer, max_message_bytes, topic_id
from stream_processing.keyed_state import KeyedState
from stream_processing.lake import Lake
from stream_processing.materialise import merge_rows
from stream_processing.measures import USERS, record_key, record_value, total
from stream_processing.settings import StreamProcessingSettings
from stream_processing.snapshots import Snapshots
from stream_processing.storage import read_text_if_exists, write_text

NAME: Final = "aggregate"
_USER: Final = "user_id"
"""The key whose distinct values are counted."""
_QUEUED: Final = 2
"""Appends that can wait to be counted: ingest is at most that far ahead."""
_STOP_TIMEOUT: Final = 5.0
"""Seconds for the thread to end."""
_KEYS: Final = tuple(dict.fromkeys([_USER, *(table.key for table in AGGREGATE_TABLES if table.key is not None)]))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Append:
    """An append to the interactions table: its version, and the interactions in memory or in files."""

    version: int
    interactions: pl.DataFrame | None = None
    files: Sequence[str] = ()

    def scan(self, storage_options: dict[str, str]) -> pl.LazyFrame:
        """Return the interactions."""
        if self.interactions is not None:
            return self.interactions.lazy()
        return pl.scan_parquet(list(self.files), storage_options=storage_options or None)


@dataclass
class Changes:
    """The keys whose rows have changed since the tables were merged last, by key column."""

    keys: dict[str, list[pl.Series]] = field(default_factory=dict)

    def add(self, key: str, changed: pl.DataFrame) -> None:
        """Note the changed rows of a key column."""
        self.keys.setdefault(key, []).append(changed[key])

    def take(self, key: str) -> pl.Series:
        """Return the changed values of a key column once each, and forget them."""
        parts = self.keys.pop(key, [])
        return pl.concat(parts).unique() if parts else pl.Series(key, [], pl.String)


class Aggregator:
    """The counts of all keys, in a thread that ingest hands its appends to."""

    def __init__(self, session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
        self._session = session
        self._settings = settings
        self._lake = lake
        self._topic_file = f"{settings.checkpoints}/{NAME}.topic"
        limit = max_message_bytes(settings, settings.aggregated_topic)
        self._producer = RowProducer(settings, settings.aggregated_topic, limit)
        self._snapshots = Snapshots(session, settings, lake)
        self._states: dict[str, KeyedState] = {}
        self._version = -1
        """The lake's version that the counts cover."""
        self._snapshot_version = -1
        self._changes = Changes()
        self._appends: queue.Queue[Append] = queue.Queue(_QUEUED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=NAME, daemon=True)
        self._materialised_at = time.monotonic()
        self.error: BaseException | None = None
        """Why the thread has ended."""

    def start(self) -> None:
        """Bring the counts to the lake's current version, publish what that changed, and follow it from there."""
        self._restore()
        self._thread.start()

    def put(self, append: Append) -> None:
        """Hand over an append, the next one after the last; waits while two others are waiting."""
        while self.error is None and not self._stop.is_set():
            try:
                self._appends.put(append, timeout=0.5)
                return
            except queue.Full:
                continue

    def first_needed_version(self) -> int:
        """Return the first version of the lake that no snapshot covers."""
        return self._snapshot_version + 1

    def report(self, state: Health) -> None:
        """Publish the health of the thread."""
        if self.error is None:
            state.ok(NAME)
        else:
            state.failing(NAME, str(self.error))

    def failures(self) -> dict[str, str]:
        """Return the error that has ended the thread."""
        return {} if self.error is None else {NAME: f"{type(self.error).__name__}: {self.error}"}

    def stop(self) -> None:
        """Stop following; counts that have no snapshot yet are computed again at the next start."""
        self._stop.set()
        self._thread.join(_STOP_TIMEOUT)

    def _restore(self) -> None:
        current = self._lake.version()
        versions = []
        is_same_topic = self._is_same_topic()
        for key in _KEYS:
            snapshot = self._snapshots.load(key)
            state = self._states[key] = KeyedState(key, snapshot.rows)
            changed = state.rows.clear()
            if files := self._snapshots.files_since(snapshot, current):
                changed = state.add(Append(current, files=files).scan(self._lake.storage_options))
            self._publish(key, changed if is_same_topic else state.rows)
            versions.append(-1 if snapshot.version is None else snapshot.version)
        self._version, self._snapshot_version = current, min(versions)
        self._publish_overall()
        self._producer.flush()
        self._store_topic()

    def _is_same_topic(self) -> bool:
        """Whether the aggregated topic is the one that the rows were published to; another one gets all rows."""
        known = read_text_if_exists(self._session, self._topic_file)
        return known == topic_id(self._settings, self._settings.aggregated_topic)

    def _store_topic(self) -> None:
        write_text(self._session, self._topic_file, topic_id(self._settings, self._settings.aggregated_topic))

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                append = self._next_append()
                if append is not None:
                    self._count(append)
                if time.monotonic() - self._materialised_at > self._settings.materialise_interval:
                    self._materialise()
        except BaseException as error:
            self.error = error

    def _next_append(self) -> Append | None:
        try:
            return self._appends.get(timeout=0.5)
        except queue.Empty:
            return None

    def _count(self, append: Append) -> None:
        if append.version <= self._version:
            return
        interactions = append.scan(self._lake.storage_options)
        for key, state in self._states.items():
            self._publish(key, state.add(interactions))
        self._version = append.version
        self._publish_overall()

    def _publish(self, key: str, changed: pl.DataFrame) -> None:
        self._changes.add(key, changed)
        rows = _publishable(key, changed)
        for table in AGGREGATE_TABLES:
            if table.key == key:
                self._send(table, rows)

    def _publish_overall(self) -> None:
        overall = self._overall()
        if overall is None:
            return
        for table in AGGREGATE_TABLES:
            if table.key is None:
                self._send(table, overall)
        metrics.AGGREGATED.set(overall.select(total(POLARS)).item())
        metrics.USERS.set(overall[USERS].item())

    def _overall(self) -> pl.DataFrame | None:
        """Return the state over all users in one row, with their number; None if there is no user."""
        users = self._states[_USER]
        return users.overall().with_columns(pl.lit(len(users), pl.Int64).alias(USERS)) if len(users) else None

    def _materialise(self) -> None:
        """Merge the changed rows into the aggregate tables; then a snapshot may forget which ones they were."""
        self._producer.flush()
        for key, state in self._states.items():
            changed = self._changes.take(key)
            if not len(changed):
                continue
            rows = state.rows.filter(pl.col(key).is_in(changed.implode()))
            for table in AGGREGATE_TABLES:
                if table.key == key:
                    merge_rows(self._lake, table, rows)
            self._snapshots.save(key, state.rows, self._version)
        for table in AGGREGATE_TABLES:
            if table.key is None and (overall := self._overall()) is not None:
                merge_rows(self._lake, table, overall)
        self._snapshot_version = self._version
        self._materialised_at = time.monotonic()

    def _send(self, table: AggregateTable, rows: pl.DataFrame) -> None:
        records = rows.select(key=record_key(POLARS, table), value=record_value(POLARS, table))
        self._producer.send(zip(records["key"], records["value"], strict=True))


def _publishable(key: str, changed: pl.DataFrame) -> pl.DataFrame:
    """Drop keys that are longer than a record may have; ingest rejects them, and a lake from before can have some."""
    is_short = pl.col(key).str.len_bytes() <= MAX_ID_BYTES
    rows = changed.filter(is_short)
    if len(rows) < len(changed):
        logger.warning(
            "%d changed keys are in the lake and not published: their ids have more than %d bytes",
            len(changed) - len(rows), MAX_ID_BYTES,
        )  # fmt: skip
    return rows
