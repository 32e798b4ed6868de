"""Measures one stage of Spark over the topic, in a process of its own: ``python -m benchmarks.engine parse``.

nothing: Kafka to a noop sink. json: Kafka, Spark's JSON parser, noop sink. parse: Kafka, the job's own parser with all
its checks, noop sink. ingest: the same into a Delta table. Session, source options and batch size are the job's.
Prints a line of JSON: interactions a second, and microseconds of processor time for each, of all batches but the first
third, which is the warm-up.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from stream_processing.kafka_io import source_options
from stream_processing.lake import Lake
from stream_processing.parsing import parse_canonical
from stream_processing.session import start_session
from stream_processing.settings import StreamProcessingSettings

from benchmarks.process_tree import sample

_JSON: Final = "user_id STRING, item_id STRING, interaction_type STRING, timestamp BIGINT"


def main() -> None:
    """Run the stage that the command line names over the whole topic."""
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description="Measures one stage of Spark.")
    parser.add_argument("stage", choices=["nothing", "json", "parse", "ingest"])
    stage: str = parser.parse_args().stage
    settings = StreamProcessingSettings.load()
    session = start_session(settings)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(f"{folder}/warehouse")
        lake.create_missing_tables()
        transform, write = _stage(stage, lake)
        records = (
            session.readStream.format("kafka")
            .options(**source_options(settings, settings.kafka_topic))
            .option("maxOffsetsPerTrigger", settings.max_offsets_per_batch)
            .load()
        )
        core_seconds = []

        def sampled_write(batch: DataFrame, number: int) -> None:
            core_seconds.append(sample(os.getpid()).core_seconds)
            write(batch, number)

        query = (
            transform(records.select("key", "value", "topic", "partition", "offset"))
            .writeStream.trigger(availableNow=True)
            .option("checkpointLocation", f"{folder}/checkpoint")
            .foreachBatch(sampled_write)
            .start()
        )
        query.awaitTermination()
        core_seconds.append(sample(os.getpid()).core_seconds)
        batches = [(p["numInputRows"], p["durationMs"]["triggerExecution"]) for p in query.recentProgress]
        session.stop()
    first = len(batches) // 3
    warm = batches[first:]
    rows, milliseconds = (sum(column) for column in zip(*warm, strict=True))
    cost = (core_seconds[-1] - core_seconds[first]) / rows * 1e6
    print(json.dumps({"stage": stage, "rate": rows / milliseconds * 1000, "cost": cost, "warm": rows}))


def _stage(stage: str, lake: Lake) -> tuple[Callable[[DataFrame], DataFrame], Callable[[DataFrame, int], None]]:
    def unparsed(records: DataFrame) -> DataFrame:
        return records

    def json_only(records: DataFrame) -> DataFrame:
        return records.select(F.from_json(F.col("value").cast("string"), _JSON).alias("row")).select("row.*")

    def to_noop(batch: DataFrame, _: int) -> None:
        batch.write.format("noop").mode("overwrite").save()

    def to_lake(batch: DataFrame, _: int) -> None:
        batch.write.save(lake.interactions, format="delta", mode="append")

    return {
        "nothing": (unparsed, to_noop),
        "json": (json_only, to_noop),
        "parse": (parse_canonical, to_noop),
        "ingest": (parse_canonical, to_lake),
    }[stage]


if __name__ == "__main__":
    main()
