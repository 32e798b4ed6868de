"""Dumps Java's class data sharing (CDS) archive of the stream job, so that its start need not verify every class.

``python -m build_tools.cds_archive FILE``, once per installation: Java ignores an archive of other jars than those on
its class path. The dump runs a job's steps in a temporary folder, without broker and data: about 30 seconds and 180 MB.
"""

import argparse
import json
import tempfile
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from stream_processing.collected_records import collect_records
from stream_processing.ingest import append
from stream_processing.lake import AppendInfo, Lake
from stream_processing.parsing import IS_VALID, parse, parse_canonical
from stream_processing.quoting import double_quoted
from stream_processing.session import start_session, stop_session
from stream_processing.settings import StreamProcessingSettings
from stream_processing.spark_internals import jvm as java_classes

from contract.declared import EVENT
from contract.fields import Field, FieldType


def main() -> None:
    """Dump the archive to the file that the command line names; an existing one is replaced."""
    parser = argparse.ArgumentParser(prog="build_tools.cds_archive", description="Dumps the stream job's CDS archive.")
    parser.add_argument("file", type=Path, help="where to put it; an existing file is replaced")
    file: Path = parser.parse_args().file
    new = file.with_name(f"{file.name}.new")
    with tempfile.TemporaryDirectory() as folder:
        settings = StreamProcessingSettings(
            deploy_mode="client",
            class_archive=None,
            warehouse=f"{folder}/warehouse",
            checkpoints=f"{folder}/checkpoints",
        )
        archive_option = double_quoted(f"-XX:ArchiveClassesAtExit={new}")
        session = start_session(settings, java_options=f"{archive_option} -Xlog:cds=off")
        _run_job_steps(session, settings)
        stop_session(session)  # Java dumps the archive at its exit.
    new.replace(file)


def _run_job_steps(session: SparkSession, settings: StreamProcessingSettings) -> None:
    lake = Lake.of(settings)
    lake.create_missing_tables()
    _load_kafka_clients(session)
    record = F.when(F.col("value") % 2 == 0, canonical_record()).otherwise("malformed")
    records = (
        session.readStream.format("rate")
        .load()
        .select(
            F.encode(F.lit("user_1"), "UTF-8").alias("key"), F.encode(record, "UTF-8").alias("value"),
            F.lit("topic").alias("topic"), F.lit(0).alias("partition"), F.col("value").alias("offset"),
        )
    )  # fmt: skip

    def ingest(batch: DataFrame, batch_id: int) -> None:
        # A small batch, and large ones of both plans.
        collect_records(batch)
        info = AppendInfo("", batch_id, "", {})
        append(parse_canonical(batch.where("offset % 2 == 0")), lake, info)
        append(parse(batch).where(F.col(IS_VALID)), lake, info)

    ingest_query = records.writeStream.option("checkpointLocation", f"{settings.checkpoints}/1").foreachBatch(ingest)
    query = ingest_query.start()
    while lake.count() == 0 and query.isActive:
        query.awaitTermination(1)
    query.stop()


def canonical_record() -> str:
    """Return a canonical record."""
    values = {
        FieldType.TEXT: "t",
        FieldType.FLAG: True,
        FieldType.EPOCH_SECONDS: 1_700_000_000,
        FieldType.EPOCH_MILLISECONDS: 1_700_000_000_000,
        FieldType.ISO_DATETIME: "2026-01-01T00:00:00Z",
    }

    def value_of(field: Field) -> object:
        if field.type is FieldType.WHOLE:
            return int(field.at_least or 0)
        return (*field.choices, values.get(field.type, float(field.at_least or 0)))[0]

    return json.dumps({each.name: value_of(each) for each in EVENT.fields})


def _load_kafka_clients(session: SparkSession) -> None:
    """Create a consumer and a producer without a broker."""
    jvm = java_classes(session)
    kafka, serialization = jvm.org.apache.kafka.clients, "org.apache.kafka.common.serialization.ByteArray"
    options = jvm.java.util.HashMap()
    for name, value in {
        "bootstrap.servers": "127.0.0.1:9",
        "key.serializer": f"{serialization}Serializer",
        "value.serializer": f"{serialization}Serializer",
        "key.deserializer": f"{serialization}Deserializer",
        "value.deserializer": f"{serialization}Deserializer",
    }.items():
        options.put(name, value)
    for client in (kafka.consumer.KafkaConsumer(options), kafka.producer.KafkaProducer(options)):
        client.close()


if __name__ == "__main__":
    main()
