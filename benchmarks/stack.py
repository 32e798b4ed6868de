"""The servers and services of a benchmark, on free ports and in a folder of its own."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from mirakuru import HTTPExecutor

from contract.topics import Topic
from local_stack import servers, services
from local_stack.services import Service
from runtime import topic_admin
from runtime.settings import Settings
from runtime.topic_reader import offset_ranges


@dataclass(frozen=True)
class Stack:
    """Running servers, and the services that a benchmark starts over them."""

    kafka: str
    es_host: str
    data: Path

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Create a topic that only this benchmark uses."""
        self.create(Topic(name, partitions, 1))

    def create(self, *topics: Topic) -> None:
        """Create topics as they are declared."""
        topic_admin.create_missing_topics(self._client, threading.Event(), *topics)

    def delete_topics(self, prefix: str) -> None:
        """Delete the topics whose names start like this, which frees their disk space a minute later."""
        admin = AdminClient({**self._client})
        names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(prefix)]
        for deleted in admin.delete_topics(names).values():
            deleted.result()

    def size(self, topic: str) -> int:
        """Return the number of records of a topic that nothing was deleted from."""
        with closing(Consumer(self._client | {"group.id": "benchmarks"})) as consumer:
            return sum(end - start for start, end in offset_ranges(consumer, topic, timeout=30.0).values())

    @property
    def _client(self) -> dict[str, str | int]:
        return dict(Settings(kafka_broker=self.kafka).kafka_client)

    def settings(self, topic: str) -> dict[str, str]:
        """Return the settings of a service that uses `topic`."""
        return {
            "KAFKA_BROKER": self.kafka,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP_ID": topic,
            "ES_HOST": self.es_host,
            "RANDOM_DATA_MAX_USERS": "1000",
            "RANDOM_DATA_MAX_ITEMS": "1000",
            "LOOP_SLEEP": "0.5",
        }

    def environment(self, topic: str) -> dict[str, str]:
        """Return the environment of another process with the same settings."""
        return {**os.environ, **services.environment(self.data / topic), **self.settings(topic)}

    @contextmanager
    def service(self, service: Service, topic: str, **settings: object) -> Iterator[HTTPExecutor]:
        """Run a service that uses `topic` during the `with` block, which starts when it is ready."""
        variables = self.settings(topic) | {name: str(value) for name, value in settings.items()}
        with services.run(service, self.data / topic, variables, port=servers.free_port()) as executor:
            yield executor

    def send(self, topic: str, interactions: int, **settings: object) -> float:
        """Send interactions as fast as possible; returns the seconds that it took."""
        variables = self.settings(topic) | {"PRODUCER_RATE": "0", "PRODUCER_LIMIT": str(interactions)}
        variables |= {name: str(value) for name, value in settings.items()}
        started_at = monotonic()
        services.run_to_end(services.PRODUCER, self.data / topic, variables)
        return monotonic() - started_at


@contextmanager
def running(data: Path) -> Iterator[Stack]:
    """Run Kafka and Elasticsearch during the `with` block."""
    kafka_port, es_port = servers.free_port(), servers.free_port()
    with servers.kafka(data, kafka_port), servers.elasticsearch(data, es_port):
        yield Stack(f"{servers.HOST}:{kafka_port}", f"http://{servers.HOST}:{es_port}", data)
