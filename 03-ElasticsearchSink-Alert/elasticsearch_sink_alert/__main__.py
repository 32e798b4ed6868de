"""Runs the sink: ``python -m elasticsearch_sink_alert``, or checks its rules: ``… check [FILE]``."""

import argparse
import gc
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch

from contract import health, logs, topics
from elasticsearch_sink_alert import membership, patience
from elasticsearch_sink_alert.bulk import BulkWriter, Serializer
from elasticsearch_sink_alert.check import check
from elasticsearch_sink_alert.cluster import Cluster, MappingError
from elasticsearch_sink_alert.data_mapper import DataMapperError, Watched
from elasticsearch_sink_alert.dead_letter_writer import DeadLetterWriter, UndeliverableError
from elasticsearch_sink_alert.membership import Membership, StoppedError
from elasticsearch_sink_alert.patience import Patience
from elasticsearch_sink_alert.settings import SinkSettings
from elasticsearch_sink_alert.sink import DATA_MAPPER, Sink
from elasticsearch_sink_alert.store import AlertStore

logger = logging.getLogger("elasticsearch_sink_alert")


def main() -> int:
    """Run what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="elasticsearch_sink_alert", description="Without a command, the sink runs.")
    commands = parser.add_subparsers(dest="command")
    checking = commands.add_parser("check", help="is the data mapper right, and what would each rule do now?")
    checking.add_argument("file", nargs="?", type=Path, help="the file; DATA_MAPPER where none is named")
    given = parser.parse_args()
    settings = SinkSettings.load()
    if given.command == "check":
        return check(settings, given.file or settings.data_mapper)
    return run(settings)


def run(settings: SinkSettings) -> int:
    """Run until stopped; status 2 if the data mapper is wrong, 1 if the indices or topics are."""
    logs.configure(settings.log_level)
    try:
        mapper = Watched(settings.data_mapper)
    except DataMapperError as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    state = health.Health(membership.KAFKA, patience.ELASTICSEARCH, DATA_MAPPER)
    state.ok(DATA_MAPPER)
    health.serve(state, settings.metrics_host, settings.sink_metrics_port)
    try:
        topics.ensure(
            settings.kafka_client, stop, topics.aggregated_topic(settings), topics.dead_letter_topic(settings)
        )
        _run(settings, mapper, state, stop)
    except (MappingError, UndeliverableError) as error:
        logger.error("%s", error)
        return 1
    except (StoppedError, topics.StoppedError):
        pass
    logger.info("stopped")
    return 0


def _run(settings: SinkSettings, mapper: Watched, state: health.Health, stop: threading.Event) -> None:
    # Retries are Patience's; the client has none of its own.
    options: dict[str, Any] = {"timeout": 30, "max_retries": 0, "http_compress": False, "serializer": Serializer()}
    client = Elasticsearch(settings.es_hosts, **options, **settings.es_client)
    member = Membership(settings, state, stop)
    try:
        patient = Patience(state, member.wait)
        cluster = Cluster(client)
        patient.call("preparing the indices", cluster.prepare)
        writer = BulkWriter(client, patient, cluster)
        dead_letters = DeadLetterWriter(settings.kafka_client, settings.dead_letter_topic, member.wait)
        logger.info("ready: %s at %s, %d rules", settings.aggregated_topic, settings.es_host, len(mapper.now.all_rules))
        # What is there now stays; what a batch makes is gone with it. Looking for cycles more often finds none.
        gc.freeze()
        gc.set_threshold(100_000)
        member.join(cluster.uuid)
        Sink(mapper, state, member, patient, cluster, writer, AlertStore(client, writer), dead_letters).run(stop)
    finally:
        member.leave()


if __name__ == "__main__":
    sys.exit(main())
