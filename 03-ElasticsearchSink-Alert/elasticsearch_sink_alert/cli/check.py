"""Checks a data mapper, and counts the indexed rows that each of its rules is true of."""

import sys
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from elasticsearch import Elasticsearch
from elasticsearch.exceptions import ElasticsearchException

from contract.alerts import FIRING
from contract.declared import table_named
from contract.fields import ColumnType
from elasticsearch_sink_alert.alerting import alert_lifecycle, data_mapper
from elasticsearch_sink_alert.alerting.data_mapper import DataMapperError
from elasticsearch_sink_alert.alerting.rules import Rule, parse_time
from elasticsearch_sink_alert.indexing.cluster import NotElasticsearchError, connect
from elasticsearch_sink_alert.indexing.errors import describe_exception
from elasticsearch_sink_alert.settings import SinkSettings
from runtime.addresses import shown
from runtime.logs import escape_controls

_RANGES: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_EXAMPLES: Final = 3


def check(settings: SinkSettings, file: Path) -> int:
    """Print the result; returns 2 if the file is invalid, 1 if Elasticsearch cannot be queried."""
    try:
        mapper = data_mapper.load(file)
    except DataMapperError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{file} is valid: {len(mapper.all_rules)} rules")
    try:
        client = connect(settings, timeout=10)
        for rule in mapper.all_rules:
            print(escape_controls(_report(client, rule)))
    except (ElasticsearchException, NotElasticsearchError) as error:
        print(
            f"the rows cannot be counted: Elasticsearch at {shown(settings.es_host)} cannot be queried"
            f" ({escape_controls(describe_exception(error))}); if it has another address, set ES_HOST",
            file=sys.stderr,
        )
        return 1
    return 0


def _report(client: Elasticsearch, rule: Rule) -> str:
    firing: dict[str, Any] = {"filter": [{"term": {"rule": rule.name}}, {"term": {"status": FIRING}}]}
    now = client.count(index=alert_lifecycle.INDEX, body={"query": {"bool": firing}}, ignore_unavailable=True)["count"]
    head, tail = f"{rule.name} [{rule.severity}]", f"{now} alerts firing"
    if rule.within:
        return f"{head}: about a change, which rows do not show; {tail}"
    response = client.search(
        index=rule.table,
        query=query(rule),
        track_total_hits=True,
        size=_EXAMPLES,
        # The client's types allow only names here.
        sort=[{rule.field: "asc" if rule.operator.startswith("<") else "desc"}],  # type: ignore[list-item]
        _source=[rule.field],
        ignore_unavailable=True,
    )
    if not response["_shards"]["total"]:
        return f"{head}: not known, index {rule.table} is missing or closed; {tail}"
    found = response["hits"]
    examples = ", ".join(f"{hit['_id']} ({hit['_source'][rule.field]})" for hit in found["hits"])
    true = f"true of {found['total']['value']} rows" + (f", such as {examples}" if examples else "")
    return f"{head}: {true}; {tail}"


def query(rule: Rule) -> dict[str, Any]:
    """Return the Elasticsearch query for the rows that the rule is true of."""
    condition: dict[str, Any] = {"exists": {"field": rule.field}}
    exclusions: list[dict[str, Any]] = []
    threshold = rule.threshold
    if rule.column_type is ColumnType.DATE:
        # Python accepts more forms of ISO 8601 than Elasticsearch.
        threshold = parse_time(str(threshold)).astimezone(UTC).isoformat()
    if rule.operator in _RANGES:
        condition = {"range": {rule.field: {_RANGES[rule.operator]: threshold}}}
    elif rule.operator == "==":
        condition = {"term": {rule.field: threshold}}
    else:
        exclusions.append({"term": {rule.field: threshold}})
    key = table_named(rule.table).key
    patterns = [pattern for pattern in rule.silence if "*" in pattern or "?" in pattern]
    if len(key) == 1 and key.window is None:
        exclusions += [{"wildcard": {key[0]: pattern.replace("\\", "\\\\")}} for pattern in patterns]
    # A pattern needs a field of texts, which the id of several columns or of a window is not: such rows are counted.
    if ids := [each for each in rule.silence if each not in patterns]:
        exclusions.append({"ids": {"values": ids}})
    return {"bool": {"filter": [condition], "must_not": exclusions}}
