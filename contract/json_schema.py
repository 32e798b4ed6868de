"""Derives JSON Schemas of the messages from a declaration: the event's, and that of each table's rows.

Not expressible there: lengths in bytes of UTF-8, the decimal places of a decimal, and whether a day exists.
"""

from typing import Any, Final

from contract.event import Event
from contract.fields import MAX_TIMESTAMP, MIN_TIMESTAMP, ColumnType, Field, FieldType
from contract.pipeline import Pipeline
from contract.tables import Column, Table

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TIME: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})$"

Schema = dict[str, Any]


def schemas(pipeline: Pipeline) -> Schema:
    """Return one document with the schema of each message, by the name of its table."""
    messages = {pipeline.event.name: event_schema(pipeline.event)}
    return {"$schema": _DIALECT, "$defs": messages | {table.name: row_schema(table) for table in pipeline.tables}}


def event_schema(event: Event) -> Schema:
    """Return the schema of a record's value; other fields are allowed, and ignored."""
    return {
        "description": "A record of the topic that the producer writes",
        "type": "object",
        "properties": {field.name: _field(field) for field in event.fields},
        "required": [field.name for field in event.fields if not field.optional],
    }


def row_schema(table: Table) -> Schema:
    """Return the schema of a changed row."""
    return {
        "description": f"A row of the aggregated topic with the key {table.name}{'-...' if table.key else ''}",
        "type": "object",
        "properties": {column.name: _column(column) for column in table.columns},
        "required": [column.name for column in table.columns],
        "additionalProperties": False,
    }


def _field(field: Field) -> Schema:
    match field.type:
        case FieldType.TEXT:
            schema: Schema = {"type": "string", "minLength": 1, "maxLength": field.max_bytes}
        case FieldType.CHOICE:
            schema = {"type": "string", "enum": list(field.choices)}
        case FieldType.WHOLE:
            schema = {"type": "integer", "minimum": field.at_least, "maximum": field.at_most}
        case FieldType.DECIMAL:
            bounds = {"minimum": float(field.at_least or 0), "maximum": float(field.at_most or 0)}
            schema = {"type": ["number", "string"], **bounds}
        case FieldType.NUMBER:
            limits = {"minimum": field.at_least, "maximum": field.at_most}
            schema = {"type": "number"} | {name: limit for name, limit in limits.items() if limit is not None}
        case FieldType.FLAG:
            schema = {"type": "boolean"}
        case FieldType.EPOCH_SECONDS:
            schema = {"type": "integer", "minimum": MIN_TIMESTAMP, "maximum": MAX_TIMESTAMP}
        case FieldType.EPOCH_MILLISECONDS:
            schema = {"type": "integer", "minimum": 1000 * MIN_TIMESTAMP, "maximum": 1000 * MAX_TIMESTAMP + 999}
        case FieldType.ISO_DATETIME:
            schema = {"type": "string", "pattern": _TIME}
    if field.optional:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _column(column: Column) -> Schema:
    schema: Schema = {
        ColumnType.KEYWORD: {"type": "string"},
        ColumnType.LONG: {"type": "integer"},
        ColumnType.DOUBLE: {"type": "number"},
        ColumnType.DECIMAL: {"type": "number"},
        ColumnType.FLAG: {"type": "boolean"},
        ColumnType.DATE: {"type": "string", "pattern": _TIME},
    }[column.type]
    # A measure with a condition that no event of the key meets has no value, but for a number of events.
    always_has_one = column.measure is None or (column.type is ColumnType.LONG and not column.measure.is_extreme)
    return schema if always_has_one else {"anyOf": [schema, {"type": "null"}]}
