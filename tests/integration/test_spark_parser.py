"""Spark's plans, the reader without Spark and the parser of `verify` agree about records, and about their values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from stream_processing.parsing import IS_VALID, RECORD
from stream_processing.session import start_session, stop_session
from stream_processing.settings import StreamProcessingSettings

from contract.event import MAX_BYTES
from contract.fields import FieldType
from contract.pipeline import Pipeline
from local_stack.cache import SPARK
from tests.properties.event_records import InvalidRecordError, levels, parse_event, write_records
from tests.properties.found_records import FOUND
from tests.properties.hostile import number_of_examples
from tests.properties.parsers import PIPELINES, Reader, import_for, reader_of
from verify.events import EventParser

_UNCERTAIN_LEVELS: Final = 1_000
"""At this depth Spark takes or rejects a record by what else is in it; verify rejects it."""
_BATCHES: Final = number_of_examples(1 / 100)
_BATCH: Final = 5_000 if _BATCHES == 1 else 20_000
"""Records per job of Spark, half of them the other ones with a space: a million in all with the profile "long"."""
_OF_THE_RECORD: Final = ("the value ", "not UTF-8", "not one JSON object", "not text: ", "a decimal ")
"""How the reasons start that are about no field."""

Values = tuple[Any, ...]


@dataclass(frozen=True, repr=False)
class _Parsers:
    """All parsers for a declaration; times are microseconds, decimals have no point."""

    pipeline: Pipeline
    parsing: ModuleType
    reader: Reader
    verify: EventParser
    frame: Callable[[Sequence[bytes | None]], DataFrame]

    def problems(self, values: Sequence[bytes | None]) -> dict[int, str]:
        """Return the positions of the values about which the parsers differ, each with what is wrong."""
        expected = [self.verify.parse(value) for value in values]
        by_spark, canonical = self._by_spark(values)
        problems = {}
        for name, found in (
            ("Spark", dict(enumerate(by_spark))),
            ("Spark's plan for canonical records", self._by_canonical_plan(values, canonical)),
            ("the reader without Spark", self._by_reader(values)),
        ):
            for n, event in found.items():
                if repr(event) != repr(expected[n]):
                    problems[n] = f"verify: {expected[n]}, {name}: {event}"
        malformed = [n for n, event in enumerate(by_spark) if event is None and n not in problems]
        for n, reason in zip(malformed, self._reasons([values[n] for n in malformed]), strict=True):
            if not _is_about(reason, about := self._problem(values[n])):
                problems[n] = f"the reason is {reason!r}, not about {about or 'the record'}"
        return problems

    def _by_spark(self, values: Sequence[bytes | None]) -> tuple[list[Values | None], list[int]]:
        """Return the events of the plan for all records, and which records are canonical."""
        rows = self.parsing.parse(self.frame(values)).select(*self._columns(), IS_VALID, F.col(RECORD).isNull())
        found = [tuple(row) for row in rows.collect()]
        events = [self._event(row[:-2]) if row[-2] else None for row in found]
        return events, [n for n, row in enumerate(found) if row[-1]]

    def _by_canonical_plan(self, values: Sequence[bytes | None], canonical: list[int]) -> dict[int, Values | None]:
        rows = self.parsing.parse_canonical(self.frame([values[n] for n in canonical])).select(*self._columns())
        return {n: self._event(tuple(row)) for n, row in zip(canonical, rows.collect(), strict=True)}

    def _by_reader(self, values: Sequence[bytes | None]) -> dict[int, Values | None]:
        """Return the events that it reads; it leaves all other records to Spark."""
        events, others = self.reader.read([b"" if value is None else value for value in values])
        left = set(others)
        read = [n for n in range(len(values)) if n not in left]
        return {n: self._event(event) for n, event in zip(read, events, strict=True)}

    def _reasons(self, values: Sequence[bytes | None]) -> list[str]:
        return [row.reason for row in self.parsing.with_reason(self.frame(values)).collect()]

    def _columns(self) -> Iterator[Any]:
        for field in self.pipeline.event.fields:
            yield F.unix_micros(field.name) if field.type.is_time else F.col(field.name)

    def _event(self, values: Values) -> Values:
        return tuple(
            int(value.scaleb(field.places))
            if isinstance(value, Decimal)
            # A sum does not show the sign of zero.
            else value + 0.0
            if field.type is FieldType.NUMBER and value is not None
            else value
            for field, value in zip(self.pipeline.event.fields, values, strict=True)
        )

    def _problem(self, value: bytes | None) -> str:
        """Return the field that is wrong by the third parser, or "" for the record as a whole."""
        try:
            parse_event(value or b"", self.pipeline)
        except InvalidRecordError as error:
            return error.about
        return "nothing"


def _is_about(reason: str, about: str) -> bool:
    return reason.startswith(f"{about} " if about else _OF_THE_RECORD)


@pytest.fixture(scope="module")
def spark(cache: None) -> Iterator[SparkSession]:
    session = start_session(StreamProcessingSettings(spark_jars=SPARK.folder))
    yield session
    stop_session(session)


@pytest.fixture(scope="module", params=PIPELINES)
def parsers(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> _Parsers:
    pipeline = PIPELINES[request.param]
    return _Parsers(
        pipeline,
        import_for(pipeline, "parsing"),
        reader_of(pipeline),
        EventParser(pipeline.event, pipeline.keys),
        partial(_frame, spark, tmp_path_factory.mktemp("records"), count()),
    )


def _frame(spark: SparkSession, folder: Path, numbers: Iterator[int], values: Sequence[bytes | None]) -> DataFrame:
    """Return records as a DataFrame: of a file, since Spark computes rows that a plan contains in another way."""
    for file in folder.iterdir():
        file.unlink()
    file = folder / f"{next(numbers)}.parquet"
    # In one piece, so that the rows stay in order.
    pl.DataFrame({"value": values}, schema={"value": pl.Binary()}).write_parquet(file, row_group_size=len(values) + 1)
    return spark.read.schema("value binary").parquet(str(file))


def _with_spaces(values: Sequence[bytes], random: Random) -> list[bytes]:
    """Return the same records for the JSON parser, canonical ones too, half of them with all checks of `parsing`."""
    return [b" " + value if random.randrange(2) else value + b" " for value in values]


def _minimised(parsers: _Parsers, value: bytes) -> bytes:
    """Return the shortest record found by leaving parts out about which the parsers still differ."""
    while True:
        sizes = [1 << n for n in range(len(value).bit_length()) if len(value) >> n < 100]
        shorter = [value[:at] + value[at + size :] for size in sizes for at in range(0, len(value), size)]
        different = parsers.problems(shorter) if shorter else {}
        if not different:
            return value
        value = min((shorter[n] for n in different), key=len)


def _assert_agreement(parsers: _Parsers, values: Sequence[bytes | None]) -> None:
    problems = parsers.problems(values)
    lines = []
    for n in list(problems)[:3]:
        value = values[n]
        least = value if value is None else _minimised(parsers, value)
        lines.append(f"{least!r}: {parsers.problems([least])[0]}")
    assert not problems, "\n".join([f"the parsers differ about {len(problems)} records, such as", *lines])


def test_the_parsers_agree_about_records_that_were_found(parsers: _Parsers) -> None:
    found = [value for value in FOUND.values() if value is not None and len(value) < MAX_BYTES]
    _assert_agreement(parsers, [*FOUND.values(), *_with_spaces(found, Random(1))])


@given(seed=st.integers(0, 2**64 - 1))
# A shorter record comes from no smaller seed.
@settings(max_examples=_BATCHES, phases=(Phase.generate,))
def test_the_parsers_agree_about_generated_records(parsers: _Parsers, seed: int) -> None:
    random = Random(seed)
    records = write_records(parsers.pipeline.event, random, _BATCH // 2)
    values = [each.value for each in records if levels(each.value.decode(errors="replace")) != _UNCERTAIN_LEVELS]
    _assert_agreement(parsers, [*values, *_with_spaces(values, random)])
