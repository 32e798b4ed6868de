"""The stream job against real servers: parsing, restarts, dead letters, state, locking."""

import fcntl
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest
from deltalake import write_deltalake
from mirakuru.exceptions import ProcessExitedWithError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from stream_processing import engines
from stream_processing.collected_records import collect_records, data_frame
from stream_processing.dead_letter_writer import malformed_records
from stream_processing.event_reader import read
from stream_processing.lake import EVENT_FRAME, Lake
from stream_processing.measures import EVENTS, row_columns
from stream_processing.parsing import IS_VALID, NOT_CANONICAL, RECORD, parse, parse_canonical, with_reason
from stream_processing.session import start_session, stop_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.single_instance import AnotherInstanceError, claim

from contract.declared import TABLES, table_named
from contract.measures import rows_column
from local_stack import services
from local_stack.cache import SPARK
from local_stack.services import STREAM
from runtime.signals import StoppedError
from tests.interaction import INTERACTION_TYPES, MAX_TIMESTAMP, Interaction
from tests.pipeline import Pipeline, assert_more_than, eventually, headers_of
from tests.processes import java_processes
from tests.reference import reference_tables

GOOD = b'{"user_id": "user_765", "item_id": "item_43", "interaction_type": "like", "timestamp": 1736404972}'


@pytest.fixture(scope="module")
def spark(cache: None) -> Iterator[SparkSession]:
    session = start_session(StreamProcessingSettings(spark_jars=SPARK.folder))
    yield session
    stop_session(session)


def _record(**changes: object) -> bytes:
    fields = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": 1} | changes
    return orjson.dumps({name: value for name, value in fields.items() if value is not ...})


COMPACT = GOOD.replace(b": ", b":").replace(b", ", b",")

VALID = [
    GOOD,
    COMPACT,
    # Almost canonical, and so for the JSON parser.
    GOOD.replace(b": ", b":"),
    COMPACT.replace(b"765", rb"\u0041\\ \"q\""),
    COMPACT.replace(b"like", rb"lik\u0065"),
    COMPACT[:-1] + b" }",
    b'{"item_id":"i",' + COMPACT[1:].replace(b'"item_id":"item_43",', b""),
    b"  " + GOOD + b"\n",
    _record(user_id="7", item_id="-1"),
    _record(user_id="true", item_id="[a]"),
    _record(user_id="{", item_id='"'),
    *(_record(user_id=name, item_id=f"-{name}") for name in ("NaN", "Infinity", "INF")),
    _record(user_id="1", item_id="2", extra={"user_id": 1, "item_id": 2}),
    _record(user_id='{"user_id":1}', item_id='","user_id":2'),
    _record(user_id="item_id", item_id="A").replace(b'"A"', rb'"\u0041"'),
    _record(user_id="ü", item_id="日本"),
    _record(user_id="\ufffd"),
    _record(user_id=" "),
    _record(extra={"nested": {"}": ["}"]}}),
    _record(timestamp=0),
    _record(timestamp=MAX_TIMESTAMP),
]

_ENDS_OF_64_BITS = (2**63 - 1, 2**63, -(2**63), -(2**63) - 1)

