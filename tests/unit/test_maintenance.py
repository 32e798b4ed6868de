"""Maintenance between its rounds, which needs no Spark."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
from prometheus_client import REGISTRY
from pyspark.sql import SparkSession
from stream_processing import maintenance
from stream_processing.lake import ACCEPT_GAP, EVENT_FRAME, AppendInfo, Lake, append_rows
from stream_processing.maintenance import Maintenance
from stream_processing.settings import StreamProcessingSettings

from contract.declared import EVENT
from tests.pipeline import eventually


def test_the_metrics_of_the_lake_follow_its_appends_long_before_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    lake.create_missing_tables()
    session = SimpleNamespace(conf=SimpleNamespace(set=lambda *_: None))
    session.newSession = lambda: session
    monkeypatch.setattr(maintenance, "_COMPACTION_INTERVAL", 0.01)
    stop = threading.Event()
    settings = StreamProcessingSettings()
    thread = Maintenance(cast(SparkSession, session), settings, lake, lambda: 0, lambda: None).start(stop)
    try:
        eventually(lambda: _assert_metrics(lake, 0))
        for number in range(3):
            frame = pl.DataFrame([("u", "i", "view", None)], schema=EVENT_FRAME, orient="row")
            append_rows(lake.table(EVENT.name), frame, AppendInfo("query", number, "topic", {}))
        eventually(lambda: _assert_metrics(lake, 3))
    finally:
        stop.set()
        thread.join()


def test_the_log_entries_of_the_last_two_appends_are_kept_however_old_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    lake.create_missing_tables()
    session = SimpleNamespace(conf=SimpleNamespace(set=lambda *_: None))
    session.newSession = lambda: session
    settings = StreamProcessingSettings(lake_history=10)
    maintenance_of = Maintenance(cast(SparkSession, session), settings, lake, lambda: 0, lambda: None)
    # The entry of version n was written n hours before.
    monkeypatch.setattr(maintenance, "modified_at", lambda _, file: time.time() - 3600 * int(file[-7:-5]))
    kept: list[tuple[int | None, int]] = []
    frame = pl.DataFrame([("u", "i", "view", None)], schema=EVENT_FRAME, orient="row")
    for query in (None, "query", "query", ACCEPT_GAP, ACCEPT_GAP, "query"):
        if query == ACCEPT_GAP:
            lake.write_marker(AppendInfo(query, 0, "topic", {}))
        elif query is not None:
            append_rows(lake.table(EVENT.name), frame, AppendInfo(query, 0, "topic", {}))
        kept.append((lake.first_version_to_keep(), round(maintenance_of._minutes_to_keep())))
    assert kept == [(None, 10), (1, 61), (1, 61), (1, 61), (1, 61), (4, 241)]


def _assert_metrics(lake: Lake, files: int) -> None:
    assert REGISTRY.get_sample_value("stream_lake_files") == files
    assert REGISTRY.get_sample_value("stream_lake_bytes") == sum(lake.file_sizes())
