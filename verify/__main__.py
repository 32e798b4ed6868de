"""Compares everything that the pipeline stores: ``python -m verify`` (``--help``)."""

from runtime.signals import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()

import argparse
import sys
from pathlib import Path

import duckdb
from confluent_kafka import KafkaException
from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract.declared import EVENT, PIPELINE, TABLES
from runtime.broken_pipe import exit_status
from verify.alerts import AlertComparison, read_rules
from verify.database import Database
from verify.lake import NotReadableError, Warehouse, create_views
from verify.recomputation import TableRows, UnknownMeasureError
from verify.report import Report
from verify.rows import RowComparison
from verify.settings import VerifySettings
from verify.source import DeadLetters, SourceComparison
from verify.stores import AggregatedTopic, DeltaRows, IndexRows, Store, TopicRows
from verify.topic import TopicReader

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
            report = verify(settings, database, args.wait)
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
        return _failed(f"Kafka at {settings.kafka_broker}: {error.args[0].str()}")
    except ElasticsearchException as error:
        return _failed(f"Elasticsearch at {settings.es_host}: {error}")
    if args.json is not None and str(args.json) == "-":
        print(report.to_json())
    else:
        print("\n".join(report.lines(args.show)))
        if args.json is not None:
            args.json.write_text(report.to_json() + "\n")
    return 0 if report.is_exact else 1


def _failed(reason: str) -> int:
    print(f"cannot compare: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def verify(settings: VerifySettings, database: Database, wait: float) -> Report:
    """Compare everything; what is still on its way has `wait` seconds to arrive."""
    warehouse = Warehouse(settings.warehouse)
    rules = read_rules(settings.data_mapper, TABLES)
    cut = warehouse.cut(EVENT, settings.kafka_topic)
    create_views(database, warehouse, EVENT, cut)
    client = settings.kafka_client
    with (
        Elasticsearch(settings.es_hosts, timeout=_TIMEOUT, max_retries=3, **settings.es_client) as elasticsearch,
        TopicReader(client, settings.kafka_topic) as events,
        TopicReader(client, settings.dead_letter_topic) as dead_letters,
        TopicReader(client, settings.aggregated_topic) as aggregated,
    ):
        source = SourceComparison(database, events, EVENT, PIPELINE.keys, cut)
        letters = DeadLetters(database, dead_letters)
        checks = [source.lake(), source.dead_letters(letters, wait)]
        topic = AggregatedTopic(database, aggregated)
        pairs: list[tuple[TableRows, Store]] = []
        for table in TABLES:
            rows = TableRows(database, table, EVENT, cut.version)
            pairs += [
                (rows, TopicRows(database, table, topic)),
                (rows, DeltaRows(database, table, warehouse)),
                (rows, IndexRows(database, table, elasticsearch, topic, letters)),
            ]
        checks += RowComparison(database, warehouse, EVENT, cut, wait).run(pairs)
        indices = [store for _, store in pairs if isinstance(store, IndexRows)]
        checks.append(AlertComparison(database, elasticsearch, rules, wait).run(indices))
    return Report(cut.version, cut.offsets, checks)


if __name__ == "__main__":
    sys.exit(exit_status(main))