MALFORMED = [
    (None, "the value is empty"),
    (b"", "not one JSON object"),
    (b"null", "not one JSON object"),
    (b"[]", "not one JSON object"),
    (b"[" + GOOD + b"]", "not one JSON object"),
    (b"not json", "not one JSON object"),
    (GOOD[:-1], "not one JSON object"),
    (COMPACT[:-1], "not one JSON object"),
    (COMPACT + b"}", "not one JSON object"),
    (COMPACT.replace(b"765", b"\x01"), "not one JSON object"),
    (COMPACT.replace(b"765", rb"\x"), "not one JSON object"),
    (COMPACT.replace(b":1736404972", b":01736404972"), "not one JSON object"),
    (COMPACT.replace(b":1736404972", b":+1736404972"), "not one JSON object"),
    (COMPACT.replace(b"765", b"\xff"), "not UTF-8"),
    (COMPACT.replace(b"user_765", b""), "user_id is empty"),
    (COMPACT.replace(b":1736404972", b":-1"), "timestamp -1 is not epoch seconds within the years 1970 to 9999"),
    (GOOD + GOOD, "not one JSON object"),
    (GOOD + b"," + GOOD, "not one JSON object"),
    (GOOD + b" x", "not one JSON object"),
    *((GOOD + rest, "not one JSON object") for rest in (b"]", b"],", b"] x", b"],[" + GOOD, b"]}", b"}", b',"a":1}')),
    (GOOD + b',"end_of_types":1}', "not one JSON object"),
    (GOOD + b']"end_of_types":1}', "not one JSON object"),
    *((GOOD[:-1] + b',"x":%s}' % name, "not one JSON object") for name in (b"NaN", b"-Infinity", b"01", b"+1")),
    (_record(user_id=...)[:-1] + b',"user_id":NaN}', "not one JSON object"),
    (GOOD.replace(b'"', b"'"), "not one JSON object"),
    (b"\xff\xfe\x00", "not UTF-8"),
    (GOOD.replace(b"765", b"\xff"), "not UTF-8"),
    (b"{}", "user_id is missing or null"),
    (_record(user_id=...), "user_id is missing or null"),
    (_record(user_id=None), "user_id is missing or null"),
    (_record(user_id=""), "user_id is empty"),
    (_record(user_id=5), "user_id is not a string"),
    (_record(user_id=True), "user_id is not a string"),
    (_record(user_id="1", item_id=1), "item_id is not a string"),
    (_record(user_id={"a": 1}, item_id=["a"]), "user_id is not a string"),
    (_record(user_id=1, extra={"user_id": "1"}), "user_id is not a string"),
    (_record(item_id=...), "item_id is missing or null"),
    (_record(item_id=""), "item_id is empty"),
    (_record(item_id={"a": 1}), "item_id is not a string"),
    (_record(item_id=["a"]), "item_id is not a string"),
    (_record(interaction_type=...), "interaction_type is missing or null"),
    (_record(interaction_type="stare"), "interaction_type is stare, not one of click, like, view, purchase"),
    (_record(interaction_type="View"), "interaction_type is View, not one of click, like, view, purchase"),
    (_record(timestamp=...), "timestamp is missing or null"),
    (_record(timestamp=None), "timestamp is missing or null"),
    (_record(timestamp="now"), "timestamp is now, not a whole number of seconds"),
    (_record(timestamp="1"), "timestamp is 1, not a whole number of seconds"),
    (_record(timestamp=1.5), "timestamp is 1.5, not a whole number of seconds"),
    (_record(timestamp=-1), "timestamp -1 is not epoch seconds within the years 1970 to 9999"),
    (_record(timestamp=1736404972000), "timestamp 1736404972000 is not epoch seconds within the years 1970 to 9999"),
    # The ends of 64 bits: one more overflows, and so does each as microseconds.
    *(
        (
            good.replace(b"1736404972", b"%d" % n),
            f"timestamp {n} is not epoch seconds within the years 1970 to 9999",
        )
        for good in (GOOD, COMPACT)
        for n in _ENDS_OF_64_BITS
    ),
]


def test_a_valid_record_becomes_an_interaction(spark: SparkSession) -> None:
    values = spark.createDataFrame([(bytearray(value),) for value in VALID], "value binary")
    parsed = parse(values).collect()
    assert [row[IS_VALID] for row in parsed] == [True] * len(VALID)
    for row, value in zip(parsed, VALID, strict=True):
        written = orjson.loads(value)
        assert (row.user_id, row.item_id, row.interaction_type) == tuple(
            written[name] for name in ("user_id", "item_id", "interaction_type")
        )
        assert row.timestamp.replace(tzinfo=UTC) == datetime.fromtimestamp(written["timestamp"], UTC)


def test_a_malformed_record_gets_the_reason(spark: SparkSession) -> None:
    rows = [(None if value is None else bytearray(value),) for value, _ in MALFORMED]
    records = spark.createDataFrame(rows, "value binary")
    malformed = parse(records).where(~F.col(IS_VALID)).select(f"{RECORD}.*")
    assert [row.reason for row in with_reason(malformed).collect()] == [reason for _, reason in MALFORMED]


def test_spark_parses_a_record_once_although_the_plan_selects_by_the_result(spark: SparkSession) -> None:
    records = spark.createDataFrame([(bytearray(GOOD),)], "value binary")
    parsers = _parsers(parse(records))
    # Three for the reason. As a condition, they would be repeated within each check.
    assert _parsers(malformed_records(parse(records))) == parsers + 3
    assert parsers == 3


def _parsers(frame: DataFrame) -> int:
    return str(frame._jdf.queryExecution().optimizedPlan().toJSON()).count("expressions.JsonToStructs")


