"""Says whether a data mapper is right, and what each of its rules would do about the rows that are indexed now."""

import sys
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract.tables import ColumnType, table_named
from elasticsearch_sink_alert.alerting import alerts, data_mapper
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError
from elasticsearch_sink_alert.alerting.rules import Rule, parse_time
from elasticsearch_sink_alert.indexing.answers import describe
from elasticsearch_sink_alert.indexing.cluster import NotElasticsearchError, connect
from elasticsearch_sink_alert.settings import SinkSettings

_RANGES: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_EXAMPLES: Final = 3


def check(settings: SinkSettings, file: Path) -> int:
    """Print it; status 2 where the file is wrong, 1 where Elasticsearch cannot be asked."""
    try:
        mapper = data_mapper.load(file)
    except DataMapperError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{file} is right: {len(mapper.all_rules)} rules")
    try:
        client = connect(settings, timeout=10)
        for rule in mapper.all_rules:
            print(_told(client, rule))
    except (ElasticsearchException, NotElasticsearchError) as error:
        print(
            f"what the rules would do is not known: Elasticsearch at {settings.es_host} cannot be asked"
            f" ({describe(error)}); where it has another address, set ES_HOST",
            file=sys.stderr,
        )
        return 1
    return 0


def _told(client: Elasticsearch, rule: Rule) -> str:
    firing: dict[str, Any] = {"filter": [{"term": {"rule": rule.name}}, {"term": {"status": "firing"}}]}
    now = client.count(index=alerts.INDEX, body={"query": {"bool": firing}}, ignore_unavailable=True)["count"]
    if rule.within:
        return f"{rule.name} [{rule.severity}]: it is about changes, which rows do not tell; {now} alerts firing"
    answer = client.search(
        index=rule.table,
        query=query(rule),
        track_total_hits=True,
        size=_EXAMPLES,
        # The types of the client know names alone here.
        sort=[{rule.field: "asc" if rule.operator.startswith("<") else "desc"}],  # type: ignore[list-item]
        _source=[rule.field],
        ignore_unavailable=True,
    )
    if not answer["_shards"]["total"]:
        return f"{rule.name} [{rule.severity}]: not known, index {rule.table} is missing or closed; {now} alerts firing"
    found = answer["hits"]
    examples = ", ".join(f"{hit['_id']} ({hit['_source'][rule.field]})" for hit in found["hits"])
    true = f"true of {found['total']['value']} rows" + (f", such as {examples}" if examples else "")
    return f"{rule.name} [{rule.severity}]: {true}; {now} alerts firing"


def query(rule: Rule) -> dict[str, Any]:
    """The rows of the rule's index that it is true of, for a query of Elasticsearch's."""
    wanted: dict[str, Any] = {"exists": {"field": rule.field}}
    unwanted: list[dict[str, Any]] = []
    threshold = rule.threshold
    if rule.column_type is ColumnType.DATE:
        # Python knows more forms of ISO 8601 than Elasticsearch.
        threshold = parse_time(str(threshold)).astimezone(UTC).isoformat()
    if rule.operator in _RANGES:
        wanted = {"range": {rule.field: {_RANGES[rule.operator]: threshold}}}
    elif rule.operator == "==":
        wanted = {"term": {rule.field: threshold}}
    else:
        unwanted.append({"term": {rule.field: threshold}})
    if key := table_named(rule.table).key:
        patterns = [pattern for pattern in rule.silence if "*" in pattern or "?" in pattern]
        unwanted += [{"wildcard": {key: pattern.replace("\\", "\\\\")}} for pattern in patterns]
        if ids := [each for each in rule.silence if each not in patterns]:
            unwanted.append({"terms": {key: ids}})
    return {"bool": {"filter": [wanted], "must_not": unwanted}}
