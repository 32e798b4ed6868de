"""Runs the producer: ``python -m data_producer``."""

import logging
import signal
import sys
import threading
import time

from prometheus_client import Gauge

from data_producer.controls import PATH, Controls, Flow, application
from data_producer.generator import InteractionGenerator
from data_producer.pacing import Pacer
from data_producer.publisher import KAFKA_PART, Publisher, PublishError
from data_producer.settings import ProducerSettings
from runtime import health, logs, topics

logger = logging.getLogger("data_producer")

_LARGEST_BATCH = 5_000
_LONGEST_PAUSE = 0.5
_LAST_FLUSH = 8.0
"""Seconds: short of the ten that a container has to stop in."""


def main() -> int:
    """Send until stopped or until the limit; status 1 if anything accepted was not delivered."""
    settings = ProducerSettings.load()
    logs.configure(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    state = health.Health(KAFKA_PART)
    controls = Controls.of(settings)
    routes = {PATH: application(controls)} if settings.producer_controls else {}
    health.serve(state, settings.metrics_host, settings.producer_metrics_port, routes, setting="PRODUCER_METRICS_PORT")
    try:
        topics.ensure(settings.kafka_client, stop, topics.interactions_topic(settings))
        most = topics.max_message_bytes_once_reachable(settings.kafka_client, settings.kafka_topic, stop)
    except topics.TopicError as error:
        logger.error("%s", error)
        return 1
    except topics.StoppedError:
        return 0
    publisher = Publisher(settings.kafka_client, settings.kafka_topic, state, most)
    _register_metrics(publisher)
    logger.info("ready: sending to topic %s at %s", settings.kafka_topic, settings.kafka_broker)
    started = time.monotonic()
    try:
        _send(settings, controls, publisher, state, stop)
    except PublishError as error:
        logger.error("cannot go on: %s", error)
    publisher.flush(_LAST_FLUSH)
    seconds = time.monotonic() - started
    logger.info(
        "sent %d interactions in %.1f s (%.0f a second), %d refused, %d not acknowledged",
        publisher.delivered, seconds, publisher.delivered / seconds, publisher.refused, publisher.waiting,
    )  # fmt: skip
    return 0 if publisher.delivered == publisher.accepted else 1


def _send(
    settings: ProducerSettings, controls: Controls, publisher: Publisher, state: health.Health, stop: threading.Event
) -> None:
    flow = controls.flow
    generator, pacer = _generator(settings, flow), _pacer(flow)
    more = 0
    while not stop.is_set():
        if (wanted := controls.flow) != flow:
            before, flow = flow, wanted
            logger.info("from now on: %s", flow)
            if (flow.users, flow.items) != (before.users, before.items):
                generator = _generator(settings, flow)
            pacer = _pacer(flow)
        burst, malformed = controls.take_extras()
        more += burst
        if malformed:
            values = generator.malformed(malformed, timestamp=int(time.time()))
            publisher.publish_records([{"value": value} for value in values])
        due = 0 if flow.paused else pacer.due(time.monotonic()) if pacer else _LARGEST_BATCH
        size = min(due + more, _LARGEST_BATCH)
        if settings.producer_limit:
            size = min(size, settings.producer_limit - publisher.accepted)
            if publisher.accepted >= settings.producer_limit:
                return
        publisher.publish(generator.batch(size, timestamp=int(time.time())))
        if publisher.delivered:
            state.ok(KAFKA_PART)
        of_burst = min(size, more)
        more -= of_burst
        if pacer:
            pacer.taken(size - of_burst)
        if more:
            continue
        if flow.paused:
            stop.wait(_LONGEST_PAUSE)
        elif pacer:
            stop.wait(min(pacer.pause(time.monotonic()), _LONGEST_PAUSE))


def _generator(settings: ProducerSettings, flow: Flow) -> InteractionGenerator:
    return InteractionGenerator(flow.users, flow.items, skew=settings.random_data_skew, seed=settings.random_data_seed)


def _pacer(flow: Flow) -> Pacer | None:
    return Pacer(flow.rate, time.monotonic()) if flow.rate else None


def _register_metrics(publisher: Publisher) -> None:
    Gauge("producer_accepted_interactions", "Interactions handed to the Kafka client").set_function(
        lambda: publisher.accepted
    )
    Gauge("producer_delivered_interactions", "Interactions that the broker has acknowledged").set_function(
        lambda: publisher.delivered
    )
    Gauge("producer_refused_interactions", "Interactions that were given up").set_function(lambda: publisher.refused)


if __name__ == "__main__":
    sys.exit(main())
