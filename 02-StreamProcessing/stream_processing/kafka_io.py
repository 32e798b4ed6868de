"""How Spark reaches Kafka, and the form of what it writes there."""

from pyspark.sql import DataFrame

from stream_processing.settings import StreamProcessingSettings


def source_options(settings: StreamProcessingSettings, topic: str) -> dict[str, str]:
    """Options of a Kafka source, streaming or not, over all of `topic`."""
    return {
        "kafka.bootstrap.servers": settings.kafka_broker,
        "subscribe": topic,
        "startingOffsets": "earliest",
        # A gap in the offsets stops the job instead of passing for no data.
        "failOnDataLoss": "true",
        # Larger fetches, and no second checksum over what TCP has checked: twice the events a second.
        "kafka.max.poll.records": "20000",
        "kafka.max.partition.fetch.bytes": str(16 << 20),
        "kafka.fetch.max.bytes": str(64 << 20),
        "kafka.check.crcs": "false",
    }


def write_records(records: DataFrame, settings: StreamProcessingSettings, topic: str) -> None:
    """Send records (key, value, headers if any) to `topic`; returns when the broker has them all."""
    (
        records.write.format("kafka")
        .option("kafka.bootstrap.servers", settings.kafka_broker)
        .option("kafka.acks", "all")
        .option("kafka.enable.idempotence", "true")
        .option("kafka.linger.ms", "5")
        .option("kafka.batch.size", str(256 << 10))
        .option("kafka.compression.type", "lz4")
        # Long enough for a broker to come back; then the batch fails, and is done again.
        .option("kafka.delivery.timeout.ms", "300000")
        .option("topic", topic)
        .save()
    )
