"""A pipeline under test: its own topics, warehouse and indices, and what one sees of it from outside."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import QueryBuilder
from deltalake.exceptions import TableNotFoundError
from elasticsearch import Elasticsearch, helpers
from mirakuru import HTTPExecutor, SimpleExecutor
from stream_processing.lake import Lake
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from contract.interaction import Interaction
from contract.tables import AGGREGATE_TABLES, INTERACTIONS
from local_stack import services
from local_stack.servers import free_port
from local_stack.services import Service
from runtime.kafka_client import (
    PARTITION_EOF,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    producer_config,
)
from runtime.settings import Settings
from tests.reference import Tables, as_epoch_seconds, reference_tables

A_TIME = "2026-01-01T00:00:00.000Z"
PATIENCE = 400.0
"""Seconds. What is right comes much earlier, but on a machine with ten times as much to do."""


@dataclass
class Pipeline:
    """One test's share of the servers."""

    kafka: str
    es_url: str
    topic: str
    data: Path
    elsewhere: Lake | None = None
    """The lake, where it is not below `data`."""

    @property
    def settings(self) -> Settings:
        """The settings that all services share."""
        return Settings(kafka_broker=self.kafka, kafka_topic=self.topic)

    def service(self, service: Service, **settings: object) -> HTTPExecutor:
        """A service of this pipeline; not started yet."""
        return services.run(service, self.data, self._told(settings), port=free_port())

    def run_to_end(self, service: Service, **settings: object) -> None:
        """A service of this pipeline that ends by itself, with status 0."""
        services.run_to_end(service, self.data, self._told(settings))

    def _told(self, settings: Mapping[str, object]) -> dict[str, str]:
        told = {"KAFKA_BROKER": self.kafka, "ES_HOST": self.es_url, "KAFKA_TOPIC": self.topic, "LOOP_SLEEP": "0.2"}
        told |= {"MATERIALISE_INTERVAL": "2", "KAFKA_GROUP_ID": self.topic}
        return told | {name: str(value) for name, value in settings.items()}

    @contextmanager
    def running(self, service: Service, **settings: object) -> Iterator[HTTPExecutor]:
        """The service, ready; stopped by SIGTERM in the end, and required to exit with status 0."""
        executor = self.service(service, **settings)
        try:
            executor.start()
            yield executor
            executor.stop()
        finally:
            executor.kill()

    def log(self, service: Service) -> str:
        """What the service has logged so far."""
        return (self.data / "logs" / f"{service.package}.log").read_text()

    def publish(self, *records: tuple[bytes | None, bytes | None]) -> None:
        """Send records to the aggregated topic, as the stream job does."""
        self.send(self.settings.aggregated_topic, records)

    def send(self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """Send keys and values, and wait until the broker has them."""
        refused: list[KafkaError] = []
        producer = Producer(
            producer_config({"bootstrap.servers": self.kafka}, max_message_bytes=20 << 20)
            | {"on_delivery": lambda error, _: refused.append(error) if error else None}
        )
        for key, value in records:
            producer.produce(topic, key=key, value=value)
            producer.poll(0)
        assert producer.flush(30) == 0
        assert refused == []

    def set_max_message_bytes(self, topic: str, size: int) -> None:
        """Change how large a batch the topic takes."""
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.kafka})
        admin.incremental_alter_configs([resource])[resource].result()

    def command(self, service: Service, *words: str) -> str:
        """What a command of the service prints; required to exit with status 0."""
        environment = services.environment(self.data) | self._told({}) | {"PATH": os.environ["PATH"]}
        done = subprocess.run(
            [sys.executable, "-m", service.package, *words],
            cwd=services.ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send_interactions(self, interactions: Sequence[Interaction]) -> None:
        """Send interactions as the producer does, keyed by user."""
        self.send(self.topic, [(i.user_id.encode(), orjson.dumps(i)) for i in interactions])

    def assert_published(self, interactions: Sequence[Interaction]) -> None:
        """The topic's latest rows are those of exactly these interactions."""
        assert self.topic_tables() == reference_tables(interactions)

    def assert_everywhere(self, sent: Sequence[Interaction]) -> None:
        """Topic, indices and lake come to hold exactly these interactions."""
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(self.topic_tables(), expected))
        eventually(lambda: assert_equal(self.index_tables(), expected))
        self.assert_in_the_lake(sent)

    def assert_in_the_lake(self, sent: Sequence[Interaction]) -> None:
        """The aggregate tables come to be those of these interactions, and each of them is there once."""
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(self.lake_tables(), expected))
        in_the_lake = self.lake_rows(f"SELECT * FROM {INTERACTIONS}")
        assert Counter(map(_identity_of_row, in_the_lake)) == Counter(map(_identity, sent))

    def read(self, topic: str) -> list[Message]:
        """All records of a topic that are committed, partition by partition in order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "tests",
                "enable.auto.commit": False,
                # Aborted records are never delivered, and so never passed.
                "enable.partition.eof": True,
            }
        )
        messages: list[Message] = []
        try:
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
                at_end = False
                while not at_end:
                    for message in consumer.consume(10_000, timeout=1.0):
                        if (error := message.error()) is None:
                            messages.append(message)
                            # Where somebody writes all the time, there may be no end of the partition to be met.
                            at_end = at_end or int(message.offset() or 0) >= end - 1
                        elif error.code() == PARTITION_EOF:
                            at_end = True
                        else:
                            raise KafkaException(error)
        finally:
            consumer.close()
        return messages

    def interactions(self, but: Container[bytes] = ()) -> list[Interaction]:
        """What the topic holds `but` for the values that are no interactions, parsed the straightforward way."""
        values = [message.value() or b"" for message in self.read(self.topic)]
        return [Interaction(**orjson.loads(value)) for value in values if value not in but]

    def lake_rows(self, query: str, *more: str) -> list[dict[str, Any]]:
        """The answer of an SQL query over the Delta tables, and `more` of them, which are named as they are."""
        lake = self.elsewhere or Lake(str(self.data / "warehouse"))
        builder = QueryBuilder()
        for table in (INTERACTIONS, *(table.name for table in AGGREGATE_TABLES), *more):
            builder = builder.register(table, lake.table(table))
        answer = builder.execute(query).read_all()
        columns = {name: answer[name].to_pylist() for name in answer.column_names}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def lake_count(self) -> int:
        """The number of interactions in the lake; 0 before there is a table."""
        try:
            return int(self.lake_rows("SELECT count(*) AS n FROM interactions")[0]["n"])
        except TableNotFoundError:
            return 0

    def lake_tables(self) -> Tables:
        """The aggregate tables as the lake has them."""
        return {
            table.name: {
                row[table.key] if table.key else table.name: as_epoch_seconds(row)
                for row in self.lake_rows(f"SELECT * FROM {table.name}")
            }
            for table in AGGREGATE_TABLES
        }

    def topic_tables(self) -> Tables:
        """The latest row per key of the aggregated topic."""
        tables: Tables = {table.name: {} for table in AGGREGATE_TABLES}
        # A key that has moved to another partition is in both.
        for message in sorted(self.read(self.settings.aggregated_topic), key=lambda m: m.timestamp()[1]):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            table = max((t.name for t in AGGREGATE_TABLES if key.decode().startswith(t.name)), key=len)
            row_id = key.decode()[len(table) + 1 :] or table
            tables[table][row_id] = as_epoch_seconds(orjson.loads(value))
        return tables

    @property
    def elasticsearch(self) -> Elasticsearch:
        """A client."""
        return Elasticsearch([self.es_url])

    def index_tables(self) -> Tables:
        """The documents of the tables' indices."""
        return {
            table.name: {id_: as_epoch_seconds(source) for id_, source in self.documents(table.name).items()}
            for table in AGGREGATE_TABLES
        }

    def documents(self, index: str) -> dict[str, dict[str, Any]]:
        """All documents of an index, by id."""
        client = self.elasticsearch
        client.indices.refresh(index=index, ignore_unavailable=True)
        hits = helpers.scan(client, index=index, ignore_unavailable=True)
        return {hit["_id"]: hit["_source"] for hit in hits}

    def alerts(self) -> list[dict[str, Any]]:
        """The documents of the index alerts."""
        return list(self.documents("alerts").values())


