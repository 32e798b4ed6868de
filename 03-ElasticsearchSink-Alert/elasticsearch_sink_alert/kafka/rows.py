"""From records to rows: decodes keys and values, and keeps the latest row of each key."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from contract.dead_letters import truncated
from contract.interaction import MAX_ID_BYTES
from contract.keys import RowKey, UnknownKeyError, decode_key
from contract.tables import table_named
from elasticsearch_sink_alert.kafka.versions import VersionClock


class Record(NamedTuple):
    """A Kafka record."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    replay_of: str | None = None
    """The dead letter that this was, if it was sent again."""


class Row(NamedTuple):
    """A row of a table, as of one record."""

    key: RowKey
    fields: dict[str, Any] | None
    """None: the row is gone (the record was a tombstone)."""
    version: int
    record: Record


class Rejected(NamedTuple):
    """A record that is no row, or that Elasticsearch refuses, and why."""

    record: Record
    reason: str


class _NoRowError(ValueError):
    pass


def latest_rows(records: Iterable[Record], clock: VersionClock) -> tuple[list[Row], list[Rejected]]:
    """The latest row of each key among `records`, and the records that are no rows.

    Partitions come in any order, and a key may be in two: the topic may have been given more of them.
    """
    rows: dict[RowKey, Row] = {}
    rejected: list[Rejected] = []
    for record in records:
        version = clock.version(record.partition, record.timestamp_ms, record.offset)
        try:
            key = _decode_key(record.key)
            fields = None if record.value is None else _decode_value(key, record.value)
        except _NoRowError as error:
            rejected.append(Rejected(record, str(error)))
        else:
            known = rows.get(key)
            if known is None or known.version < version:
                rows[key] = Row(key, fields, version, record)
    return list(rows.values()), rejected


def _decode_key(key: bytes | None) -> RowKey:
    if key is None:
        raise _NoRowError("the record has no key")
    try:
        row_key = decode_key(key.decode())
    except UnicodeDecodeError:
        raise _NoRowError("the key is not UTF-8") from None
    except UnknownKeyError as error:
        raise _NoRowError(str(error)) from None
    if len(key) > MAX_ID_BYTES and len(row_key.id.encode()) > MAX_ID_BYTES:
        raise _NoRowError(f"the id is longer than the {MAX_ID_BYTES} bytes that Elasticsearch takes")
    return row_key


def _decode_value(key: RowKey, value: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _NoRowError(f"the value is not JSON: {truncated(str(error))}") from None
    if not isinstance(fields, dict):
        raise _NoRowError("the value is not a JSON object")
    id_field = table_named(key.table).key
    if id_field is not None and fields.get(id_field) != key.id:
        raise _NoRowError(f"{id_field} is {_shown(fields.get(id_field))}, but the key says {truncated(key.id)!r}")
    return fields


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    return repr(truncated(value)) if isinstance(value, str) else repr(value)
