"""The mappings of the indices: explicit, and strict about fields that nobody declared."""

from collections.abc import Iterator
from typing import Any, Final

from contract.tables import AGGREGATE_TABLES
from elasticsearch_sink_alert import alerts

_SETTINGS: Final = {"number_of_shards": 1, "number_of_replicas": 0}

_ALERT_PROPERTIES: Final[dict[str, Any]] = {
    **{
        name: {"type": "keyword"}
        for name in ("rule", "alert_text", "severity", "index", "id", "field", "operator", "status")
    },
    # A rule may compare text: then there is no number to index, and the document keeps the text.
    "threshold": {"type": "double", "ignore_malformed": True},
    "value": {"type": "double", "ignore_malformed": True},
    "row": {"type": "object", "enabled": False},
    "fired_at": {"type": "date"},
    "resolved_at": {"type": "date"},
    "partition": {"type": "long"},
    "version": {"type": "long"},
}

_HISTORY_PROPERTIES: Final[dict[str, Any]] = {
    "index": {"type": "keyword"},
    "id": {"type": "keyword"},
    "samples": {"type": "object", "enabled": False},
}


def mappings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each index's name and its mapping."""
    for table in AGGREGATE_TABLES:
        properties = {column.name: {"type": column.type.value} for column in table.columns}
        yield table.name, {"dynamic": "strict", "properties": properties}
    for index in (alerts.INDEX, alerts.WAITING_INDEX):
        yield index, {"dynamic": "strict", "properties": _ALERT_PROPERTIES}
    yield alerts.HISTORIES_INDEX, {"dynamic": "strict", "properties": _HISTORY_PROPERTIES}


def template(index: str, mapping: dict[str, Any]) -> dict[str, Any]:
    """The composable index template for exactly this index."""
    return {"index_patterns": [index], "priority": 200, "template": {"settings": _SETTINGS, "mappings": mapping}}
