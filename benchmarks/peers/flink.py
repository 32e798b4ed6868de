"""Flink SQL in one process: `jobs/flink.sql` run by `jobs/FlinkSqlJob.java`, with and without files."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pyspark

from benchmarks.peers.java_program import FOLDER, JARS, JavaProgram
from benchmarks.peers.peer import Peer
from benchmarks.peers.processes import JOBS
from benchmarks.stack import Stack
from local_stack.cache import Download

_CHECKPOINT_SECONDS: Final = 10
_MINI_BATCH_MS: Final = 500
_STATEMENTS: Final = JOBS / "flink.sql"
_SPARK_JARS: Final = Path(pyspark.__file__).parent / "jars"
_PROGRAM: Final = JavaProgram(
    "FlinkSqlJob.java",
    Download("Flink SQL 2.2.1", JARS / "flink.txt", FOLDER / "flink"),
    # Parquet, and the part of Hadoop that it needs, in the versions of Spark.
    more_libraries=tuple(
        str(jar)
        for pattern in ("parquet-*.jar", "hadoop-client-*.jar", "commons-logging-*.jar")
        for jar in sorted(_SPARK_JARS.glob(pattern))
    ),
    provides=("org.apache.flink.table.factories.Factory", "FlinkSqlJob$ParquetFormat"),
)
_SETTINGS: Final = {
    "parallelism.default": 2,
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": f"{_MINI_BATCH_MS} ms",
    "table.exec.mini-batch.size": 100_000,
    "table.local-time-zone": "UTC",
    "pipeline.object-reuse": "true",
    "state.backend.type": "hashmap",
    "execution.checkpointing.interval": f"{_CHECKPOINT_SECONDS} s",
    # Longer than the process is suspended.
    "heartbeat.timeout": "600 s",
    # A failure ends the process instead of repeating.
    "restart-strategy.type": "none",
}
_OUTPUT: Final = """
  'connector' = 'upsert-kafka', 'topic' = '{output}', 'properties.bootstrap.servers' = '{broker}',
  'key.format' = 'raw', 'value.format' = 'json', 'value.fields-include' = 'EXCEPT_KEY',
  'value.json.timestamp-format.standard' = 'ISO-8601'
"""
_FILES: Final = """
CREATE TABLE files (user_id STRING, item_id STRING, interaction_type STRING, `timestamp` BIGINT) WITH (
  'connector' = 'filesystem', 'path' = '{path}', 'format' = 'parquet'
);

INSERT INTO files SELECT * FROM interactions;
"""


@contextmanager
def _start(stack: Stack, topic: str, output: str, *, files: bool) -> Iterator[int]:
    folder = stack.data / topic
    folder.mkdir(exist_ok=True)
    rows = _OUTPUT.format(output=output, broker=stack.kafka)
    statements = _STATEMENTS.read_text().format(topic=topic, broker=stack.kafka, output=rows)
    if files:
        statements += _FILES.format(path=(folder / "files").as_uri())
    script = folder / "statements.sql"
    script.write_text(statements)
    settings = _SETTINGS | {"execution.checkpointing.dir": (folder / "checkpoints").as_uri()}
    with _PROGRAM.run(stack, topic, [str(script), *(f"{name}={value}" for name, value in settings.items())]) as pid:
        yield pid


def _peer(title: str, lake: str, settings: str, does_not: str, *, files: bool) -> Peer:
    return Peer(
        title=title,
        version="Flink 2.2.1, Kafka connector 5.0.0-2.2",
        lake=lake,
        settings=f"mini-batches of {_MINI_BATCH_MS} ms, parallelism 2, state in memory, a checkpoint each"
        f" {_CHECKPOINT_SECONDS} s, rows published at least once, a heap of 1 GB, one process{settings}",
        does_not=f"no dead letters: a malformed record stops it; no checks of fields{does_not}",
        set_up=_PROGRAM.set_up,
        start=partial(_start, files=files),
    )


WITHOUT_FILES: Final = _peer("Flink SQL", "none", "", "", files=False)
WITH_FILES: Final = _peer(
    "Flink SQL, with files",
    "Parquet files",
    "; files with zstd, by a format of this benchmark over Spark's Parquet library instead of flink-parquet",
    "; files that are no table: no transactions, schema or compaction. A row is published up to"
    f" {_CHECKPOINT_SECONDS} s before its interactions are in a file that can be read",
    files=True,
)