def test_a_collected_record_is_the_same_as_a_dataframe(spark: SparkSession) -> None:
    schema = "key binary, value binary, topic string, partition int, offset long"
    rows = [(None, b'\xff\x00"', "t", 0, 2**40), (b"", b"", "t", 7, 0), (b"\xc3", GOOD, "t", 1, 1)]
    collected = collect_records(spark.createDataFrame(rows, schema))
    assert collected
    frame = data_frame(spark, collected)
    assert frame.dtypes == spark.createDataFrame(rows, schema).dtypes
    assert frame.collect() == collected


def test_a_batch_of_canonical_records_only_is_parsed_alike(spark: SparkSession) -> None:
    rng = random.Random(17)
    values = [*VALID, *(value for value, _ in MALFORMED if value is not None), *(_mutated(rng) for _ in range(20_000))]
    parsed = parse(spark.createDataFrame([(bytearray(value),) for value in values], "value binary")).collect()
    # Only the record of one that is not canonical is kept.
    canonical = [(value, row) for value, row in zip(values, parsed, strict=True) if row[RECORD] is None]
    others = [value for value, row in zip(values, parsed, strict=True) if row[RECORD] is not None]
    assert min(len(canonical), len(others)) > 2_000
    found = parse_canonical(spark.createDataFrame([(bytearray(value),) for value, _ in canonical], "value binary"))
    for row, (value, expected) in zip(found.collect(), canonical, strict=True):
        assert expected[IS_VALID]
        assert tuple(row) == tuple(expected[name] for name in found.columns), value
    large = [COMPACT.replace(b"1736404972", b"%d" % n) for n in _ENDS_OF_64_BITS]
    for other in [None, *large, *rng.sample(others, 20)]:
        rows = [(bytearray(canonical[0][0]),), (None if other is None else bytearray(other),)]
        with pytest.raises(Exception, match=NOT_CANONICAL):
            parse_canonical(spark.createDataFrame(rows, "value binary")).collect()


def _mutated(rng: random.Random) -> bytes:
    """Return a valid record with up to three random edits."""
    value = bytearray(rng.choice([GOOD, COMPACT, *VALID]))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(value) + 1)
        value[at : at + rng.randrange(3)] = rng.choice(_EDITS)
    return bytes(value)


_EDITS = [
    b"", b" ", b"7", b"-", b"-0", b"+", b".", b"e1", b"E+1", b'"', b"'", b",", b":", b"{", b"}", b"[", b"]", b"\\",
    b"\\u0041", b"\\ud83d", b"\x00", b"\t", b"\n", b"\xff", b"\xc3\xbc", b"\xf0\x9f\x99\x82", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"null", b"true", b"NaN", b'"user_id":"x",', b'"timestamp":2,', b"//", b"/**/", b"like", b"view",
]  # fmt: skip


def test_what_is_read_without_spark_is_what_spark_reads(spark: SparkSession) -> None:
    rng = random.Random(16)
    values = [_mutated(rng) for _ in range(30_000)]
    interactions, others = read(values)
    assert min(len(interactions), len(others)) > 3_000
    left = set(others)
    ordinary = [(bytearray(value),) for n, value in enumerate(values) if n not in left]
    parsed = parse(spark.createDataFrame(ordinary, "value binary"))
    rows = parsed.select(
        IS_VALID, "user_id", "item_id", "interaction_type", F.unix_micros("timestamp").alias("timestamp")
    ).collect()
    for row, fields, (value,) in zip(rows, interactions, ordinary, strict=True):
        assert tuple(row) == (True, *fields), bytes(value)


@pytest.mark.parametrize(
    ("interactions", "users", "average"), [(201, 200, 1.01), (1, 8, 0.13), (3, 8, 0.38), (2, 3, 0.67), (1, 3, 0.33)]
)
def test_averages_are_rounded_half_up(spark: SparkSession, interactions: int, users: int, average: float) -> None:
    known = {rows_column(("user_id",)): users, EVENTS.name: interactions}
    state = spark.range(1).select(*[F.lit(number).alias(name) for name, number in known.items()])
    table = table_named("avg_interactions")
    (row,) = state.select(row_columns(engines.SPARK, table)["avg_interactions"].alias("average")).collect()
    assert row.average == average
    frame = pl.DataFrame({name: [number] for name, number in known.items()})
    assert frame.select(row_columns(engines.POLARS, table)["avg_interactions"]).item() == average


def _interactions(count: int, first: int = 0) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 7}", f"item_{n % 5}", INTERACTION_TYPES[(n * n) % 4], 1_700_000_000 + n % 1_000)
        for n in range(first, first + count)
    ]


