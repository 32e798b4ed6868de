"""The servers and services of a benchmark, on free ports and in a folder of its own."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from mirakuru import HTTPExecutor

from contract.topics import Topic
from local_stack import servers, services
from local_stack.services import Service
from runtime import topic_admin
from runtime.settings import Settings


@dataclass(frozen=True)
class Stack:
    """Running servers."""

    kafka: str
    es_host: str
    data: Path

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Create a topic of a benchmark's own."""
        client = Settings(kafka_broker=self.kafka).kafka_client
        topic_admin.create_missing_topics(client, threading.Event(), Topic(name, partitions, 1))

    def settings(self, topic: str) -> dict[str, str]:
        """What a service over `topic` is told."""
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
        """The environment of a process of the benchmark's own that is told the same."""
        return {**os.environ, **services.environment(self.data / topic), **self.settings(topic)}

    @contextmanager
    def service(self, service: Service, topic: str, **settings: object) -> Iterator[HTTPExecutor]:
        """A service over `topic`, from its readiness to its end."""
        told = self.settings(topic) | {name: str(value) for name, value in settings.items()}
        with services.run(service, self.data / topic, told, port=servers.free_port()) as executor:
            yield executor

    def send(self, topic: str, interactions: int, **settings: object) -> float:
        """Send so many interactions as fast as it goes; the seconds that it took."""
        told = self.settings(topic) | {"PRODUCER_RATE": "0", "PRODUCER_LIMIT": str(interactions)}
        began = monotonic()
        services.run_to_end(services.PRODUCER, self.data / topic, told | {k: str(v) for k, v in settings.items()})
        return monotonic() - began


@contextmanager
def running(data: Path) -> Iterator[Stack]:
    """Kafka and Elasticsearch, running."""
    kafka_port, es_port = servers.free_port(), servers.free_port()
    with servers.kafka(data, kafka_port), servers.elasticsearch(data, es_port):
        yield Stack(f"{servers.HOST}:{kafka_port}", f"http://{servers.HOST}:{es_port}", data)
