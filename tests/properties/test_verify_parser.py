"""The parser of `verify` agrees with the third parser of these tests: about what an event is, and its values."""

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.fields import FieldType
from contract.pipeline import Pipeline
from tests.properties.event_records import InvalidRecordError, parse_event, write_records
from tests.properties.found_records import FOUND
from tests.properties.parsers import PIPELINES
from verify.events import EventParser


def _expected(value: bytes, pipeline: Pipeline) -> tuple[Any, ...] | None:
    """Return the values as `verify` has them: decimals without their point."""
    try:
        values = parse_event(value, pipeline)
    except InvalidRecordError:
        return None
    return tuple(
        int(each.scaleb(field.places)) if field.type is FieldType.DECIMAL and isinstance(each, Decimal) else each
        for field, each in zip(pipeline.event.fields, values, strict=True)
    )


def _assert_agreement(value: bytes, pipeline: Pipeline) -> None:
    found, expected = EventParser(pipeline.event, pipeline.keys).parse(value), _expected(value, pipeline)
    assert found == expected, value
    assert list(map(type, found or ())) == list(map(type, expected or ())), value


@pytest.mark.parametrize("name", PIPELINES)
@given(seed=st.integers(0, 2**64 - 1))
def test_a_record_is_parsed_as_by_the_third_parser(name: str, seed: int) -> None:
    pipeline = PIPELINES[name]
    for record in write_records(pipeline.event, Random(seed), 20):
        _assert_agreement(record.value, pipeline)


@pytest.mark.parametrize("case", FOUND)
def test_a_record_that_was_found_is_parsed_as_by_the_third_parser(case: str) -> None:
    if (value := FOUND[case]) is not None:
        for pipeline in PIPELINES.values():
            _assert_agreement(value, pipeline)


@given(st.binary(max_size=64))
@example(b'{"user_id":"a","item_id":"b","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a","item_id":"\\ud83d","interaction_type":"view","timestamp":1}')
@example(b'{"user_id":"a","item_id":"b","interaction_type":"view","timestamp":1}{}')
def test_any_bytes_are_parsed_as_by_the_third_parser(value: bytes) -> None:
    for pipeline in PIPELINES.values():
        _assert_agreement(value, pipeline)


def test_a_record_without_a_value_is_no_event() -> None:
    pipeline = PIPELINES["pipeline.py"]
    assert EventParser(pipeline.event, pipeline.keys).parse(None) is None
