"""The JSON Schemas of the messages: committed, and true of what the pipeline writes and reads."""

import json
from typing import Any

import polars as pl
import pytest
from data_producer.generator import EventGenerator
from jsonschema import Draft202012Validator
from stream_processing import event_reader
from stream_processing.counts import Counts
from stream_processing.engines import POLARS
from stream_processing.lake import Lake
from stream_processing.measures import record_value, tables_of

from contract.declared import EVENT, PIPELINE, TABLES
from contract.json_schema import event_schema, schemas
from contract.loading import load
from local_stack.services import ROOT

_COMMITTED: dict[str, Any] = json.loads((ROOT / "docs" / "schema.json").read_text())


def test_the_committed_schemas_are_those_of_the_declaration() -> None:
    assert schemas(PIPELINE) == _COMMITTED, "run `.venv/bin/python -m contract schema > docs/schema.json`"


@pytest.mark.parametrize("file", ["pipeline.py", "examples/sensors/pipeline.py", "examples/orders/pipeline.py"])
def test_the_schemas_of_each_declaration_are_schemas(file: str) -> None:
    found = schemas(load(ROOT / file))
    for schema in found["$defs"].values():
        Draft202012Validator.check_schema(schema)


def test_what_the_producer_writes_is_valid_and_what_it_writes_to_be_malformed_is_not() -> None:
    validator = Draft202012Validator(_COMMITTED["$defs"][EVENT.name])
    generator = EventGenerator(10, 10, seed=1)
    assert all(validator.is_valid(event) for event in generator.batch(100, timestamp=1_700_000_000.5))
    malformed = generator.malformed(10, timestamp=1)
    assert not any(_is_json(value) and validator.is_valid(json.loads(value)) for value in malformed)
    # Nor does the parser take them.
    assert event_reader.read(malformed) == ([], list(range(10)))


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def test_every_published_row_is_valid() -> None:
    events = [json.dumps(event).encode() for event in EventGenerator(10, 10, seed=1).batch(200, timestamp=1)]
    read, others = event_reader.read(events)
    assert others == []
    counts = Counts(Lake("unused"))
    counts.add(1, event_reader.frame(read).lazy())
    checked = 0
    for key, rows in counts.take_unpublished().items():
        for table in tables_of(key):
            validator = Draft202012Validator(_COMMITTED["$defs"][table.name])
            values: pl.Series = rows.select(record_value(POLARS, table)).to_series()
            for value in values:
                validator.validate(json.loads(value))
                checked += 1
    assert checked == 10 + 10 + 1 + 1 + 10
    assert {table.name for table in TABLES} < set(_COMMITTED["$defs"])


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        ({}, True),
        ({"coupon": "x", "price": "1.50"}, True),
        ({"coupon": None}, True),
        ({"price": True}, False),
        ({"quantity": 0}, False),
        ({"category": "cars"}, False),
        ({"ordered_at": "2026-01-31"}, False),
    ],
)
def test_a_schema_has_the_bounds_of_the_declaration(changes: dict[str, object], is_valid: bool) -> None:
    schema = event_schema(load(ROOT / "examples/orders/pipeline.py").event)
    order = {"customer_id": "c", "category": "toys", "quantity": 1, "price": 1.5, "ordered_at": "2026-01-31T12:00:00Z"}
    assert Draft202012Validator(schema).is_valid(order | changes) == is_valid
