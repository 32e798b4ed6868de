"""A declaration is refused with what is wrong, or everything that follows from it works.

What follows: JSON Schemas, random events, the parser, the state, rows with their keys, and the mappings of indices.
"""

import json
import re
from decimal import Decimal
from random import Random
from typing import Any, Final
from unittest.mock import patch

import polars as pl
from elasticsearch_sink_alert.indexing import index_templates
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from stream_processing.engines import POLARS, group_columns, polars_type

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    days,
    decimal,
    distinct,
    earliest,
    epoch_milliseconds,
    epoch_seconds,
    every,
    flag,
    hours,
    iso_datetime,
    latest,
    least,
    least_choice,
    mean,
    mean_per_choice,
    minutes,
    most,
    most_choice,
    number,
    ratio,
    rows_of,
    text,
    total,
    whole,
)
from contract.fields import ColumnType, Field, FieldType
from contract.json_schema import schemas
from contract.measures import Measure, Quotient, rows_column
from contract.windows import Window
from runtime.logs import escape_controls
from tests.properties.event_records import _joined, _plain, parse_event, write_records
from tests.properties.hostile import assert_one_line, mostly, number_of_examples
from tests.properties.parsers import reader_of

_NAMES: Final = ("who", "kind", "size", "at", "price", "is_new", "select", "Größe", "a b", "_x", "SIZE", "")
_PARTS: Final = r"(event|field|table|window|overview)\b|the pipeline|\d tables"
"""How a problem begins: with the part of the declaration that has it."""
_INDEX_TYPES: Final = {"keyword", "long", "double", "boolean", "date"}


# --- Declarations ---------------------------------------------------------------------------------------


def _mostly(usual: st.SearchStrategy[Any], *odd: Any) -> st.SearchStrategy[Any]:
    return mostly(usual, st.sampled_from(odd))


_whole_bounds = _mostly(st.sampled_from((None, -5, 0, 7, 10**15)), 2**63, -(2**63) - 1, 10**30)
_decimal_bounds = _mostly(st.sampled_from((None, Decimal("-9.5"), 0, 100)), Decimal("0.123456"), 10**18, Decimal("NaN"))
_number_bounds = _mostly(st.sampled_from((None, -1.5, 0, 1e300)), float("nan"), float("inf"), 10**400)


@st.composite
def _fields(draw: st.DrawFn, name: str) -> Field:
    optional = draw(st.sampled_from((False, False, True)))
    has_default = draw(st.booleans()) if optional else draw(st.integers(0, 19)) == 0

    def default(usual: st.SearchStrategy[Any], *odd: Any) -> Any:
        return draw(_mostly(usual, *odd)) if has_default else None

    def bounds(values: st.SearchStrategy[Any]) -> dict[str, Any]:
        found = {"at_least": draw(values), "at_most": draw(values)}
        return {name: value for name, value in found.items() if value is not None}

    match draw(st.sampled_from(list(FieldType))):
        case FieldType.TEXT:
            size = draw(_mostly(st.sampled_from((1, 5, 512)), 0, 513, -1))
            return text(name, max_bytes=size, optional=optional, default=default(st.just("a"), "", "x" * 600, 5, "é"))
        case FieldType.CHOICE:
            usual = st.sampled_from((("a", "b"), ("Ü b",), ("a|b", "-")))
            values = draw(_mostly(usual, (), ("a", "a"), ('a"',), ("a\nb",)))
            return choice(name, *values, optional=optional, default=default(st.sampled_from(values or ("a",)), "zz", 5))
        case FieldType.WHOLE:
            chosen = default(st.just(3), -100, 2**70, "3", True, 1.5)
            return whole(name, **bounds(_whole_bounds), optional=optional, default=chosen)
        case FieldType.DECIMAL:
            places = draw(_mostly(st.sampled_from((1, 2, 17)), 0, 18, 40, -1))
            chosen = default(st.just(3), Decimal("1.5"), Decimal("1.123456789"), 10**18, Decimal("NaN"), "3", 1.5)
            return decimal(name, places=places, **bounds(_decimal_bounds), optional=optional, default=chosen)
        case FieldType.NUMBER:
            chosen = default(st.sampled_from((3, 1.5)), float("nan"), -1e308, "3", True)
            return number(name, **bounds(_number_bounds), optional=optional, default=chosen)
        case FieldType.FLAG:
            return flag(name, optional=optional, default=default(st.booleans(), 1, "true"))
        case FieldType.EPOCH_MILLISECONDS:
            return epoch_milliseconds(name)
        case FieldType.ISO_DATETIME:
            return iso_datetime(name)
        case _:
            return epoch_seconds(name)


