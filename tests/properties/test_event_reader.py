"""The reader without Spark agrees with the third parser, over records that are valid, nearly valid, or anything."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.pipeline import Pipeline
from tests.properties.event_records import InvalidRecordError, parse_event, write_records
from tests.properties.found_records import FOUND
from tests.properties.parsers import PIPELINES, Reader, reader_of

_BATCH: Final = 100
"""Records per example: `--hypothesis-profile=long` generates 5,000 batches for each declaration."""


_READERS: Final = {name: reader_of(pipeline) for name, pipeline in PIPELINES.items()}


def _expected(value: bytes, pipeline: Pipeline) -> tuple[Any, ...] | None:
    try:
        return parse_event(value, pipeline)
    except InvalidRecordError:
        return None


def _assert_agreement(reader: Reader, values: Sequence[bytes], is_plain: Callable[[int], bool]) -> None:
    """Check that what is read is right, and that what is plain is read."""
    events, others = reader.read(values)
    expected = [_expected(value, reader.pipeline) for value in values]
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
    _assert_in_lake(reader, events)


def _assert_in_lake(reader: Reader, events: Sequence[tuple[Any, ...]]) -> None:
    rows = reader.frame(events)
    for n, field in enumerate(reader.pipeline.event.fields):
        column = rows.get_column(field.name)
        found = column.cast(pl.Int64()) if field.type.is_time else column
        assert found.to_list() == [event[n] for event in events], field.name


@pytest.mark.parametrize("name", _READERS)
@given(seed=st.integers(0, 2**64 - 1))
def test_a_record_is_read_as_the_third_parser_reads_it_or_left_to_spark(name: str, seed: int) -> None:
    reader = _READERS[name]
    records = write_records(reader.pipeline.event, Random(seed), _BATCH)
    _assert_agreement(reader, [record.value for record in records], lambda n: records[n].is_plain)


@pytest.mark.parametrize("name", _READERS)
def test_the_generated_records_are_of_all_kinds(name: str) -> None:
    reader = _READERS[name]
    records = write_records(reader.pipeline.event, Random(1), 3_000)
    valid = [_expected(record.value, reader.pipeline) is not None for record in records]
    assert all(is_valid for record, is_valid in zip(records, valid, strict=True) if record.is_plain)
    odd = [is_valid for record, is_valid in zip(records, valid, strict=True) if not record.is_plain]
    assert 150 < sum(odd) < len(odd) - 150


@pytest.mark.parametrize("case", FOUND)
def test_a_record_that_was_found_is_read_as_the_third_parser_reads_it_or_left_to_spark(case: str) -> None:
    if (value := FOUND[case]) is not None:
        for each in _READERS.values():
            _assert_agreement(each, [value], lambda _: False)


@given(st.binary(max_size=64))
@example(b'{"user_id":"a","item_id":"b","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a","user_id":"b","item_id":"b","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a\x00","item_id":"b","interaction_type":"view","timestamp":1}')
def test_any_bytes_are_read_as_the_third_parser_reads_them_or_left_to_spark(value: bytes) -> None:
    for reader in _READERS.values():
        _assert_agreement(reader, [value], lambda _: False)
