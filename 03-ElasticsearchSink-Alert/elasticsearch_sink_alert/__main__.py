"""Runs the sink: ``python -m elasticsearch_sink_alert``, or one of its commands (``--help``)."""

import argparse
import gc
import logging
import signal
import sys
import threading
from pathlib import Path

from confluent_kafka import KafkaException

from elasticsearch_sink_alert.alerting.change_windows import Histories
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError, ReloadingRules
from elasticsearch_sink_alert.alerting.notifications import Notifications
from elasticsearch_sink_alert.alerting.store import AlertStore
from elasticsearch_sink_alert.cli import dead_letter_commands
from elasticsearch_sink_alert.cli.check import check
from elasticsearch_sink_alert.indexing import retrier
from elasticsearch_sink_alert.indexing.bulk import BulkWriter, Serializer
from elasticsearch_sink_alert.indexing.cluster import Cluster, MappingError, NotElasticsearchError, connect
from elasticsearch_sink_alert.indexing.retrier import Patience
from elasticsearch_sink_alert.kafka import group_consumer
from elasticsearch_sink_alert.kafka.dead_letter_writer import DeadLetterWriter, UndeliverableError
from elasticsearch_sink_alert.kafka.group_consumer import Membership, StoppedError
from elasticsearch_sink_alert.settings import SinkSettings
from elasticsearch_sink_alert.sink import DATA_MAPPER, Sink
from runtime import health, logs, topics

logger = logging.getLogger("elasticsearch_sink_alert")

_LAST_WORDS = 3.0
"""Seconds that notifications have once the sink stops."""


def main() -> int:
    """Do what the command line says; the exit status."""
    given = _command_line().parse_args()
    settings = SinkSettings.load()
    try:
        status: int = given.do(settings, given)
    except KafkaException as error:
        print(f"Kafka at {settings.kafka_broker}: {error.args[0].str()}", file=sys.stderr)
        return 1
    return status


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elasticsearch_sink_alert", description="Without a command, the sink runs.")
    parser.set_defaults(do=lambda settings, _: run(settings))
    commands = parser.add_subparsers()
    checking = commands.add_parser("check", help="is the data mapper right, and of how many rows is each rule true?")
    checking.add_argument("file", nargs="?", type=Path, help="the file; DATA_MAPPER where none is named")
    checking.set_defaults(do=lambda settings, given: check(settings, given.file or settings.data_mapper))
    aside = commands.add_parser("dead-letters", help="what was put aside, and the sink's own part of it sent again")
    doing = aside.add_subparsers(required=True)
    listing = doing.add_parser("list", help="a line for each letter")
    listing.set_defaults(do=lambda settings, given: dead_letter_commands.show_list(settings, given.reason))
    showing = doing.add_parser("show", help="one letter as it came")
    showing.add_argument("id", help="as in the list")
    showing.set_defaults(do=lambda settings, given: dead_letter_commands.show_one(settings, given.id))
    replaying = doing.add_parser("replay", help="send the sink's letters again, once their reason is mended")
    replaying.add_argument("--again", action="store_true", help="also those that were sent again before")
    replaying.set_defaults(
        do=lambda settings, given: dead_letter_commands.replay(settings, given.reason, again=given.again)
    )
    for each in (listing, replaying):
        each.add_argument("--reason", default="", help="only those with this text in their reason")
    return parser


def run(settings: SinkSettings) -> int:
    """Run until stopped; status 2 if the data mapper is wrong, 1 if the indices or topics are."""
    logs.configure(settings.log_level)
    try:
        mapper = ReloadingRules(settings.data_mapper)
        notifications = Notifications.from_settings(settings)
    except (DataMapperError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    state = health.Health(group_consumer.KAFKA, retrier.ELASTICSEARCH, DATA_MAPPER)
    state.ok(DATA_MAPPER)
    health.serve(state, settings.metrics_host, settings.sink_metrics_port, setting="SINK_METRICS_PORT")
    try:
        topics.ensure(
            settings.kafka_client, stop, topics.aggregated_topic(settings), topics.dead_letter_topic(settings)
        )
        _run(settings, mapper, notifications, state, stop)
    except (MappingError, UndeliverableError, topics.TopicError) as error:
        logger.error("%s", error)
        return 1
    except NotElasticsearchError as error:
        logger.error("ES_HOST=%s is no Elasticsearch 7.14 to 7.17 (%s): set it to one's URL", settings.es_host, error)
        return 1
    except (StoppedError, topics.StoppedError):
        pass
    logger.info("stopped")
    return 0


def _run(
    settings: SinkSettings,
    mapper: ReloadingRules,
    notifications: Notifications,
    state: health.Health,
    stop: threading.Event,
) -> None:
    client = connect(settings, timeout=30, http_compress=False, serializer=Serializer())
    member = Membership(settings, state, stop)
    try:
        patient = Patience(state, member.wait)
        cluster = Cluster(client)
        patient.call("preparing the indices", cluster.prepare)
        writer = BulkWriter(client, patient, cluster)
        dead_letters = DeadLetterWriter(settings.kafka_client, settings.dead_letter_topic, member.wait)
        logger.info(
            "ready: %s at %s, %d rules", settings.aggregated_topic, settings.es_host, len(mapper.current.all_rules)
        )
        # What is there now stays; what a batch makes is gone with it. Looking for cycles more often finds none.
        gc.freeze()
        gc.set_threshold(100_000)
        member.join(cluster.identity)
        store, histories = AlertStore(client, writer, patient), Histories(client, writer, patient)
        Sink(mapper, state, member, patient, cluster, writer, store, histories, dead_letters, notifications).run(stop)
    finally:
        member.leave()
        notifications.drain(_LAST_WORDS)


if __name__ == "__main__":
    sys.exit(main())
