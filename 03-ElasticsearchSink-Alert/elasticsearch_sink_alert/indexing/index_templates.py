"""Declares the indices: explicit mappings, which refuse undeclared fields."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from contract.alerts import FIELDS, FieldType
from contract.declared import TABLES
from elasticsearch_sink_alert.alerting import alert_lifecycle

PRIORITY: Final = 200
"""Priority of the index templates, unless a template of others matches the same indices."""

_ALIAS_SUFFIX: Final = "-sink"
_SETTINGS: Final = {"number_of_shards": 1, "number_of_replicas": 0}

_ALERT_MAPPINGS: Final[dict[FieldType, dict[str, Any]]] = {
    FieldType.KEYWORD: {"type": "keyword"},
    FieldType.NUMBER_OR_TEXT: {"type": "double", "ignore_malformed": True},
    FieldType.OBJECT: {"type": "object", "enabled": False},
    FieldType.DATE: {"type": "date"},
    FieldType.LONG: {"type": "long"},
}

_ALERT_PROPERTIES: Final = {name: _ALERT_MAPPINGS[type_] for name, type_ in FIELDS.items()}

_CHANGE_WINDOW_PROPERTIES: Final[dict[str, Any]] = {
    "index": {"type": "keyword"},
    "id": {"type": "keyword"},
    "samples": {"type": "object", "enabled": False},
}


def mappings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the mapping of each index."""
    for table in TABLES:
        properties = {column.name: {"type": column.type.index_type} for column in table.columns}
        yield table.name, {"dynamic": "strict", "properties": properties}
    for index in (alert_lifecycle.INDEX, alert_lifecycle.WAITING_INDEX):
        yield index, {"dynamic": "strict", "properties": _ALERT_PROPERTIES}
    yield alert_lifecycle.CHANGE_WINDOWS_INDEX, {"dynamic": "strict", "properties": _CHANGE_WINDOW_PROPERTIES}


def template(index: str, mapping: Mapping[str, Any], priority: int = PRIORITY) -> dict[str, Any]:
    """Return the composable index template for exactly this index."""
    return {"index_patterns": [index], "priority": priority, "template": {"settings": _SETTINGS, "mappings": mapping}}


def index_body(index: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request that creates this index."""
    alias = {write_alias(index): {"is_write_index": True, "is_hidden": True}}
    return {"settings": _SETTINGS, "mappings": mapping, "aliases": alias}


def write_alias(index: str) -> str:
    """Return the alias through which documents are written to this index.

    It is deleted with the index, and no write creates an alias: a write after the index was deleted fails, instead of
    creating an index without a mapping and with the latest rows only.
    """
    return index + _ALIAS_SUFFIX


def index_of(alias: str) -> str:
    """Return the index of a write alias."""
    return alias.removesuffix(_ALIAS_SUFFIX)
