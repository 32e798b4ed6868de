"""Runs a pipeline under test with its own topics, warehouse and indices, and reads its data as a user would."""

import json
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
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from deltalake import QueryBuilder
from deltalake.exceptions import TableNotFoundError
from elasticsearch import Elasticsearch, helpers
from mirakuru import HTTPExecutor, SimpleExecutor
from stream_processing.lake import Lake
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from contract.declared import EVENT, TABLES
from local_stack import services
from local_stack.servers import free_port
from local_stack.services import Service
from runtime.kafka_client import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    producer_config,
)
from runtime.settings import Settings
from runtime.topic_reader import read_to_end
from tests.interaction import Interaction
from tests.reference import Tables, as_epoch_seconds, reference_tables

TIMESTAMP = "2026-01-01T00:00:00.000Z"
TIMEOUT = 400.0
"""Seconds until an expected state counts as missed; sized for a machine under ten times the usual load."""

_SHOWN_LINES = 40
"""Lines of a service's log that a failed test shows."""


@dataclass
class Pipeline:
    """The topics, tables and indices of one test on the shared servers."""

    kafka: str
    es_url: str
    topic: str
    data: Path
    remote_lake: Lake | None = None
    """The lake, if it is not in `data`."""

    @property
    def settings(self) -> Settings:
        """The settings that all services of this pipeline share."""
        return Settings(kafka_broker=self.kafka, kafka_topic=self.topic)

    def service(self, service: Service, **settings: object) -> HTTPExecutor:
        """Create an executor of the service, not started yet."""
        return services.run(service, self.data, self._environment(settings), port=free_port())

    def run_to_end(self, service: Service, **settings: object) -> None:
        """Run a service that ends by itself; raises CalledProcessError unless it exits with status 0."""
        services.run_to_end(service, self.data, self._environment(settings))

    def _environment(self, settings: Mapping[str, object]) -> dict[str, str]:
        environment = {
            "KAFKA_BROKER": self.kafka,
            "ES_HOST": self.es_url,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": self.topic,
            "LOOP_SLEEP": "0.2",
            "MATERIALISE_INTERVAL": "2",
        }
        return environment | {name: str(value) for name, value in settings.items()}

    @contextmanager
    def running(self, service: Service, **settings: object) -> Iterator[HTTPExecutor]:
        """Run the service; yields once it is ready, stops it by SIGTERM and requires exit status 0."""
        executor = self.service(service, **settings)
        try:
            executor.start()
            yield executor
            executor.stop()
        except BaseException:
            # pytest shows it with the failure.
            end = "\n".join(self.log(service).splitlines()[-_SHOWN_LINES:])
            print(f"--- end of the log of {service.package} ---\n{end}", file=sys.stderr)
            raise
        finally:
            executor.kill()

    def log(self, service: Service) -> str:
        """Read the log of the service."""
        return (self.data / "logs" / f"{service.package}.log").read_text()

    def publish(self, *records: tuple[bytes | None, bytes | None]) -> None:
        """Send records to the aggregated topic, as the stream job does."""
        self.send(self.settings.aggregated_topic, records)

    def send(self, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """Send keys and values, and wait until the broker has acknowledged them."""
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
        """Set the largest record batch that the topic accepts, in bytes."""
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.kafka})
        admin.incremental_alter_configs([resource])[resource].result()

    def command(self, service: Service, *arguments: str, expected_status: int = 0, **settings: object) -> str:
        """Run a command of the service, and return what it prints; its log, if it should fail."""
        completed = self._run(service.package, *arguments, **settings)
        assert completed.returncode == expected_status, completed.stderr
        return completed.stderr if expected_status else completed.stdout

    def _run(self, package: str, *arguments: str, **settings: object) -> "subprocess.CompletedProcess[str]":
        environment = services.environment(self.data) | self._environment(settings) | {"PATH": os.environ["PATH"]}
        command = [sys.executable, "-m", package, *arguments]
        return subprocess.run(command, cwd=services.ROOT, env=environment, capture_output=True, text=True, check=False)

    def status(self, *arguments: str, **settings: object) -> dict[str, Any]:
        """Return what `python -m observer --json` reports."""
        completed = self._run("observer", "--json", *arguments, **settings)
        assert completed.stderr == ""
        report: dict[str, Any] = json.loads(completed.stdout)
        assert completed.returncode == report["exit_status"]
        return report

    def verify(self, *, wait: float = TIMEOUT, **settings: object) -> dict[str, Any]:
        """Compare everything by `python -m verify`, and return its report."""
        completed = self._run("verify", "--json", "-", "--wait", str(wait), **settings)
        assert completed.returncode in (0, 1), completed.stderr
        report: dict[str, Any] = json.loads(completed.stdout)
        assert completed.returncode == (0 if report["exact"] else 1)
        return report

    def assert_exact(self, *, wait: float = TIMEOUT, **settings: object) -> None:
        """Assert that `python -m verify` finds no difference, and has compared something of each store."""
        report = self.verify(wait=wait, **settings)
        differences = [each for check in report["checks"] for each in check["differences"]]
        assert report["exact"], differences
        assert report["checks"][0]["compared"] > 0

    def send_interactions(self, interactions: Sequence[Interaction]) -> None:
        """Send interactions as the producer does, keyed by user."""
        self.send(self.topic, [(i.user_id.encode(), orjson.dumps(i)) for i in interactions])

    def assert_published(self, interactions: Sequence[Interaction]) -> None:
        """Assert that the latest rows of the aggregated topic are those of exactly these interactions."""
        assert self.topic_tables() == reference_tables(interactions)

    def assert_everywhere(self, sent: Sequence[Interaction]) -> None:
        """Wait until the aggregated topic, the indices and the lake hold exactly these interactions."""
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(self.topic_tables(), expected))
        eventually(lambda: assert_equal(self.index_tables(), expected))
        self.assert_in_the_lake(sent)

    def assert_in_the_lake(self, sent: Sequence[Interaction]) -> None:
        """Wait until the lake holds each of these interactions once, and their aggregate tables."""
        expected = reference_tables(sent)
        eventually(lambda: assert_equal(self.lake_tables(), expected))
        rows = self.lake_rows(f"SELECT * FROM {EVENT.name}")
        assert Counter(map(_identity_of_row, rows)) == Counter(map(_identity, sent))

    def read(self, topic: str) -> list[Message]:
        """Read all committed records of a topic, ordered by partition and offset."""
        client = {"bootstrap.servers": self.kafka}
        messages = read_to_end(client, topic, group_id="tests")
        return sorted(messages, key=lambda message: (message.partition() or 0, message.offset() or 0))

    def interactions(self, ignore: Container[bytes] = ()) -> list[Interaction]:
        """Read and parse the interactions of the topic; values in `ignore` are skipped."""
        values = [message.value() or b"" for message in self.read(self.topic)]
        return [Interaction(**orjson.loads(value)) for value in values if value not in ignore]

    def lake_rows(self, query: str, *extra_tables: str) -> list[dict[str, Any]]:
        """Run an SQL query over the Delta tables of the contract and `extra_tables`."""
        lake = self.remote_lake or Lake(str(self.data / "warehouse"))
        builder = QueryBuilder()
        for table in (EVENT.name, *(table.name for table in TABLES), *extra_tables):
            builder = builder.register(table, lake.table(table))
        result = builder.execute(query).read_all()
        columns = {name: result[name].to_pylist() for name in result.column_names}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def lake_count(self) -> int:
        """Count the interactions in the lake; 0 before the table exists."""
        try:
            return int(self.lake_rows("SELECT count(*) AS n FROM interactions")[0]["n"])
        except TableNotFoundError:
            return 0

    def lake_tables(self) -> Tables:
        """Read the aggregate tables from the lake."""
        return {
            table.name: {
                table.row_id(row) or table.name: as_epoch_seconds(row)
                for row in self.lake_rows(f"SELECT * FROM {table.name}")
            }
            for table in TABLES
        }

    def topic_tables(self) -> Tables:
        """Read the latest row per key from the aggregated topic."""
        tables: Tables = {table.name: {} for table in TABLES}
        # A key that has moved to another partition has records in both.
        for message in sorted(self.read(self.settings.aggregated_topic), key=lambda m: m.timestamp()[1]):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            table = max((t.name for t in TABLES if key.decode().startswith(t.name)), key=len)
            row_id = key.decode()[len(table) + 1 :] or table
            if value is None:
                tables[table].pop(row_id, None)
            else:
                tables[table][row_id] = as_epoch_seconds(orjson.loads(value))
        return tables

    @property
    def elasticsearch(self) -> Elasticsearch:
        """A client of the Elasticsearch node."""
        return Elasticsearch([self.es_url])

    def index_tables(self) -> Tables:
        """Read the documents of the tables' indices."""
        return {
            table.name: {id_: as_epoch_seconds(source) for id_, source in self.documents(table.name).items()}
            for table in TABLES
        }

    def documents(self, index: str) -> dict[str, dict[str, Any]]:
        """Read all documents of an index, by id."""
        client = self.elasticsearch
        client.indices.refresh(index=index, ignore_unavailable=True)
        hits = helpers.scan(client, index=index, ignore_unavailable=True)
        return {hit["_id"]: hit["_source"] for hit in hits}

    def alerts(self) -> list[dict[str, Any]]:
        """Read the documents of the index `alerts`."""
        return list(self.documents("alerts").values())


