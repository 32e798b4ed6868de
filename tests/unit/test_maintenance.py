"""Maintenance between its rounds, which needs no Spark."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
from prometheus_client import REGISTRY
from pyspark.sql import SparkSession
from stream_processing import maintenance
from stream_processing.lake import EVENT_FRAME, AppendInfo, Lake, append_rows
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
    thread = Maintenance(cast(SparkSession, session), StreamProcessingSettings(), lake, lambda: 0).start(stop)
    try:
        eventually(lambda: _assert_metrics(lake, 0))
        for number in range(3):
            frame = pl.DataFrame([("u", "i", "view", None)], schema=EVENT_FRAME, orient="row")
            append_rows(lake.table(EVENT.name), frame, AppendInfo("query", number, "topic", {}))
        eventually(lambda: _assert_metrics(lake, 3))
    finally:
        stop.set()
        thread.join()


def _assert_metrics(lake: Lake, files: int) -> None:
    assert REGISTRY.get_sample_value("stream_lake_files") == files
    assert REGISTRY.get_sample_value("stream_lake_bytes") == sum(lake.file_sizes())
