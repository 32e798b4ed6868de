"""Compares the definitions of the aggregate tables with those that the stored state belongs to."""

from typing import Final

from pyspark.sql import SparkSession

from contract.declared import EVENT, TABLES
from contract.tables import Column, Table
from runtime import commands
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_exists, write_text

_FILE: Final = "tables.definitions"


class DefinitionsChangedError(Exception):
    """The state in the checkpoint belongs to other definitions of the aggregate tables."""


def definitions_file(settings: StreamProcessingSettings) -> str:
    """Return the file with the definitions of the tables that the checkpoint's state belongs to."""
    return f"{settings.checkpoints}/{_FILE}"


def definitions() -> str:
    """Return what the state depends on, in lines: each column, how it follows from the events, and the defaults."""
    defaults = "".join(
        f"{EVENT.name} {field.name}: default {field.default}\n" for field in EVENT.fields if field.default is not None
    )
    return defaults + "".join(
        f"{table.name} {_definition(table, column)}\n" for table in TABLES for column in table.columns
    )


def _key(table: Table, column: Column) -> str:
    window = table.key.window
    return f"key, window of {window.size}" if window is not None and window.name == column.name else "key"


def _definition(table: Table, column: Column) -> str:
    places = f"({column.places})" if column.places else ""
    origin = _key(table, column) if column.measure is None else column.measure.definition(EVENT)
    return f"{column.name}: {column.type.value}{places} = {origin}"


def require_same_definitions(session: SparkSession, settings: StreamProcessingSettings) -> None:
    """Store the current definitions; raises `DefinitionsChangedError` if others are stored."""
    current, file = definitions(), definitions_file(settings)
    known = read_text_if_exists(session, file)
    if known is None:
        write_text(session, file, current)
    elif known != current:
        before, now = set(known.splitlines()), set(current.splitlines())
        raise DefinitionsChangedError(
            "the definitions of the tables have changed since their state was computed"
            f" (new: {', '.join(sorted(now - before)) or '-'}; removed: {', '.join(sorted(before - now)) or '-'}):"
            f" run `{commands.command('stream_processing', 'rebuild')}`, which recomputes them from the lake"
        )