@st.composite
def _measures(draw: st.DrawFn, fields: list[Field], tables: list[Table], depth: int = 0) -> Measure:
    # Of a field whose type suits it, more often than not.
    def name(*types: FieldType) -> str:
        suited = [field.name for field in fields if field.type in types]
        return str(draw(_mostly(st.sampled_from(suited), "gone", "who", "at")) if suited else "who")

    numbers = (FieldType.WHOLE, FieldType.DECIMAL, FieldType.NUMBER)
    times = (FieldType.EPOCH_SECONDS, FieldType.EPOCH_MILLISECONDS, FieldType.ISO_DATETIME)
    choices = [field for field in fields if field.type is FieldType.CHOICE]
    where = None
    if draw(st.integers(0, 2)) == 0:
        of = draw(st.sampled_from(fields))
        usual = {FieldType.WHOLE: 3, FieldType.FLAG: True, FieldType.NUMBER: 1.5, FieldType.DECIMAL: Decimal("1.5")}
        value = of.choices[0] if of.choices else usual.get(of.type, "a")
        where = {of: draw(_mostly(st.just(value), "x", 5, True, 1.5, None, b"a"))}
    match draw(st.integers(0, 10 if depth else 12)):
        case 0:
            return count(where=where)
        case 1:
            return count(name(*FieldType), where=where)
        case 2:
            return total(name(*numbers), where=where)
        case 3:
            return least(name(*numbers, *times), where=where)
        case 4:
            return most(name(*numbers, *times), where=where)
        case 5:
            return earliest(name(*times), where=where)
        case 6:
            return latest(name(*times), where=where)
        case 7:
            return distinct(name(*FieldType), where=where)
        case 8:
            return mean(name(*numbers), where=where)
        case 9 if choices:
            of = draw(st.sampled_from(choices))
            return draw(st.sampled_from((mean_per_choice, least_choice, most_choice)))(of)
        case 10 if tables:
            return rows_of(draw(st.sampled_from(tables)))
        case 11 | 12:
            part = _measures(fields, tables, depth + 1)
            return ratio(draw(part), draw(part))
        case _:
            return count()


_SIZES: Final[tuple[dict[str, Any], ...]] = ({"minutes": 15}, {"hours": 1}, {"hours": 6}, {"days": 1}, {"seconds": 10})
_WRONG_SIZES: Final[tuple[dict[str, Any], ...]] = (
    {}, {"minutes": 7}, {"days": 2}, {"hours": -1}, {"minutes": 1.5}, {"seconds": 86_399},
)  # fmt: skip
_windows = st.builds(
    lambda size, closes_after, name: every(**size, closes_after=closes_after, name=name),
    _mostly(st.sampled_from(_SIZES), *_WRONG_SIZES),
    _mostly(st.sampled_from((minutes(10), hours(2))), minutes(-1), days(40_000), 600),
    _mostly(st.sampled_from(("", "part")), "who", "a b", "at"),
)


@st.composite
def _tables(draw: st.DrawFn, of: Event, fields: list[Field], tables: list[Table], n: int) -> Table:
    keys = [f.name for f in fields if f.type in (FieldType.TEXT, FieldType.CHOICE, FieldType.WHOLE, FieldType.FLAG)]
    names_of_fields = _mostly(st.sampled_from(keys or ["who"]), "gone", "at")
    key: list[str | Window] = draw(st.lists(names_of_fields, max_size=2, unique=True))
    if draw(st.integers(0, 2)) == 0:
        key.insert(draw(st.integers(0, len(key))), draw(_windows))
    names = _mostly(st.sampled_from(("n", "m", "o", "total_x")), "N", "who", "a b", "")
    measures = {name: draw(_measures(fields, tables)) for name in draw(st.lists(names, max_size=4, unique=True))} | {
        "all": count()
    }
    keep = draw(_mostly(st.none(), days(7), days(40_000), 7))
    name = draw(_mostly(st.just(f"table_{n}"), "alerts", "events", "T-1", "table_0"))
    return Table(name, of, tuple(key), measures, keep=keep)


