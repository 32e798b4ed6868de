"""Gaps in a partition, checkpoints of queries, their progress, and the metadata of appends, without Spark."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from deltalake import write_deltalake
from prometheus_client import REGISTRY
from stream_processing import commands, definitions, start_position
from stream_processing.checkpoint import batch_ids, parse_offsets, parse_query_id, require_commit, unfinished_batch
from stream_processing.lake import ACCEPT_GAP, EVENT_FRAME, AppendInfo, Lake
from stream_processing.partition_gap import PartitionGap
from stream_processing.progress import report, source_lag

from runtime.health import Health


@pytest.mark.parametrize(
    ("gap", "resume_at", "description"),
    [
        (PartitionGap(0, 5, 0, 9), 5, "no record is missing"),
        (PartitionGap(0, 5, 5, 9), 5, "no record is missing"),
        (PartitionGap(0, 9, 0, 9), 9, "no record is missing"),
        (PartitionGap(0, 0, 0, 0), 0, "no record is missing"),
        (PartitionGap(0, 5, 7, 9), 7, "the records 5 to 6 are lost"),
        (
            PartitionGap(0, 9, 0, 4),
            4,
            "the topic ends at 4, before 9: it is an older copy, or has lost records. None is read twice; those that it"
            " got since then are not read",
        ),
        (
            PartitionGap(0, 5, 0, 9, topic_recreated=True),
            0,
            "the topic was recreated: records of the deleted topic from offset 5 on are lost",
        ),
    ],
    ids=["in the middle", "at the start", "at the end", "empty", "behind retention", "beyond the end", "recreated"],
)
def test_a_partition_resumes_at_its_position_or_else_at_the_nearest_record(
    gap: PartitionGap, resume_at: int, description: str
) -> None:
    assert (gap.resume_at, gap.description) == (resume_at, description)
    assert gap.exists == (resume_at != gap.position)


def test_a_commit_has_a_version_and_metadata() -> None:
    require_commit('v1\n{"nextBatchWatermarkMs":0}')


@pytest.mark.parametrize("text", ["", "v1", "{}", "v1\n{", 'v1\n{"nextBatch', "\n{}", 'v1\n{"\ufffd": 0}'])
def test_a_damaged_commit_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        require_commit(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id":1}', '{"id":"x"}', '{"id":"8a63��836d971"}'])
def test_a_damaged_id_of_a_query_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_query_id(text)


def test_the_offsets_of_a_batch_are_one_json_object_per_source() -> None:
    kafka, delta = {"topic": {"0": 5, "1": 7}}, {"reservoirVersion": 3, "index": -1}
    text = "\n".join(["v1", '{"batchWatermarkMs":0}', json.dumps(kafka), json.dumps(delta)])
    assert parse_offsets(text) == [kafka, delta]


@pytest.mark.parametrize(
    "text",
    ["", "v1", "v1\n{}", "v1\n{}\n{", 'v1\n{\n{"a": {}}', '\n{}\n{"a": {}}', 'v1\n{"\ufffd": 1}\n{"a": {}}'],
)
def test_a_damaged_file_of_offsets_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_offsets(text)


def test_temporary_files_in_a_checkpoint_are_not_batches() -> None:
    assert batch_ids(["0", "10", ".2.crc", ".3.tmp", "4.tmp"]) == [0, 10]


@pytest.mark.parametrize(
    ("started", "committed", "unfinished"),
    [([], [], None), ([0], [], 0), ([0, 1], [0], 1), ([1, 0], [0, 1], None), ([9, 10], [9], 10)],
)
def test_the_unfinished_batch_is_the_last_one_if_it_is_not_committed(
    started: list[int], committed: list[int], unfinished: int | None
) -> None:
    assert unfinished_batch(started, committed) == unfinished


@pytest.mark.parametrize(
    ("end", "latest", "lag"),
    [
        ({"t": {"0": 5, "1": 5}}, {"t": {"0": 7, "1": 5}}, 2),
        ('{"t": {"0": 5}}', '{"t": {"0": 7, "1": 3}}', 5),
        ({"t": {"0": 8}}, {"t": {"0": 7}}, 0),
        (None, {"t": {"0": 7}}, 7),
        ({"reservoirVersion": 3, "index": -1}, {"reservoirVersion": 9, "index": -1}, 0),
        (None, None, 0),
    ],
    ids=["objects", "text, new partition", "latest is older", "first batch", "not Kafka", "nothing known"],
)
def test_the_lag_is_the_number_of_records_between_two_offsets(end: object, latest: object, lag: int) -> None:
    assert source_lag({"endOffset": end, "latestOffset": latest}) == lag


def _query(**fields: Any) -> Any:
    return cast(Any, SimpleNamespace(**{"name": "a-query", "isActive": True, "lastProgress": None} | fields))


def test_a_query_without_a_batch_is_healthy_and_has_no_figures() -> None:
    health = Health("a-query")
    report(_query(name="a-query"), health)
    assert health.problems() == {}
    assert REGISTRY.get_sample_value("stream_finished_batch_id", {"query": "a-query"}) is None


def test_a_query_that_has_ended_is_unhealthy_with_its_exception() -> None:
    health = Health("a-query")
    report(_query(isActive=False, exception=lambda: ValueError("reason")), health)
    assert health.problems() == {"a-query": "reason"}
    report(_query(isActive=False, exception=lambda: None), health)
    assert health.problems() == {"a-query": "stopped"}


def test_the_figures_of_a_batch_are_metrics() -> None:
    source = {"endOffset": {"t": {"0": 5}}, "latestOffset": {"t": {"0": 7}}}
    progress = {
        "batchId": 3,
        "numInputRows": 40,
        "durationMs": {"triggerExecution": 250},
        "sources": [source, source],
    }
    report(_query(name="another-query", lastProgress=progress), Health("another-query"))
    expected = {
        "stream_finished_batch_id": 3,
        "stream_last_batch_rows": 40,
        "stream_last_batch_seconds": 0.25,
        "stream_lag_records": 4,
    }
    assert {name: REGISTRY.get_sample_value(name, {"query": "another-query"}) for name in expected} == expected


def test_the_metadata_of_an_append_keeps_the_form_that_existing_lakes_have() -> None:
    text = '{"batch": 7, "offsets": {"avroic": {"0": 12, "1": 9}}, "query": "an-id", "topic_id": "another-id"}'
    info = AppendInfo("an-id", 7, "another-id", {"avroic": {"0": 12, "1": 9}})
    assert info.to_json() == text
    assert AppendInfo.from_json(text) == info
    marker = AppendInfo(ACCEPT_GAP, 0, "another-id", {"avroic": {"0": 12}}, replaces="an-id")
    assert AppendInfo.from_json(marker.to_json()) == marker


def test_the_definitions_of_the_tables_keep_the_form_that_existing_checkpoints_have() -> None:
    lines = definitions.definitions().splitlines()
    assert lines[:2] == [
        "agg_interactions_user user_id: keyword = key",
        "agg_interactions_user total_click: long = Count(_count_interaction_type_click_cba9fe6c)",
    ]
    assert lines[12:16] == [
        "avg_interactions avg_interactions: double = Count(_count) / rows of agg_interactions_user",
        "avg_interactions last_interaction: date = Most(_most_timestamp_ec508fe3)",
        "agg_interactions_minute minute: date = key, window of 0:01:00",
        "agg_interactions_minute total_click: long = Count(_count_interaction_type_click_cba9fe6c)",
    ]
    assert len(lines) == 26


def test_the_lake_knows_the_sizes_of_its_files_without_spark(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create_missing_tables()
    assert lake.file_sizes() == []
    row = pl.DataFrame([("a", "a", "a", datetime.fromtimestamp(0, UTC))], schema=EVENT_FRAME, orient="row")
    for _ in range(2):
        write_deltalake(lake.interactions, row, mode="append")
    files = [file.stat().st_size for file in (tmp_path / "interactions").glob("*.parquet")]
    assert sorted(lake.file_sizes()) == sorted(files)
    assert len(files) == 2


def test_a_start_after_accept_gap_is_no_warning_and_one_after_a_lost_checkpoint_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    for query in (ACCEPT_GAP, "an-id"):
        start_position._log_start(AppendInfo(query, 0, "another-id", {"avroic": {"0": 12}}), "checkpoints/ingest")
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("INFO", "continuing after accept-gap at {'avroic': {'0': 12}}"),
        (
            "WARNING",
            "checkpoints/ingest is missing: continuing from the offsets in the table's history, {'avroic': {'0': 12}}",
        ),
    ]


@pytest.mark.parametrize(
    ("query", "checkpoint_exists", "expected"),
    [(ACCEPT_GAP, True, True), (ACCEPT_GAP, False, False), ("an-id", True, False), (None, True, False)],
    ids=["killed before the end", "done", "appended since", "never appended"],
)
def test_a_gap_that_was_accepted_by_half_is_accepted_by_the_next_run(
    query: str | None, checkpoint_exists: bool, expected: bool
) -> None:
    info = None if query is None else AppendInfo(query, 0, "another-id", {})
    assert commands._is_half_accepted(info, checkpoint_exists) == expected