def test_the_job_resumes_where_it_stopped_and_malformed_records_become_dead_letters(pipeline: Pipeline) -> None:
    first, second = _interactions(900), _interactions(700, first=900)
    # No batch needs a Python process of Spark, whose start takes seconds.
    with pipeline.running(STREAM, PYSPARK_PYTHON="/no/python"):
        pipeline.send_interactions(first)
        pipeline.send(pipeline.topic, [(b"key", value) for value, _ in MALFORMED])
        eventually(lambda: pipeline.assert_published(first))
        eventually(lambda: _assert_dead_letters(pipeline, 1))
    with pipeline.running(STREAM):
        pipeline.send_interactions(second)
        eventually(lambda: pipeline.assert_published(first + second))
        eventually(lambda: _assert_in_the_lake(pipeline, first + second))
        pipeline.send(pipeline.topic, [(b"key", value) for value, _ in MALFORMED])
        eventually(lambda: _assert_dead_letters(pipeline, 2))
    assert pipeline.lake_count() == 1_600

    # The table's history has the offsets too.
    shutil.rmtree(pipeline.data / "checkpoints" / "ingest")
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(300, first=1_600))
        eventually(lambda: pipeline.assert_published(_interactions(1_900)))
    assert pipeline.lake_count() == 1_900
    assert "continuing from the offsets in the table's history" in pipeline.log(STREAM)


def test_a_lake_without_recorded_offsets_stops_the_job_with_the_remedy(pipeline: Pipeline) -> None:
    lake = Lake(str(pipeline.data / "warehouse"))
    lake.create_missing_tables()
    row = ("u", "i", "view", datetime.fromtimestamp(1, UTC))
    write_deltalake(lake.interactions, pl.DataFrame([row], schema=EVENT_FRAME, orient="row"), mode="append")
    job = pipeline.service(STREAM)
    with pytest.raises(ProcessExitedWithError):
        job.start()
    assert "restore the checkpoint" in pipeline.log(STREAM)
    assert pipeline.lake_count() == 1


def test_a_lake_that_is_older_than_the_checkpoints_is_refused_and_read_on_from_its_offsets_without_them(
    pipeline: Pipeline,
) -> None:
    warehouse, copy, checkpoints = (pipeline.data / name for name in ("warehouse", "copy", "checkpoints"))
    first, sent = _interactions(100), _interactions(300)
    with pipeline.running(STREAM):
        pipeline.send_interactions(first)
        eventually(lambda: pipeline.assert_published(first))
    shutil.copytree(warehouse, copy)
    with pipeline.running(STREAM):
        pipeline.send_interactions(sent[100:])
        eventually(lambda: pipeline.assert_published(sent))

    def assert_refused() -> None:
        with pytest.raises(ProcessExitedWithError):
            pipeline.service(STREAM).start()
        assert f"or delete it (`rm -rf {checkpoints}`)" in pipeline.log(STREAM)

    shutil.rmtree(warehouse)
    assert_refused()
    shutil.rmtree(warehouse)
    copy.rename(warehouse)
    assert_refused()
    shutil.rmtree(checkpoints)
    with pipeline.running(STREAM):
        eventually(lambda: _assert_in_the_lake(pipeline, sent))
        eventually(lambda: pipeline.assert_published(sent))
    assert pipeline.lake_count() == 300


def _assert_in_the_lake(pipeline: Pipeline, interactions: list[Interaction]) -> None:
    assert pipeline.lake_tables() == reference_tables(interactions)


def _assert_dead_letters(pipeline: Pipeline, times: int) -> None:
    dead_letters = pipeline.read(pipeline.settings.dead_letter_topic)
    assert sorted((m.value() or b"", headers_of(m)["dead_letter.reason"]) for m in dead_letters) == sorted(
        (value or b"", reason) for value, reason in MALFORMED * times
    )
    for message in dead_letters:
        assert message.key() == b"key"
        assert headers_of(message)["dead_letter.topic"] == pipeline.topic
        assert headers_of(message)["dead_letter.service"] == "stream-processing"


def test_large_batches_are_exact_whether_their_records_are_canonical_or_not(pipeline: Pipeline) -> None:
    first, sent = _interactions(100), _interactions(90_000, first=100)
    with pipeline.running(STREAM):
        pipeline.send_interactions(first)
        eventually(lambda: pipeline.assert_published(first))
    records: list[tuple[bytes, bytes | None]] = [(i.user_id.encode(), orjson.dumps(i)) for i in sent]
    records[50_000] = (b"key", orjson.dumps(dict(reversed(asdict(sent[50_000]).items()))))
    records[40_000:40_000] = [(b"key", value) for value, _ in MALFORMED]
    pipeline.send(pipeline.topic, records)
    with pipeline.running(STREAM, MAX_OFFSETS_PER_BATCH=30_000):
        eventually(lambda: pipeline.assert_published(first + sent))
        eventually(lambda: _assert_dead_letters(pipeline, 1))
    assert pipeline.lake_count() == 90_100
    log = pipeline.log(STREAM)
    assert log.count("not in the canonical form") == 1
    assert "ERROR" not in log
    assert "Exception" not in log