def headers_of(message: Message) -> dict[str, str]:
    """Decode the headers of a record."""
    headers = message.headers() or []
    assert isinstance(headers, list)
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in headers}


def _identity(interaction: Interaction) -> tuple[object, ...]:
    """Return the values that identify an interaction; see `_identity_of_row`."""
    return interaction.user_id, interaction.item_id, interaction.interaction_type, interaction.timestamp


def _identity_of_row(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the values that identify a row of the lake, as `_identity` does."""
    return row["user_id"], row["item_id"], row["interaction_type"], int(row["timestamp"].timestamp())


def assert_equal(found: object, expected: object) -> None:
    """Assert equality, as an expression for a lambda."""
    assert found == expected


def assert_more_than(found: float, least: float) -> None:
    """Assert `found > least`, as an expression for a lambda."""
    assert found > least


def kill_9(executor: SimpleExecutor) -> None:
    """Kill a service and all its child processes with SIGKILL."""
    if executor.running():
        executor.kill(sig=signal.SIGKILL)


def kill_9_python_only(executor: HTTPExecutor) -> None:
    """Kill the Python process of a service with SIGKILL, and leave its child processes running."""
    assert executor.process is not None
    executor.process.send_signal(signal.SIGKILL)
    executor.process.wait()


def eventually(check: Callable[[], None], timeout: float = TIMEOUT) -> None:
    """Repeat `check` until its assertions hold; after `timeout` seconds raises the last AssertionError."""
    retry(
        retry=retry_if_exception_type(AssertionError),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(timeout),
        reraise=True,
    )(check)()


def row_record(table: str, row_id: str | None, row: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Build a record of the aggregated topic."""
    return (table if row_id is None else f"{table}-{row_id}").encode(), orjson.dumps(row)


def item_record(n: int, max_interactions: int) -> tuple[bytes, bytes]:
    """Build a record of the aggregated topic for `item_n`."""
    row = {
        "item_id": f"item_{n}",
        "min_interactions": 1,
        "max_interactions": max_interactions,
        "last_interaction": TIMESTAMP,
    }
    return row_record("agg_interactions_item", f"item_{n}", row)
