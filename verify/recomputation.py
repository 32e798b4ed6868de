"""Computes the rows of the tables from the lake, in SQL: at the cut, and as each later version changes them.

A table is a few numbers for each key, which are added or compared. Those at the cut are computed once. The rows of
later versions follow from these and from the events that the versions have added, so that a row is known at every
version since the cut: what is published while this program runs is the row of one of them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from contract import measures
from contract.event import Event
from contract.fields import MAX_ID_BYTES, ColumnType, Field, FieldType, Scalar
from contract.measures import Measure
from contract.tables import Table
from verify.database import Database, literal, name
from verify.lake import LAKE, LATER

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT_DISTINCT: Final = 1_024
"""Up to this number of different values, their number is exact."""
_DISTINCT_ERROR: Final = 5 * 0.031
"""Beyond it, the accepted relative error: five standard errors."""
_SUM_ERROR: Final = 1e-9
"""The accepted relative error of a sum of doubles, which depends on the order of the additions."""
_ROUNDING: Final = 0.005
"""By how much a quotient that is rounded to 2 decimal places differs from the quotient."""

Where = tuple[tuple[Field, Scalar], ...]


class UnknownMeasureError(Exception):
    """The declaration has a kind of measure that this program does not know."""


@dataclass(frozen=True)
class _State:
    """A number of a key: how it is computed from events, and merged."""

    function: str
    """`sum`, `min` or `max` merge two of them; `distinct` counts different values."""
    value: str
    """What is added, compared or counted, as an expression over an event."""
    condition: str = "true"

    @property
    def of_events(self) -> str:
        """The number of some events."""
        value = f"DISTINCT {self.value}" if self.function == "distinct" else self.value
        computed = (
            f"{'count' if self.function == 'distinct' else self.function}({value}) FILTER (WHERE {self.condition})"
        )
        return f"coalesce({computed}, 0)" if self.function == "sum" else computed

    @property
    def merge(self) -> str:
        """The function that merges two of them."""
        return "sum" if self.function == "distinct" else self.function


@dataclass(frozen=True)
class _Result:
    """A column of a row: an expression over the states, and how much a stored value may differ from it."""

    sql: str
    tolerance: str = ""
    """As an expression over the expected value; empty: none."""


@dataclass(frozen=True)
class ExpectedColumn:
    """A column of the recomputed rows."""

    name: str
    type: ColumnType
    tolerance: str

    def equals(self, found: str, expected: str) -> str:
        """Return whether a stored value is right, as an expression; both are columns."""
        if not self.tolerance:
            return f"{found} IS NOT DISTINCT FROM {expected}"
        tolerance = self.tolerance.format(expected=expected)
        return f"coalesce(abs({found} - {expected}) <= {tolerance}, {found} IS NULL AND {expected} IS NULL)"


class TableRows:
    """The rows of one table, recomputed."""

    def __init__(self, database: Database, table: Table, event: Event, version: int) -> None:
        """Compute the rows at the version of the cut; raises `UnknownMeasureError`."""
        self.table = table
        self._database = database
        self._event = event
        self._version = version
        self._states: list[_State] = []
        self._keys = [_key_value(table, column, event) for column in table.key] or ["'all'"]
        self._key_columns = [f"_k{n}" for n in range(len(self._keys))]
        results = [self._result(column.measure) for column in table.columns if column.measure is not None]
        self._results = [_Result(key) for key in self._key_columns if table.key] + results
        self.columns = [
            ExpectedColumn(column.name, column.type, result.tolerance)
            for column, result in zip(table.columns, self._results, strict=True)
        ]
        self._base, self._at_cut, self._since = (name(f"{kind} {table.name}") for kind in ("base", "cut", "since"))
        database.run(f"CREATE TABLE {self._base} AS {self._grouped(LAKE)}")
        database.run(
            f"CREATE TABLE {self._at_cut} AS {self._rows(f'SELECT *, {version} AS _version FROM {self._base}')}"
        )
        database.run(f"CREATE TABLE {self._since} AS SELECT * FROM {self._at_cut} LIMIT 0")

    @property
    def at_cut(self) -> str:
        """The rows at the cut: `id`, `version`, and `c0`, `c1`, ... for the columns."""
        return self._at_cut

    @property
    def since_cut(self) -> str:
        """The rows at the cut and at each later version that changed them."""
        return f"(SELECT * FROM {self._at_cut} UNION ALL SELECT * FROM {self._since})"

    @property
    def number(self) -> int:
        """The number of rows at the cut."""
        return self._database.number(f"SELECT count(*) FROM {self._at_cut}")

    def follow(self) -> None:
        """Compute the rows of the later versions, from the events in `LATER`."""
        keys = ", ".join(self._key_columns)
        changed = f"SELECT DISTINCT {self._aliased_keys()} FROM {LATER}"
        steps = [
            f"SELECT {keys}, {self._version} AS _version, {self._state_columns()} FROM {self._base}"
            f" SEMI JOIN changed USING ({keys})",
            self._grouped(LATER, "_version"),
            *(self._newly_seen(number) for number, state in enumerate(self._states) if state.function == "distinct"),
        ]
        merged = ", ".join(f"{state.merge}(_s{n}) OVER steps AS _s{n}" for n, state in enumerate(self._states))
        summed = ", ".join(f"{state.merge}(_s{n}) AS _s{n}" for n, state in enumerate(self._states))
        self._database.run(
            f"CREATE OR REPLACE TABLE {self._since} AS WITH changed AS ({changed}),"
            f" parts AS ({' UNION ALL BY NAME '.join(steps)}),"
            f" versions AS (SELECT {keys}, _version, {summed} FROM parts GROUP BY {keys}, _version),"
            f" merged AS (SELECT {keys}, _version, {merged} FROM versions"
            f" WINDOW steps AS (PARTITION BY {keys} ORDER BY _version))"
            f" {self._rows(f'SELECT * FROM merged WHERE _version > {self._version}')}"
        )

    def is_kept(self, clock: datetime | None) -> str:
        """Return whether a row with the columns `c0`, `c1`, ... is young enough to be kept, as an expression."""
        keep, window = self.table.keep, self.table.key.window
        if keep is None or window is None or clock is None:
            return "true"
        since = (clock - keep - _EPOCH) // timedelta(microseconds=1)
        return f"coalesce(c{list(self.table.key).index(window.name)} > {since}, true)"

    def as_text(self, positions: Iterable[int], values: Sequence[object]) -> str:
        """Return some columns of a row as JSON."""
        named = [(self.columns[n], values[n]) for n in positions]
        return json.dumps(
            {column.name: _time(value) if column.type is ColumnType.DATE else value for column, value in named},
            ensure_ascii=False,
        )

    def _aliased_keys(self) -> str:
        return ", ".join(f"{key} AS {column}" for key, column in zip(self._keys, self._key_columns, strict=True))

    def _state_columns(self) -> str:
        return ", ".join(f"_s{n}" for n in range(len(self._states)))

    def _grouped(self, events: str, *also: str) -> str:
        """Return the states of each key of some events."""
        states = [
            # Values that an earlier version has seen are not counted again.
            f"{'0' if also and state.function == 'distinct' else state.of_events} AS _s{n}"
            for n, state in enumerate(self._states)
        ]
        columns = ", ".join([self._aliased_keys(), *also, *states])
        return f"SELECT {columns} FROM {events} GROUP BY {', '.join([*self._key_columns, *also])}"

    def _newly_seen(self, number: int) -> str:
        """Return how many values each version has that no earlier one has seen."""
        state = self._states[number]
        keys = ", ".join(self._key_columns)
        others = ", ".join(
            f"{'0' if other.merge == 'sum' else 'NULL'} AS _s{n}" if n != number else f"count(*) AS _s{n}"
            for n, other in enumerate(self._states)
        )
        values = f"SELECT {self._aliased_keys()}, {state.value} AS _value"
        where = f"WHERE ({state.condition}) AND ({state.value}) IS NOT NULL"
        return (
            f"SELECT {keys}, _version, {others} FROM"
            f" (SELECT {keys}, _value, min(_version) AS _version FROM ({values}, _version FROM {LATER} {where})"
            f" GROUP BY {keys}, _value) AS first_seen"
            f" ANTI JOIN (SELECT DISTINCT {keys}, _value FROM ({values} FROM {LAKE} {where})"
            f" SEMI JOIN ({values} FROM {LATER} {where}) AS asked USING ({keys}, _value)) AS known"
            f" USING ({keys}, _value) GROUP BY {keys}, _version"
        )

    def _rows(self, states: str) -> str:
        """Return the rows of these states."""
        columns = ", ".join(f"{result.sql} AS c{n}" for n, result in enumerate(self._results))
        return (
            f"SELECT * FROM (SELECT {self._row_id()} AS id, _version AS version, {columns} FROM ({states}))"
            f" WHERE octet_length(encode(id)) <= {MAX_ID_BYTES}"
        )

    def _row_id(self) -> str:
        return row_id(self.table, self._event, self._key_columns)

    def _state(self, state: _State) -> str:
        if state not in self._states:
            self._states.append(state)
        return f"_s{self._states.index(state)}"

    def _result(self, measure: Measure) -> _Result:
        match measure:
            case measures.Count(of=of, where=where):
                value = "1" if of is None else f"CASE WHEN {name(of)} IS NOT NULL THEN 1 END"
                return _Result(f"CAST({self._state(_State('sum', value, self._condition(where)))} AS BIGINT)")
            case measures.Distinct(of=of, where=where):
                counted = self._state(_State("distinct", name(str(of)), self._condition(where)))
                error = f"CASE WHEN {{expected}} <= {_EXACT_DISTINCT} THEN 0 ELSE {_DISTINCT_ERROR} * {{expected}} END"
                return _Result(f"CAST({counted} AS BIGINT)", error)
            case (
                measures.Total(of=of, where=where)
                | measures.Least(of=of, where=where)
                | measures.Most(of=of, where=where)
            ):
                return self._extreme_or_total(measure, self._event.field(str(of)), where)
            case measures.Quotient(dividend=dividend, divisor=divisor):
                return self._quotient(dividend, divisor)
            case measures.Rows(table=table):
                keys = [_key_value(table, column, self._event) for column in table.key]
                return _Result(f"CAST({self._state(_State('distinct', row_id(table, self._event, keys)))} AS BIGINT)")
            case measures.PerChoice(of=of):
                return self._per_choice(measure, of)
            case _:
                raise UnknownMeasureError(type(measure).__name__)

    def _extreme_or_total(self, measure: Measure, field: Field, where: Where) -> _Result:
        functions: dict[type[Measure], str] = {measures.Total: "sum", measures.Least: "min", measures.Most: "max"}
        function = functions[type(measure)]
        state = self._state(_State(function, name(field.name), self._condition(where)))
        if field.type is FieldType.DECIMAL:
            return _Result(
                f"(CAST({state} AS DOUBLE) / {10**field.places})", f"{_SUM_ERROR} * greatest(1, abs({{expected}}))"
            )
        if field.type is FieldType.NUMBER:
            return _Result(state, f"{_SUM_ERROR} * greatest(1, abs({{expected}}))")
        return _Result(f"CAST({state} AS BIGINT)")

    def _quotient(self, dividend: Measure, divisor: Measure) -> _Result:
        parts = self._result(dividend), self._result(divisor)
        above, below = (part.sql for part in parts)
        if any(isinstance(measure, measures.Distinct) for measure in (dividend, divisor)):
            return _Result(_rounded_quotient(above, below), f"{_ROUNDING} + {_DISTINCT_ERROR} * abs({{expected}})")
        if {dividend.type(self._event), divisor.type(self._event)} == {ColumnType.LONG}:
            return _Result(_rounded_quotient(above, below))
        quotient = f"CASE WHEN {below} != 0 THEN CAST({above} AS DOUBLE) / {below} END"
        return _Result(quotient, f"{_ROUNDING} + {_SUM_ERROR} * greatest(1, abs({{expected}}))")

    def _per_choice(self, measure: Measure, of: Field) -> _Result:
        counts = [self._state(_State("sum", "1", self._condition(((of, value),)))) for value in of.choices]
        # The functions over several arguments skip null.
        seen = [f"nullif({count}, 0)" for count in counts]
        match measure:
            case measures.LeastPerChoice():
                return _Result(f"CAST(least({', '.join(seen)}) AS BIGINT)")
            case measures.MostPerChoice():
                return _Result(f"CAST(greatest({', '.join(counts)}) AS BIGINT)")
            case measures.MeanPerChoice():
                number = " + ".join(f"CAST({count} > 0 AS BIGINT)" for count in counts)
                return _Result(_rounded_quotient(f"({' + '.join(counts)})", f"({number})"))
            case _:
                raise UnknownMeasureError(type(measure).__name__)

    def _condition(self, where: Where) -> str:
        return " AND ".join(f"{name(field.name)} = {_stored(field, value)}" for field, value in where) or "true"


def _time(microseconds: object) -> str | None:
    return None if not isinstance(microseconds, int) else (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def _rounded_quotient(dividend: str, divisor: str) -> str:
    """Return the quotient of two whole numbers, rounded half away from zero to 2 decimal places."""
    above, below = f"CAST({dividend} AS HUGEINT)", f"CAST({divisor} AS HUGEINT)"
    hundredths = f"(200 * abs({above}) + abs({below})) // (2 * abs({below}))"
    return f"CASE WHEN {below} != 0 THEN CAST(sign({above}) * sign({below}) * ({hundredths}) AS DOUBLE) / 100 END"


def _stored(field: Field, value: Scalar) -> str:
    """Return the value of a field as the tables of this program have it."""
    if field.type is FieldType.DECIMAL:
        return str(int(value * 10**field.places))
    return literal(value)


def _key_value(table: Table, column: str, event: Event) -> str:
    """Return a column of the key, as an expression over an event."""
    window = table.key.window
    if window is None or column != window.name:
        return name(column)
    size = window.size // timedelta(microseconds=1)
    return f"({name(event.time)} // {size} * {size})"


def row_id(table: Table, event: Event, values: Sequence[str]) -> str:
    """Return the id of a row, as an expression over its key columns; the table's name without any."""
    if not table.key:
        return literal(table.name)
    texts = list(_key_texts(table, event, values))
    if len(texts) == 1:
        return texts[0]
    escaped = [f"replace(replace({text}, '\\', '\\\\'), '|', '\\|')" for text in texts]
    return " || '|' || ".join(escaped)


def _key_texts(table: Table, event: Event, values: Sequence[str]) -> Iterator[str]:
    for column, value in zip(table.key, values, strict=True):
        kind = table.key.type_of(column, event)
        if kind is ColumnType.DATE:
            yield f"strftime(make_timestamp({value}), '%Y-%m-%dT%H:%M:%SZ')"
        elif kind is ColumnType.FLAG:
            yield f"CASE WHEN {value} THEN 'true' ELSE 'false' END"
        else:
            yield f"CAST({value} AS VARCHAR)"
