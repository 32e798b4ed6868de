"""The stream job's own parser agrees with a third one, over records that are valid, nearly valid, or anything."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stream_processing import event_reader
from stream_processing.engines import polars_type

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    decimal,
    epoch_milliseconds,
    epoch_seconds,
    flag,
    iso_datetime,
    number,
    text,
    whole,
)
from contract.fields import MAX_DECIMAL_DIGITS, ColumnType
from contract.loading import load
from local_stack.services import ROOT
from tests.properties.event_records import InvalidRecordError, parse_event, write_records

_BATCH: Final = 100
"""Records per example: `--hypothesis-profile=long` generates 5,000 batches for each declaration."""


@dataclass(frozen=True)
class _Parser:
    """The stream job's parser for a declaration."""

    pipeline: Pipeline
    module: ModuleType

    def read(self, values: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], list[int]]:
        found: tuple[list[tuple[Any, ...]], list[int]] = self.module.read(values)
        return found

    def frame(self, events: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
        return cast(pl.DataFrame, self.module.frame(events))


def _every_type() -> Pipeline:
    """Declare an event with a field of each type, optional ones, and an id of several fields."""
    kind = choice("kind", "a", "b", "Straße")
    event = Event(
        "everything",
        text("who", max_bytes=100),
        kind,
        whole("size", at_least=-5, at_most=10**15),
        decimal("price", places=3, at_least=-1000, at_most=10**9),
        number("weight", at_least=-0.5),
        flag("is_new"),
        epoch_seconds("at"),
        epoch_milliseconds("sent"),
        iso_datetime("ordered"),
        text("note", optional=True, max_bytes=50),
        text("place", optional=True, max_bytes=50, default="here"),
        whole("level", optional=True, default=3),
        decimal("discount", optional=True, default=0),
        flag("is_gift", optional=True),
        time="at",
        partition_by="who",
    )
    by_place = Table("by_place", event, key=("note", "place", "who"), measures={"n": count()})
    return Pipeline(event, tables=(by_place,), overview=Overview(total=by_place["n"]))


def _parser_of(pipeline: Pipeline) -> _Parser:
    """Load the parser as in a process with this declaration."""
    types = {
        field.name: pl.Decimal(MAX_DECIMAL_DIGITS, field.places)
        if field.column_type is ColumnType.DECIMAL
        else polars_type(field.column_type)
        for field in pipeline.event.fields
    }
    others: dict[str, Any] = {
        "contract.declared": SimpleNamespace(EVENT=pipeline.event, PIPELINE=pipeline),
        "stream_processing.lake": SimpleNamespace(EVENT_FRAME=pl.Schema(types)),
    }
    assert event_reader.__file__ is not None
    spec = importlib.util.spec_from_file_location("event_reader_of_another", event_reader.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, others):
        spec.loader.exec_module(module)
    return _Parser(pipeline, module)


_PARSERS: Final = {
    **{
        name: _parser_of(load(ROOT / name))
        for name in ("pipeline.py", "examples/sensors/pipeline.py", "examples/orders/pipeline.py")
    },
    "every type": _parser_of(_every_type()),
}


def _expected(value: bytes, pipeline: Pipeline) -> tuple[Any, ...] | None:
    try:
        return parse_event(value, pipeline)
    except InvalidRecordError:
        return None


def _assert_agreement(parser: _Parser, values: Sequence[bytes], is_plain: Callable[[int], bool]) -> None:
    """Check that what is read is right, and that what is plain is read."""
    events, others = parser.read(values)
    expected = [_expected(value, parser.pipeline) for value in values]
    left = set(others)
    positions = [n for n in range(len(values)) if n not in left]
    assert len(positions) == len(events), "each record is an event, or left to Spark"
    assert others == sorted(left)
    for position, event in zip(positions, events, strict=True):
        assert event == expected[position], values[position]
        # 1 == 1.0 == True in Python, and 1.0 is not the same in the lake.
        assert list(map(type, event)) == list(map(type, expected[position] or ())), values[position]
    for position in others:
        assert not (is_plain(position) and expected[position] is not None), values[position]
    _assert_in_lake(parser, events)


def _assert_in_lake(parser: _Parser, events: Sequence[tuple[Any, ...]]) -> None:
    rows = parser.frame(events)
    for n, field in enumerate(parser.pipeline.event.fields):
        column = rows.get_column(field.name)
        found = column.cast(pl.Int64()) if field.type.is_time else column
        assert found.to_list() == [event[n] for event in events], field.name


@pytest.mark.parametrize("name", _PARSERS)
@given(seed=st.integers(0, 2**64 - 1))
def test_a_record_is_read_as_the_third_parser_reads_it_or_left_to_spark(name: str, seed: int) -> None:
    parser = _PARSERS[name]
    records = write_records(parser.pipeline.event, Random(seed), _BATCH)
    _assert_agreement(parser, [record.value for record in records], lambda n: records[n].is_plain)


@pytest.mark.parametrize("name", _PARSERS)
def test_the_generated_records_are_of_all_kinds(name: str) -> None:
    parser = _PARSERS[name]
    records = write_records(parser.pipeline.event, Random(1), 3_000)
    valid = [_expected(record.value, parser.pipeline) is not None for record in records]
    assert all(is_valid for record, is_valid in zip(records, valid, strict=True) if record.is_plain)
    odd = [is_valid for record, is_valid in zip(records, valid, strict=True) if not record.is_plain]
    assert 150 < sum(odd) < len(odd) - 150


_ORDER: Final = b'{"customer_id":"a","category":"toys","quantity":1,"price":1.5,"ordered_at":"2026-01-31T12:00:00Z"}'
_FOUND: Final = {
    # The stream job ended: Python's decimals have no such exponent.
    "a number with an exponent of 19 digits": _ORDER.replace(b"1.5", b"1e9999999999999999999"),
    "another field with such an exponent": _ORDER.replace(b"1.5", b'1.5,"x":1e9999999999999999999'),
    # An event in a small batch, and a dead letter in a large one: Spark knows no time zone beyond 18 hours.
    "a time zone beyond 18 hours": _ORDER.replace(b"00Z", b"00+18:01"),
    "a time zone with 60 minutes": _ORDER.replace(b"00Z", b"00+05:60"),
}
"""Records that were once read wrongly, or not to the end."""


@pytest.mark.parametrize("case", _FOUND)
def test_a_record_that_was_found_is_left_to_spark(case: str) -> None:
    parser = _PARSERS["examples/orders/pipeline.py"]
    assert parser.read([_ORDER, _FOUND[case]])[1] == [1]
    for each in _PARSERS.values():
        _assert_agreement(each, [_FOUND[case]], lambda _: False)


@given(st.binary(max_size=64))
@example(b'{"user_id":"a","item_id":"b","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a","user_id":"b","item_id":"b","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a\x00","item_id":"b","interaction_type":"view","timestamp":1}')
def test_any_bytes_are_read_as_the_third_parser_reads_them_or_left_to_spark(value: bytes) -> None:
    for parser in _PARSERS.values():
        _assert_agreement(parser, [value], lambda _: False)
