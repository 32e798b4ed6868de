"""Moves the records of a small batch from Spark to this process, and back."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from stream_processing.dead_letter_writer import ORIGIN

_MAX_BYTES: Final = 4096
"""The size of a key or value in a batch that is written without Spark: limits the memory of this process."""
_RECORDS: Final = "array<struct<key string, value string, topic string, partition int, offset long>>"
"""The type of records as JSON, with the bytes in Base64."""


def collect_records(batch: DataFrame, *others: str) -> list[Row] | None:
    """Return the records of a batch, with the values of other columns; None if one of them is large."""
    is_small = (F.octet_length("value") <= _MAX_BYTES) & (F.coalesce(F.octet_length("key"), F.lit(0)) <= _MAX_BYTES)
    small = [F.when(is_small, F.col(name)).alias(name) for name in ("key", "value")]
    records = batch.select(*small, *ORIGIN, *others).collect()
    return None if any(record.value is None for record in records) else records


def data_frame(session: SparkSession, records: Sequence[Row]) -> DataFrame:
    """Return collected records as a DataFrame.

    `createDataFrame` would start Python processes, by whatever `python3` is on the path, which takes seconds.
    """
    texts = [
        {name: row[name] for name in ORIGIN}
        | {name: None if row[name] is None else b64encode(row[name]).decode() for name in ("key", "value")}
        for row in records
    ]
    rows = session.range(0, 1, 1, 1).select(F.inline(F.from_json(F.lit(json.dumps(texts)), _RECORDS)))
    return rows.select(F.unbase64("key").alias("key"), F.unbase64("value").alias("value"), *ORIGIN)
