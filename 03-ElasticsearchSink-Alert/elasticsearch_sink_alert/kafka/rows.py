"""Turns records into rows: decodes keys and values, and keeps the latest row of each key."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from contract.dead_letters import truncated
from contract.declared import TABLES
from contract.fields import MAX_ID_BYTES
from contract.keys import RowKey, UnknownKeyError, decode_key
from contract.tables import shown_value
from elasticsearch_sink_alert.kafka.versions import VersionClock
from runtime import logs

_TABLES: Final = {table.name: table for table in TABLES}


@dataclass(slots=True)  # Not frozen: that takes five times as long to create.
class Record:
    """A Kafka record."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    replay_of: str | None = None
    """The id of the dead letter that this record replays, if any."""
    traceparent: str | None = None
    """The trace that this record belongs to, if any."""

    @property
    def coordinates(self) -> dict[str, object]:
        """The fields of a log line about this record."""
        return logs.coordinates(self.topic, self.partition, self.offset)


@dataclass(slots=True)
class Row:
    """A row of a table, as of one record."""

    key: RowKey
    fields: dict[str, Any] | None
    """None: the row is deleted (the record is a tombstone)."""
    version: int
    record: Record


class Rejected(NamedTuple):
    """A record that is not a row, or that Elasticsearch refuses, with the reason."""

    record: Record
    reason: str


class _InvalidRowError(ValueError):
    pass


def latest_rows(records: Iterable[Record], clock: VersionClock) -> tuple[list[Row], list[Rejected]]:
    """Return the latest row of each key among `records`, and the records that are not rows.

    Partitions may be mixed, and a key may be in two of them: partitions may have been added to the topic.
    """
    rows: dict[RowKey, Row] = {}
    rejected: list[Rejected] = []
    for record in records:
        version = clock.version(record.partition, record.timestamp_ms, record.offset)
        try:
            key = _decode_key(record.key)
            fields = None if record.value is None else _decode_value(key, record.value)
        except _InvalidRowError as error:
            rejected.append(Rejected(record, str(error)))
        else:
            known = rows.get(key)
            if known is None or known.version < version:
                rows[key] = Row(key, fields, version, record)
    return list(rows.values()), rejected


def _decode_key(key: bytes | None) -> RowKey:
    if key is None:
        raise _InvalidRowError("the record has no key")
    try:
        row_key = decode_key(key.decode())
    except UnicodeDecodeError:
        raise _InvalidRowError("the key is not UTF-8") from None
    except UnknownKeyError as error:
        raise _InvalidRowError(str(error)) from None
    if len(key) > MAX_ID_BYTES and len(row_key.id.encode()) > MAX_ID_BYTES:
        raise _InvalidRowError(f"the id is longer than the {MAX_ID_BYTES} bytes that Elasticsearch accepts")
    return row_key


def _decode_value(key: RowKey, value: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _InvalidRowError(f"the value is not JSON: {truncated(str(error))}") from None
    if not isinstance(fields, dict):
        raise _InvalidRowError("the value is not a JSON object")
    # The writer of JSON accepts less depth than the parser, and a column has a single value.
    if value.count(b"{") + value.count(b"[") > 1:
        _require_single_values(fields)
    table = _TABLES[key.table]
    if not table.key:
        return fields
    # Most keys are one text: nothing has to be encoded.
    if table.key.window is not None or len(table.key) > 1 or fields.get(table.key[0]) != key.id:
        problem = table.key_problem(fields, key.id)
        if problem:
            raise _InvalidRowError(problem)
    return fields


def _require_single_values(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, list | dict):
            raise _InvalidRowError(f"{truncated(name)!r} is {shown_value(value)}: expected a single value")
