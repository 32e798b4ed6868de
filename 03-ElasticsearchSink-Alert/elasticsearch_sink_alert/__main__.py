"""Runs the sink: ``python -m elasticsearch_sink_alert``, or one of its commands (``--help``)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from runtime.logs import begin

    begin("elasticsearch_sink_alert")

import argparse
import gc
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from contract.topics import aggregated_topic, dead_letter_topic
from elasticsearch_sink_alert.alerting.change_windows import ChangeWindows
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.engine import DATA_MAPPER, AlertEngine
from elasticsearch_sink_alert.alerting.notifications import Notifications
from elasticsearch_sink_alert.alerting.store import AlertStore
from elasticsearch_sink_alert.cli import dead_letter_commands
from elasticsearch_sink_alert.cli.check import check
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, Serializer, send_with
from elasticsearch_sink_alert.indexing.cluster import Cluster, MappingError, NotElasticsearchError, connect
from elasticsearch_sink_alert.indexing.retrier import ELASTICSEARCH, Retrier
from elasticsearch_sink_alert.indexing.row_index import RowIndex
from elasticsearch_sink_alert.kafka.dead_letter_writer import DeadLetterWriter, UndeliverableError
from elasticsearch_sink_alert.kafka.group_consumer import KAFKA, GroupConsumer
from elasticsearch_sink_alert.settings import SinkSettings
from elasticsearch_sink_alert.sink import Sink
from runtime import health, logs, topic_admin
from runtime.addresses import shown
from runtime.broken_pipe import exit_status
from runtime.signals import StoppedError, stop_on_signal

if TYPE_CHECKING:
    from elasticsearch_sink_alert.tracing import RowTraces

logger = logging.getLogger("elasticsearch_sink_alert")

_DRAIN_SECONDS = 3.0
"""Time that notifications have to be sent once the sink stops."""


def main() -> int:
    """Run the command of the command line, and return its exit status."""
    args = _command_line().parse_args()
    settings = SinkSettings.load()
    try:
        status: int = args.run(settings, args)
    except KafkaException as error:
        logs.report(logger.name, logging.ERROR, f"Kafka at {settings.kafka_broker}: {error.args[0].str()}")
        return 1
    return status


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elasticsearch_sink_alert", description="Without a command, run the sink.")
    parser.set_defaults(run=lambda settings, _: run(settings))
    commands = parser.add_subparsers()
    checking = commands.add_parser("check", help="check the data mapper, and count the rows that each rule is true of")
    checking.add_argument("file", nargs="?", type=Path, help="the file (default: DATA_MAPPER)")
    checking.set_defaults(run=lambda settings, args: check(settings, args.file or settings.data_mapper))
    dead_letters = commands.add_parser("dead-letters", help="list or show dead letters, or replay the sink's own")
    actions = dead_letters.add_subparsers(required=True)
    listing = actions.add_parser("list", help="print one line for each dead letter")
    listing.set_defaults(run=lambda settings, args: dead_letter_commands.show_list(settings, args.reason))
    showing = actions.add_parser("show", help="print a dead letter in full")
    showing.add_argument("id", help="the id as listed")
    showing.set_defaults(run=lambda settings, args: dead_letter_commands.show_one(settings, args.id))
    replaying = actions.add_parser("replay", help="replay the sink's dead letters, once their reason is fixed")
    replaying.add_argument("--again", action="store_true", help="also those that were replayed before")
    replaying.set_defaults(
        run=lambda settings, args: dead_letter_commands.replay(settings, args.reason, again=args.again)
    )
    for each in (listing, replaying):
        each.add_argument("--reason", default="", help="only those whose reason contains this text")
    return parser


def run(settings: SinkSettings) -> int:
    """Run until stopped; returns 2 if the data mapper is invalid, 1 if the indices or topics are."""
    logs.configure(settings.log_level, settings.log_format, logger.name)
    try:
        rules = ReloadingRules(settings.data_mapper)
        notifications = Notifications.from_settings(settings)
    except (DataMapperError, ValueError) as error:
        logs.report(logger.name, logging.ERROR, str(error))
        return 2
    stop = stop_on_signal()
    state = health.Health(KAFKA, ELASTICSEARCH, DATA_MAPPER)
    state.ok(DATA_MAPPER)
    health.serve(state, settings.metrics_host, settings.sink_metrics_port, setting="SINK_METRICS_PORT")
    try:
        topic_admin.create_missing_topics(
            settings.kafka_client, stop, aggregated_topic(settings), dead_letter_topic(settings)
        )
        _run_sink(settings, rules, notifications, state, stop)
    except (MappingError, UndeliverableError, topic_admin.TopicError) as error:
        logger.error("%s", error)
        return 1
    except NotElasticsearchError as error:
        logger.error(
            "ES_HOST=%s is no Elasticsearch 7.14 to 7.17 (%s): set it to the URL of one", shown(settings.es_host), error
        )
        return 1
    except StoppedError:
        pass
    logger.info("stopped")
    return 0


def _run_sink(
    settings: SinkSettings,
    rules: ReloadingRules,
    notifications: Notifications,
    state: health.Health,
    stop: threading.Event,
) -> None:
    traces = _traces(settings)
    client = connect(settings, timeout=30, http_compress=False, serializer=Serializer())
    consumer = GroupConsumer(settings, state, stop)
    try:
        retrier = Retrier(state, consumer.sleep)
        cluster = Cluster(client)
        writer = BulkWriter(send_with(client), retrier, cluster.require_same)
        row_index = RowIndex(cluster, writer, retrier)
        row_index.prepare()
        windows, store = ChangeWindows(client, writer, retrier), AlertStore(client, writer, retrier)
        alert_engine = AlertEngine(rules, windows, store, notifications.notify, state)
        dead_letters = DeadLetterWriter(settings.kafka_client, settings.dead_letter_topic, consumer.sleep)
        logger.info(
            "ready: %s at %s, %d rules",
            settings.aggregated_topic,
            shown(settings.es_host),
            len(rules.current.all_rules),
        )
        # Objects that exist now live until the end, and those of a batch have no reference cycles to collect.
        gc.freeze()
        gc.set_threshold(100_000)
        consumer.subscribe(row_index.identity)
        Sink(consumer, row_index, alert_engine, dead_letters, traces).run(stop)
    finally:
        consumer.close()
        notifications.drain(_DRAIN_SECONDS)
        if traces is not None:
            traces.close()


def _traces(settings: SinkSettings) -> "RowTraces | None":
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    # Only traces need OpenTelemetry, which takes 0.2 s and 6 MB to import.
    from elasticsearch_sink_alert.tracing import RowTraces

    return RowTraces(settings.otel_exporter_otlp_endpoint, settings.aggregated_topic)


if __name__ == "__main__":
    sys.exit(exit_status(main))
