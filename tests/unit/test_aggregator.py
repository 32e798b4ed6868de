"""The threads of the aggregator over a real Delta table, without Spark and Kafka."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from pyspark.sql import SparkSession
from stream_processing import aggregator, published_topic, spark_internals
from stream_processing.aggregator import Aggregator, Append
from stream_processing.keyed_state import KeyedState
from stream_processing.lake import EVENT_FRAME, AppendInfo, Lake, append_rows
from stream_processing.lake_log import LakeLog
from stream_processing.measures import KEYS
from stream_processing.settings import StreamProcessingSettings
from stream_processing.snapshots import Snapshots, snapshots_folder

from contract.declared import EVENT
from contract.tables import Key

_NO_SESSION = cast(SparkSession, None)


class _Producer:
    """Remembers the keys of the records; fails at the n-th of them."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.fail_at = 0

    def send(self, records: Iterable[tuple[str, str]]) -> None:
        for key, _ in records:
            self.keys.append(key)
            if len(self.keys) == self.fail_at:
                raise OSError("the 5th record")

    def flush(self) -> None:
        """All records are delivered."""


@pytest.fixture
def settings(tmp_path: Path) -> StreamProcessingSettings:
    # Snapshots are stored at the stop only.
    return StreamProcessingSettings(
        warehouse=str(tmp_path / "warehouse"), checkpoints=str(tmp_path / "checkpoints"), materialise_interval=60
    )


@pytest.fixture
def producer() -> _Producer:
    return _Producer()


@pytest.fixture
def running(
    settings: StreamProcessingSettings, producer: _Producer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Aggregator]:

    def read(_: SparkSession, file: str) -> str | None:
        return Path(file).read_text() if Path(file).exists() else None

    def write(_: SparkSession, file: str, text: str) -> None:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(text)

    monkeypatch.setattr(aggregator, "RowProducer", lambda *_: producer)
    monkeypatch.setattr(aggregator, "max_message_bytes", lambda *_: 1 << 20)
    monkeypatch.setattr(published_topic, "topic_id", lambda *_: "topic")
    monkeypatch.setattr(published_topic, "offset_ranges", lambda *_: {0: (0, len(producer.keys))})
    monkeypatch.setattr(spark_internals, "max_heap_bytes", lambda _: 1 << 30)
    for module in (aggregator, published_topic):
        monkeypatch.setattr(module, "read_text_if_exists", read)
    monkeypatch.setattr(published_topic, "write_text", write)
    monkeypatch.setattr(aggregator, "modified_at", lambda *_: time.time())
    Lake.of(settings).create_missing_tables()
    started = Aggregator(_NO_SESSION, settings, Lake.of(settings), lambda: None)
    started.start()
    yield started
    started.stop()


def _append(lake: Lake, batch: int) -> Append:
    fields = (f"u{batch}", f"i{batch}", "like", datetime.fromtimestamp(batch, UTC))
    rows = pl.DataFrame([fields], schema=EVENT_FRAME, orient="row")
    table = lake.table(EVENT.name)
    append_rows(table, rows, AppendInfo("query", batch, "t", {"t": {"0": batch}}))
    return Append(table.version(), rows)


def _stored_versions(settings: StreamProcessingSettings, lake: Lake) -> set[int | None]:
    log = LakeLog(lake.interactions, lambda path: Path(path).read_text() if Path(path).exists() else None)
    snapshots = Snapshots(snapshots_folder(settings), lake, log)
    return {snapshots.load(key, lake.version())[0].version for key in KEYS}


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stopped_aggregator_has_stored_what_it_has_published(
    running: Aggregator, settings: StreamProcessingSettings, producer: _Producer
) -> None:
    lake = Lake.of(settings)
    for batch in range(3):
        running.put(_append(lake, batch))
    _wait_until(lambda: producer.keys.count("avg_interactions") and any("i2" in key for key in producer.keys))
    running.stop()
    assert running.failures() == {}
    assert _stored_versions(settings, lake) == {3}


@pytest.mark.parametrize("fails", ["the count of the second key", "the 5th record"])
def test_counts_of_which_an_error_has_left_half_are_not_stored(
    running: Aggregator,
    settings: StreamProcessingSettings,
    producer: _Producer,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
) -> None:
    lake = Lake.of(settings)
    count = KeyedState.add

    def fail(state: KeyedState, interactions: pl.LazyFrame, *others: Any) -> pl.Series:
        if state.key == Key(("item_id",)) and interactions.collect()["item_id"].to_list() == ["i1"]:
            raise OSError(fails)
        return count(state, interactions, *others)

    if fails == "the 5th record":
        producer.fail_at = 5
    else:
        monkeypatch.setattr(KeyedState, "add", fail)
    for batch in range(2):
        running.put(_append(lake, batch))
    _wait_until(running.failures)
    running.stop()
    assert running.failures() == {"aggregate": f"OSError: {fails}"}
    assert _stored_versions(settings, lake) == {None}
