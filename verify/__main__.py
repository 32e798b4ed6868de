"""Compares everything that the pipeline stores: ``python -m verify`` (``--help``)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
from confluent_kafka import KafkaException
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract.declared import EVENT, PIPELINE, TABLES
from runtime import topic_admin
from runtime.broken_pipe import exit_status
from verify.alerts import AlertComparison, Rule, read_rules
from verify.database import Database
from verify.lake import Cut, NotReadableError, Warehouse, create_views
from verify.recomputation import TableRows, UnknownMeasureError
from verify.report import Check, Report
from verify.rows import RowComparison
from verify.settings import VerifySettings
from verify.source import DeadLetters, SourceComparison
from verify.stores import AggregatedTopic, DeltaRows, IndexRows, Store, TopicRows
from verify.topic import TopicReader

_REMEDY = "start `make demo`, or set KAFKA_BROKER, ES_HOST and WAREHOUSE to those of a pipeline that runs"
_TIMEOUT = 60.0
"""Seconds of a request to Elasticsearch."""


def main() -> int:
    """Return 0 if there is no difference, 1 if there is one, 2 if something cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="verify",
        description="Compares topics, lake, tables, documents and alerts, without stopping the pipeline. Exit status: 0"
        " nothing differs, 1 something does, 2 something could not be compared.",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the report as JSON (- for standard output)"
    )
    parser.add_argument("--wait", type=float, default=60, metavar="SECONDS", help="for what is still on its way (60)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MB", help="limit of the database's memory (1024)")
    parser.add_argument("--temporary", type=Path, metavar="FOLDER", help="folder for what does not fit into it")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="differences shown of each comparison (10)")
    args = parser.parse_args()
    settings = VerifySettings.load()
    try:
        with Database(args.memory, args.temporary) as database:
            report = _verify_and_show(settings, database, args)
    except NotReadableError as error:
        return _failed(str(error))
    except UnknownMeasureError as error:
        return _failed(
            f"the declaration has a measure {error}, which verify/recomputation.py does not know: add it there"
        )
    except duckdb.Error as error:
        return _failed(
            f"the database: {error}: see --memory and --temporary; old files of the lake may be deleted, too"
        )
    except KafkaException as error:
        return _failed(f"Kafka at {settings.kafka_broker}: {error.args[0].str()}: {_REMEDY}")
    except ElasticsearchException as error:
        return _failed(f"Elasticsearch at {settings.es_host}: {error}: {_REMEDY}")
    return 0 if report.is_exact else 1


def _verify_and_show(settings: VerifySettings, database: Database, args: argparse.Namespace) -> Report:
    """Compare everything, and print each comparison when it is done."""
    is_json = args.json is not None and str(args.json) == "-"
    cut, checks = verify(settings, database, args.wait)
    report = Report(cut.version, cut.offsets)
    for check in checks:
        report.checks.append(check)
        if not is_json:
            print("\n".join(check.lines(args.show)), flush=True)
    print(report.to_json() if is_json else report.verdict)
    if args.json is not None and not is_json:
        args.json.write_text(report.to_json() + "\n")
    return report


def _failed(reason: str) -> int:
    print(f"cannot compare: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def verify(settings: VerifySettings, database: Database, wait: float) -> tuple[Cut, Iterator[Check]]:
    """Return the cut, and compare everything as the checks are taken.

    What is still on its way has `wait` seconds to arrive.
    """
    warehouse = Warehouse(settings.warehouse)
    rules = read_rules(settings.rules, TABLES)
    cut = warehouse.cut(EVENT, settings.kafka_topic)
    _require_same_topic(settings, cut)
    create_views(database, warehouse, EVENT, cut)
    return cut, _checks(settings, database, warehouse, rules, cut, wait)


def _checks(
    settings: VerifySettings, database: Database, warehouse: Warehouse, rules: list[Rule], cut: Cut, wait: float
) -> Iterator[Check]:
    client = settings.kafka_client
    with (
        Elasticsearch(settings.es_hosts, timeout=_TIMEOUT, max_retries=3, **settings.es_client) as elasticsearch,
        TopicReader(client, settings.kafka_topic) as events,
        TopicReader(client, settings.dead_letter_topic) as dead_letters,
        TopicReader(client, settings.aggregated_topic) as aggregated,
    ):
        source = SourceComparison(database, events, EVENT, PIPELINE.keys, cut)
        letters = DeadLetters(database, dead_letters)
        yield source.lake()
        yield source.dead_letters(letters, wait)
        topic = AggregatedTopic(database, aggregated)
        pairs: list[tuple[TableRows, Store]] = []
        for table in TABLES:
            rows = TableRows(database, table, EVENT, cut.version)
            pairs += [
                (rows, TopicRows(database, table, topic)),
                (rows, DeltaRows(database, table, warehouse)),
                (rows, IndexRows(database, table, elasticsearch, topic, letters)),
            ]
        yield from RowComparison(database, warehouse, EVENT, cut, wait).run(pairs)
        indices = [store for _, store in pairs if isinstance(store, IndexRows)]
        yield AlertComparison(database, elasticsearch, rules, wait).run(indices)


def _require_same_topic(settings: VerifySettings, cut: Cut) -> None:
    """Raise `NotReadableError` if the lake was made of a topic of another Kafka, or of a deleted one."""
    topic_id = topic_admin.topic_id(settings.kafka_client | {"log_level": 0}, settings.kafka_topic)
    if cut.topic_id not in (None, topic_id):
        raise NotReadableError(
            f"{settings.warehouse} was made of another topic {settings.kafka_topic} than that of Kafka at"
            f" {settings.kafka_broker}: set KAFKA_BROKER and WAREHOUSE to those of one pipeline, unless the topic was"
            " recreated"
        )


if __name__ == "__main__":
    sys.exit(exit_status(main))