@st.composite
def _pipelines(draw: st.DrawFn) -> Pipeline:
    names = draw(st.lists(_mostly(st.sampled_from(_NAMES[:7]), *_NAMES), min_size=1, max_size=4, unique=True))
    others = [draw(_fields(name)) for name in names if name not in ("who", "at")]
    fields = [text("who"), *others, draw(st.sampled_from((epoch_seconds, epoch_milliseconds, iso_datetime)))("at")]
    of = Event("events", *fields, time=draw(_mostly(st.just("at"), "who", "gone")),
               partition_by=draw(_mostly(st.just("who"), "at", "gone")))  # fmt: skip
    tables: list[Table] = []
    for n in range(draw(_mostly(st.integers(1, 3), 0))):
        tables.append(draw(_tables(of, fields, tables, n)))
    choices = [field for field in fields if field.type is FieldType.CHOICE]
    shown = tables[0] if tables else Table("gone", of, (), {"all": count()})
    by = draw(st.sampled_from(choices)) if choices and draw(st.integers(0, 5)) == 0 else None
    total_of = shown[draw(_mostly(st.just("all"), "gone"))]
    return Pipeline(of, tuple(tables), Overview(total=total_of, by=by))


def _of(field: Field, **measures: Measure) -> Pipeline:
    """Declare a pipeline with this field beside two others."""
    of = Event("events", text("who"), field, epoch_seconds("at"), time="at", partition_by="who")
    table = Table("table_0", of, ("who",), {"all": count(), **measures})
    return Pipeline(of, (table,), Overview(total=table["all"]))


def _with_a_key_that_is_no_field() -> Pipeline:
    kind = choice("kind", "a", "b")
    of = Event("events", text("who"), kind, epoch_seconds("at"), time="at", partition_by="who")
    table = Table("table_0", of, ("gone",), {"all": count()})
    return Pipeline(of, (table,), Overview(total=table["all"], by=kind))


# --- What follows ---------------------------------------------------------------------------------------

_SIZE: Final = whole("size")
_PRICE: Final = decimal("price")


@settings(max_examples=number_of_examples(1.5), suppress_health_check=list(HealthCheck))
@given(_pipelines())
# The key of a row with it was one of no row.
@example(_of(text("x", optional=True, default="")))
# It was longer than the column, or than an id.
@example(_of(text("x", max_bytes=5, optional=True, default="too long")))
# The stream job ended at the first record that lacked the field, or had the greatest value.
@example(_of(whole("x", optional=True, default=2**70)))
@example(_of(whole("x", at_most=2**63)))
@example(_of(whole("x", at_least=0, optional=True, default=-1)))
@example(_of(decimal("x", at_most=10**18)))
@example(_of(decimal("x", places=1, optional=True, default=Decimal("1.55"))))
@example(_of(decimal("x", optional=True, default=Decimal("NaN"))))
# The schema was no JSON.
@example(_of(number("x", at_least=float("nan"))))
@example(_of(number("x", optional=True, default=float("inf"))))
# The stream job ended with the first event: the engine compares no number with a text, and no time with a number.
@example(_of(_SIZE, n=count(where={_SIZE: "3"})))
@example(_of(_SIZE, n=count(where={_SIZE: True})))
@example(_of(_PRICE, n=total("price", where={_PRICE: Decimal("1.5")})))
# The first error hid all others.
@example(_with_a_key_that_is_no_field())
def test_a_declaration_is_refused_with_what_is_wrong_or_everything_follows_from_it(pipeline: Pipeline) -> None:
    problems = list(pipeline.problems())
    if problems:
        event("refused")
        for line, problem in problems:
            assert line > 0
            assert_one_line(escape_controls(problem))
            assert re.match(_PARTS, problem), problem
        return
    event("usable")
    _assert_schemas(pipeline)
    _assert_mappings(pipeline)
    _assert_rows(pipeline, _assert_events(pipeline))