def headers_of(message: Message) -> dict[str, str]:
    """A record's headers as text."""
    headers = message.headers() or []
    assert isinstance(headers, list)
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in headers}


def _identity(interaction: Interaction) -> tuple[object, ...]:
    """What tells an interaction from another, as `_identity_of_row` does for a row of the lake."""
    return interaction.user_id, interaction.item_id, interaction.interaction_type, interaction.timestamp


def _identity_of_row(row: Mapping[str, Any]) -> tuple[object, ...]:
    """See `_identity`."""
    return row["user_id"], row["item_id"], row["interaction_type"], int(row["timestamp"].timestamp())


def assert_equal(found: object, expected: object) -> None:
    """For a lambda, which cannot assert."""
    assert found == expected


def assert_more_than(found: float, least: float) -> None:
    """For a lambda, which cannot assert."""
    assert found > least


def kill_9(executor: SimpleExecutor) -> None:
    """End a service at once, with all that it has started."""
    if executor.running():
        executor.kill(sig=signal.SIGKILL)


def kill_9_python_only(executor: HTTPExecutor) -> None:
    """End a service's own process at once, and leave what it has started to itself."""
    assert executor.process is not None
    executor.process.send_signal(signal.SIGKILL)
    executor.process.wait()


def eventually(check: Callable[[], None], patience: float = PATIENCE) -> None:
    """Repeat assertions until they hold; the last failure is raised once patience ends."""
    retry(
        retry=retry_if_exception_type(AssertionError),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(patience),
        reraise=True,
    )(check)()


def row_record(table: str, row_id: str | None, row: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """A record of the aggregated topic."""
    return (table if row_id is None else f"{table}-{row_id}").encode(), orjson.dumps(row)


def item_record(n: int, most: int) -> tuple[bytes, bytes]:
    """A changed item's record of the aggregated topic."""
    row = {"item_id": f"item_{n}", "min_interactions": 1, "max_interactions": most, "last_interaction": A_TIME}
    return row_record("agg_interactions_item", f"item_{n}", row)
