"""The columns that a replay reads, one per field of the event: their types, and what makes a value invalid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from contract.dead_letters import truncated
from contract.interaction import INTERACTION_TYPES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP, Interaction

_INTEGERS: Final = frozenset(
    f"{sign}{name}" for sign in ("", "U") for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)


@dataclass(frozen=True)
class Text:
    """Text; whole numbers and UUIDs are written as DuckDB writes them."""

    expected: str = "text or a whole number"

    def expression(self, name: str, kind: str) -> str | None:
        """Return the SQL of the value for a column of DuckDB's type `kind`; None if that type is not accepted."""
        if kind in _INTEGERS or kind in ("VARCHAR", "UUID") or kind.startswith("ENUM("):
            return f"CAST({name} AS VARCHAR)"
        return None


@dataclass(frozen=True)
class EpochSeconds:
    """Whole seconds since 1970: of a number, a date, a TIMESTAMP (taken as UTC), or text that is one of them."""

    expected: str = "whole epoch seconds, a TIMESTAMP (UTC), or text that is one of them"

    def expression(self, name: str, kind: str) -> str | None:
        """Return the SQL of the value for a column of DuckDB's type `kind`; None if that type is not accepted."""
        if kind in _INTEGERS:
            return f"TRY_CAST({name} AS BIGINT)"
        if kind == "DATE" or kind.startswith("TIMESTAMP"):
            return _seconds_of(name)
        if kind == "VARCHAR":
            # A cast alone would round 1.5 to 2.
            number = f"CASE WHEN regexp_full_match({name}, '-?[0-9]+') THEN TRY_CAST({name} AS BIGINT) END"
            return f"coalesce({number}, {_seconds_of(f'TRY_CAST({name} AS TIMESTAMPTZ)')})"
        return None


def _seconds_of(time: str) -> str:
    return f"TRY_CAST(floor(epoch({time})) AS BIGINT)"


def _id_error(value: str) -> str | None:
    if not value:
        return "is empty"
    # A character has at most 4 bytes.
    if len(value) > MAX_ID_BYTES // 4 and (size := len(value.encode())) > MAX_ID_BYTES:
        return f"has {size} bytes of UTF-8, more than {MAX_ID_BYTES}"
    return None


def _type_error(value: str) -> str | None:
    if value in INTERACTION_TYPES:
        return None
    return f"is {truncated(value)}, not one of {', '.join(INTERACTION_TYPES)}"


def _timestamp_error(value: int) -> str | None:
    if MIN_TIMESTAMP <= value <= MAX_TIMESTAMP:
        return None
    return f"is {value}, not epoch seconds within the years 1970 to 9999"


@dataclass(frozen=True)
class Column:
    """One field of the event."""

    name: str
    type: Text | EpochSeconds
    error: Callable[[Any], str | None]
    """Returns what is wrong with a value; None if it is valid."""


COLUMNS: Final = (
    Column("user_id", Text(), _id_error),
    Column("item_id", Text(), _id_error),
    Column("interaction_type", Text(), _type_error),
    Column("timestamp", EpochSeconds(), _timestamp_error),
)
"""In the order of the event's fields. The only place of a replay that names them."""


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that is no valid event."""

    reason: str


def parse(row: Sequence[Any]) -> Interaction | InvalidRow:
    """Return the event of a row, which has a value for each of `COLUMNS`, or why the row is not valid.

    >>> parse(("user_1", "item_2", "stare", 1736404972))
    InvalidRow(reason='interaction_type is stare, not one of click, like, view, purchase')
    """
    for column, value in zip(COLUMNS, row, strict=True):
        error = f"is missing, or not {column.type.expected}" if value is None else column.error(value)
        if error is not None:
            return InvalidRow(f"{column.name} {error}")
    return Interaction(*row)