def _assert_schemas(pipeline: Pipeline) -> None:
    found = json.loads(json.dumps(schemas(pipeline), allow_nan=False))
    assert set(found["$defs"]) == {pipeline.event.name, *(table.name for table in pipeline.tables)}
    for schema in found["$defs"].values():
        Draft202012Validator.check_schema(schema)


def _assert_mappings(pipeline: Pipeline) -> None:
    with patch.object(index_templates, "TABLES", pipeline.tables):
        found = dict(index_templates.mappings())
    for table in pipeline.tables:
        properties = found[table.name]["properties"]
        assert list(properties) == [column.name for column in table.columns]
        assert {each["type"] for each in properties.values()} <= _INDEX_TYPES


def _assert_events(pipeline: Pipeline) -> pl.DataFrame:
    """Return random events, which fit the schema, the third parser and the stream job's own."""
    validator = Draft202012Validator(schemas(pipeline)["$defs"][pipeline.event.name])
    values = [record.value for record in write_records(pipeline.event, Random(1), 40) if record.is_plain]
    for value in values:
        validator.validate(json.loads(value))
    expected = [parse_event(value, pipeline) for value in values]
    reader = reader_of(pipeline)
    events, others = reader.read(values)
    assert len(events) + len(others) == len(values)
    assert set(events) <= set(expected)
    for field in pipeline.event.fields:
        if field.default is not None:
            raw = {each.name: _plain(each, Random(1)) for each in pipeline.event.fields}
            spelled = raw | {field.name: json.dumps(field.default, default=str)}
            missing = {name: each for name, each in raw.items() if name != field.name}
            found = [parse_event(_joined(list(each), each, ":", ","), pipeline) for each in (spelled, missing)]
            assert found[0] == found[1]
    # The reader may leave some to Spark: the lake has them all.
    return reader.frame(expected)


def _assert_rows(pipeline: Pipeline, events: pl.DataFrame) -> None:
    """Aggregate the events as the stream job does, and check each row of each table."""
    of = pipeline.event
    for table in pipeline.tables:
        validator = Draft202012Validator(schemas(pipeline)["$defs"][table.name])
        states = [each for other in pipeline.tables for m in other.measures.values() for each in m.state(of)]
        columns = [POLARS.aggregate(state) for state in dict.fromkeys(states)]
        groups = [expression.alias(name) for name, expression in group_columns(POLARS, of, table.key).items()]
        state = events.group_by(groups).agg(columns) if groups else events.select(columns)
        counted = {name: pl.lit(1, pl.Int64) for measure in table.measures.values() for name in _rows_columns(measure)}
        state = state.with_columns(**counted)
        row = {
            column.name: POLARS.column(column.name) if column.measure is None else column.measure.result(POLARS, of)
            for column in table.columns
        }
        rows = state.select(expression.alias(name) for name, expression in row.items())
        for column in table.columns:
            if column.type is not ColumnType.DECIMAL:
                assert rows.schema[column.name] == polars_type(column.type), column
        ids = state.select(POLARS.row_id(of, table.key)).to_series() if table.key else [None] * len(state)
        texts = state.select(POLARS.json(row, {column.name: column.type for column in table.columns})).to_series()
        assert len(ids) == len(set(ids)) == len(texts)
        for row_id, value in zip(ids, texts, strict=True):
            fields = json.loads(value)
            validator.validate(fields)
            if row_id is not None:
                assert table.key_problem(fields, row_id) == ""
                assert table.row_id(fields) == row_id


def _rows_columns(measure: Measure) -> list[str]:
    """Return the columns with numbers of rows that a measure takes from the state over all events."""
    if isinstance(measure, Quotient):
        return [*_rows_columns(measure.dividend), *_rows_columns(measure.divisor)]
    return [rows_column(table.key) for table in measure.tables()]
