"""Runs the producer: ``python -m data_producer``."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from runtime.logs import begin

    begin("data_producer")

import argparse
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from contract.topics import interactions_topic
from data_producer import metrics
from data_producer.controls import PATH, Controls, application, disabled
from data_producer.errors import ReplayError
from data_producer.publisher import FLUSH_TIMEOUT, KAFKA, Publisher, PublishError
from data_producer.sender import Sender
from data_producer.settings import ProducerSettings
from runtime import health, logs, topic_admin
from runtime.broken_pipe import exit_status
from runtime.signals import StoppedError, stop_on_signal

if TYPE_CHECKING:
    from data_producer.tracing import SendTraces

logger = logging.getLogger("data_producer")


def main() -> int:
    """Send until stopped, until the limit, or to the end of the recording; return 1 if anything was not delivered."""
    argparse.ArgumentParser(prog="data_producer", description="Sends interactions until it is stopped.").parse_args()
    settings = ProducerSettings.load()
    logs.configure(settings.log_level, settings.log_format, logger.name)
    stop = stop_on_signal()
    state = health.Health(KAFKA)
    controls = Controls.of(settings)
    routes = {PATH: application(controls) if settings.producer_controls else disabled}
    health.serve(state, settings.metrics_host, settings.producer_metrics_port, routes, setting="PRODUCER_METRICS_PORT")
    traces = _traces(settings)
    try:
        publisher = _connect(settings, state, stop, traces)
    except topic_admin.TopicError as error:
        logger.error("%s", error)
        return 1
    except StoppedError:
        return 0
    metrics.follow(publisher)
    logger.info("ready: sending to topic %s at %s", settings.kafka_topic, settings.kafka_broker)
    started = time.monotonic()
    has_failed = False
    try:
        if settings.producer_source is None:
            Sender(settings, controls, publisher, state).run(stop)
        else:
            # Only a replay needs DuckDB, which takes memory and a moment to import.
            from data_producer.replay import replay

            replay(settings, settings.producer_source, controls, publisher, state, stop)
    except PublishError as error:
        logger.error("the Kafka client has failed: %s", error)
    except ReplayError as error:
        logger.error("%s", error)
        has_failed = True
    if settings.producer_source is None:
        # A replay has done so, as its position follows from it.
        publisher.flush(FLUSH_TIMEOUT)
    if traces is not None:
        traces.close()
    seconds = time.monotonic() - started
    logger.info(
        "sent %d interactions in %.1f s (%.0f a second), %d refused, %d not acknowledged",
        publisher.delivered, seconds, publisher.delivered / seconds, publisher.refused, publisher.waiting,
    )  # fmt: skip
    return 0 if publisher.delivered == publisher.accepted and not has_failed else 1


def _traces(settings: ProducerSettings) -> "SendTraces | None":
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    # Only traces need OpenTelemetry, which takes 0.2 s and 6 MB to import.
    from data_producer.tracing import SendTraces

    return SendTraces(settings.otel_exporter_otlp_endpoint, settings.otel_traces_sampler_arg, settings.kafka_topic)


def _connect(
    settings: ProducerSettings, state: health.Health, stop: threading.Event, traces: "SendTraces | None"
) -> Publisher:
    """Create the topic if it is missing, and a publisher within its limits."""
    topic_admin.create_missing_topics(settings.kafka_client, stop, interactions_topic(settings))
    limit = topic_admin.wait_for_max_message_bytes(
        settings.kafka_client, settings.kafka_topic, topic_admin.interruptible_sleep(stop)
    )
    return Publisher(settings.kafka_client, settings.kafka_topic, state, limit, traces)


if __name__ == "__main__":
    sys.exit(exit_status(main))