def test_the_job_starts_from_its_class_archive(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM) as job:
        assert job.process is not None
        java = java_processes(job.process.pid)[0]
        assert any(used.path.endswith("stream_processing.jsa") for used in java.memory_maps())


@pytest.mark.parametrize("size", [0, 1, 100_000_000], ids=["empty", "a byte", "cut"])
def test_the_job_starts_with_a_damaged_class_archive(pipeline: Pipeline, size: int) -> None:
    archive = pipeline.data / "damaged.jsa"
    shutil.copyfile(services.environment(pipeline.data)["CLASS_ARCHIVE"], archive)
    os.truncate(archive, size)
    with pipeline.running(STREAM, CLASS_ARCHIVE=archive):
        pipeline.send_interactions(_interactions(100))
        eventually(lambda: pipeline.assert_published(_interactions(100)))
    for report in services.ROOT.glob("hs_err_pid*.log"):
        if str(archive) in report.read_text(errors="replace"):
            report.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_in_the_middle_of_batches_is_quiet(pipeline: Pipeline, number: signal.Signals) -> None:
    with pipeline.running(STREAM) as job:
        assert job.process is not None
        for _ in range(3):
            pipeline.send_interactions(_interactions(2_000))
        job.process.send_signal(number)
        assert job.process.wait(60) == 0
    lines = pipeline.log(STREAM).splitlines()
    assert lines[-1].endswith(" INFO    stream_processing.job: stopping"), lines[-20:]


def test_a_killed_java_process_ends_the_job_with_the_reason_in_the_log(pipeline: Pipeline) -> None:
    job = pipeline.service(STREAM)
    try:
        job.start()
        assert job.process is not None
        for process in java_processes(job.process.pid):
            process.kill()
        assert job.process.wait(timeout=60) == 1
    finally:
        job.kill()
    assert "it was killed by SIGKILL: kill -9, or the kernel for lack of memory" in pipeline.log(STREAM)
    assert "raise SPARK_DRIVER_MEMORY" not in pipeline.log(STREAM), "the heap was not the cause"
    assert "Traceback" not in pipeline.log(STREAM).split("was killed by SIGKILL")[-1]


def test_only_rows_that_changed_are_published_and_every_record_of_a_key_is_in_one_partition(
    pipeline: Pipeline,
) -> None:
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(700))
        eventually(lambda: pipeline.assert_published(_interactions(700)))
        before = len(pipeline.read(pipeline.settings.aggregated_topic))
        pipeline.send_interactions([Interaction("user_1", "item_1", "like", 1_700_100_000)])
        eventually(lambda: assert_more_than(len(pipeline.read(pipeline.settings.aggregated_topic)), before))
    messages = pipeline.read(pipeline.settings.aggregated_topic)
    assert len(messages) == before + len(TABLES)
    partitions: dict[bytes, set[int | None]] = {}
    for message in messages:
        key = message.key()
        assert isinstance(key, bytes)
        partitions.setdefault(key, set()).add(message.partition())
    assert all(len(found) == 1 for found in partitions.values())


def test_a_second_job_waits_until_the_first_one_has_released_the_checkpoints(
    spark: SparkSession, tmp_path: Path
) -> None:
    checkpoints = str(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    with (tmp_path / "checkpoints" / ".lock").open("w") as lock_file, ThreadPoolExecutor() as pool:
        fcntl.lockf(lock_file, fcntl.LOCK_EX)
        # One after the other: simultaneous attempts in one JVM are an error.
        with pytest.raises(AnotherInstanceError, match="another stream job holds"):
            claim(spark, checkpoints, threading.Event(), timeout=0.5)
        stop = threading.Event()
        stopped = pool.submit(claim, spark, checkpoints, stop, timeout=600)
        stop.set()
        with pytest.raises(StoppedError):
            stopped.result(timeout=60)
        claimed = pool.submit(claim, spark, checkpoints, threading.Event(), timeout=60)
        with pytest.raises(TimeoutError):
            claimed.result(timeout=1)
        fcntl.lockf(lock_file, fcntl.LOCK_UN)
        assert claimed.result(timeout=10) is not None
