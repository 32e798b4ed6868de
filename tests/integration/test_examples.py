"""The declared examples run through the whole pipeline, and equal a recomputation by DuckDB over what was sent."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars as pl
import pytest
from elasticsearch import Elasticsearch
from stream_processing.lake import Lake, table_files

from local_stack.services import ROOT, SINK, STREAM
from tests.crash_points import CRASHING_STREAM, NEVER_BY_SPARK
from tests.pipeline import Pipeline, assert_equal, eventually, headers_of, kill_9

Event = dict[str, Any]
Rows = dict[str, dict[str, dict[str, Any]]]
"""Rows by table and id; times are epoch milliseconds, decimals doubles."""

_IDS = ("plain", "a|b", "a\\", "\\|", "ü 日本", '"quoted"', "[/red]", "a|", "x" * 490)


@dataclass(frozen=True)
class Example:
    """An example: its events, records that are not valid with the reason, and its tables in SQL."""

    name: str
    event: Callable[[random.Random, int], Event]
    columns: str
    """The columns of the events for DuckDB."""
    tables: dict[str, tuple[tuple[str, ...], str]]
    """Key columns and query of each table."""
    malformed: tuple[tuple[str, str], ...]
    times: frozenset[str]


def _reading(rng: random.Random, n: int) -> Event:
    sensor = rng.choice(["temperature", "humidity", "pressure"])
    return {
        "device_id": rng.choice(_IDS),
        "sensor": sensor,
        "value": rng.choice([rng.randrange(-400, 8000) / 4, rng.randrange(-100, 2000), 0.5, -0.25]),
        "unit": {"temperature": "C", "humidity": "percent", "pressure": "hPa"}[sensor],
        "timestamp": 1_700_000_000_000 + rng.randrange(10**9) + n,
    }


_GOOD_READING = '"sensor": "humidity", "value": 1, "unit": "percent", "timestamp": 1700000000000}'

SENSORS = Example(
    "sensors",
    _reading,
    "{device_id: 'VARCHAR', sensor: 'VARCHAR', value: 'DOUBLE', unit: 'VARCHAR', timestamp: 'BIGINT'}",
    {
        "devices": (
            ("device_id",),
            """SELECT device_id, count(*) AS readings,
            count(*) FILTER (sensor = 'temperature') AS temperature_readings,
            count(*) FILTER (sensor = 'humidity') AS humidity_readings,
            count(*) FILTER (sensor = 'pressure') AS pressure_readings,
            max(value) FILTER (sensor = 'temperature') AS highest_temperature, max(timestamp) AS last_reading
            FROM events GROUP BY device_id""",
        ),
        "channels": (
            ("device_id", "sensor"),
            """SELECT device_id, sensor, count(*) AS readings, min(value) AS lowest, max(value) AS highest,
            [sum(value), count(*)] AS mean, max(timestamp) AS last_reading FROM events GROUP BY device_id, sensor""",
        ),
        "fleet": (
            (),
            """SELECT count(*) AS readings, [count(*), count(DISTINCT device_id)] AS readings_per_device FROM events
            HAVING count(*) > 0""",
        ),
    },
    (
        ("not json", "not one JSON object"),
        (f'{{"device_id": 5, {_GOOD_READING}', "device_id is not a string"),
        (f'{{{_GOOD_READING}', "device_id is missing or null"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("1,", '"1",'), "value is 1, not a number"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("1,", "null,"), "value is missing or null"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("1,", "2000.5,"), "value is 2000.5, not within -100 to 2000"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("humidity", "noise"),
         "sensor is noise, not one of temperature, humidity, pressure"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("1700000000000", "1700000000000000"),
         "timestamp 1700000000000000 is not epoch milliseconds within the years 1970 to 9999"),
        (f'{{"device_id": "d", {_GOOD_READING}'.replace("1700000000000", "1.5"),
         "timestamp is 1.5, not a whole number of milliseconds"),
        (json.dumps({"device_id": "|" * 300, "sensor": "humidity", "value": 1, "unit": "C", "timestamp": 1}),
         "device_id and sensor have 609 bytes as an id, more than 512"),
    ),
    frozenset({"last_reading"}),
)  # fmt: skip


def _order(rng: random.Random, n: int) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(10**7), milliseconds=n % 1000)
    zone = rng.choice([UTC, timezone(timedelta(hours=rng.randrange(-11, 12), minutes=30))])
    text = at.astimezone(zone).isoformat(timespec=rng.choice(["milliseconds", "microseconds"]))
    event = {
        "customer_id": rng.choice(_IDS),
        "category": rng.choice(["books", "music", "toys"]),
        "quantity": rng.randrange(1, 1001),
        "price": rng.choice([rng.randrange(10**7) / 100, 0, 19.99, 0.1]),
        "coupon": rng.choice(["spring", "ü", None]),
        "ordered_at": text.replace("+00:00", rng.choice(["Z", "+00:00"])),
    }
    if event["coupon"] is None and rng.random() < 0.5:
        del event["coupon"]
    return event


_ORDERED = '"ordered_at": "2026-01-31T12:00:00Z"}'


def _malformed_order(name: str, written: str) -> str:
    fields = {"customer_id": '"c"', "category": '"toys"', "quantity": "1", "price": "1.5", "coupon": "null"}
    fields |= {"ordered_at": '"2026-01-31T12:00:00Z"', name: written}
    return "{" + ", ".join(f'"{field}": {value}' for field, value in fields.items()) + "}"


ORDERS = Example(
    "orders",
    _order,
    "{customer_id: 'VARCHAR', category: 'VARCHAR', quantity: 'BIGINT', price: 'DECIMAL(18,2)', coupon: 'VARCHAR',"
    " ordered_at: 'TIMESTAMPTZ'}",
    {
        "customers": (
            ("customer_id",),
            """SELECT customer_id, count(*) AS orders, count(*) FILTER (category = 'books') AS books_orders,
            count(*) FILTER (category = 'music') AS music_orders, count(*) FILTER (category = 'toys') AS toys_orders,
            sum(quantity) AS items, sum(price) AS revenue, [sum(price), count(*)] AS mean_price,
            count(coupon) AS with_coupon, epoch_ms(min(ordered_at)) AS first_order,
            epoch_ms(max(ordered_at)) AS last_order FROM events GROUP BY customer_id""",
        ),
        "customer_categories": (
            ("customer_id", "category"),
            """SELECT customer_id, category, count(*) AS orders, sum(price) AS revenue, max(price) AS highest_price
            FROM events GROUP BY customer_id, category""",
        ),
        "category_days": (
            ("category", "day"),
            """SELECT category, epoch_ms(date_trunc('day', ordered_at)) AS day, count(*) AS orders,
            count(DISTINCT customer_id) AS customers, sum(price) AS revenue, [sum(price), count(*)] AS mean_price
            FROM events GROUP BY ALL""",
        ),
        "shop": (
            (),
            """SELECT count(*) AS orders, sum(price) AS revenue,
            [count(*), count(DISTINCT customer_id)] AS orders_per_customer FROM events HAVING count(*) > 0""",
        ),
    },
    (
        (_malformed_order("price", "1.005"), "price is 1.005, which has more than 2 decimal places"),
        (_malformed_order("price", "-1"), "price is -1, not within 0 to 9999999999999999.99"),
        (_malformed_order("price", "true"), "price is true, not a number"),
        (_malformed_order("quantity", "0"), "quantity is 0, not within 1 to 1000"),
        (_malformed_order("quantity", "1.5"), "quantity is 1.5, not a whole number"),
        (_malformed_order("quantity", "9" * 25), f"quantity is {'9' * 25}, not within 1 to 1000"),
        (_malformed_order("coupon", '""'), "coupon is empty"),
        (_malformed_order("coupon", "7"), "coupon is not a string"),
        (_malformed_order("ordered_at", '"2026-02-30T12:00:00Z"'),
         "ordered_at is 2026-02-30T12:00:00Z, not a time with a time zone, such as 2026-01-31T12:00:00Z"),
        (_malformed_order("ordered_at", '"2026-01-31T12:00:00"'),
         "ordered_at is 2026-01-31T12:00:00, not a time with a time zone, such as 2026-01-31T12:00:00Z"),
        (_malformed_order("ordered_at", '"1969-12-31T23:59:59Z"'),
         "ordered_at is 1969-12-31T23:59:59Z, not within the years 1970 to 9999"),
    ),
    frozenset({"first_order", "last_order", "day"}),
)  # fmt: skip
EXAMPLES = (SENSORS, ORDERS)


def _written(rng: random.Random, event: Event) -> bytes:
    """Return an event in one of the forms that producers write."""
    if rng.random() < 0.2:
        items = list(event.items())
        rng.shuffle(items)
        return json.dumps(dict(items) | {"other": "ignored"}).encode()
    separators = rng.choice([(",", ":"), (", ", ": ")])
    return json.dumps(event, separators=separators, ensure_ascii=rng.random() < 0.3).encode()


def _expected(example: Example, events: list[Event], folder: Path) -> Rows:
    """Compute the tables of the events by DuckDB."""
    file = folder / "events.json"
    file.write_bytes(b"\n".join(orjson.dumps(event) for event in events))
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        source = f"read_json('{file}', format = 'newline_delimited', columns = {example.columns})"
        database.execute(f"CREATE TABLE events AS SELECT * FROM {source}")
        found: Rows = {}
        for name, (key, query) in example.tables.items():
            result = database.execute(query)
            columns = [column[0] for column in result.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
            found[name] = {_row_id(name, key, row): {n: _plain(value) for n, value in row.items()} for row in rows}
    return found


def _row_id(table: str, key: tuple[str, ...], row: dict[str, Any]) -> str:
    if len(key) < 2:
        return str(row[key[0]]) if key else table
    texts = [_day(row[name]) if name == "day" else str(row[name]) for name in key]
    return "|".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in texts)


def _day(start: int | datetime) -> str:
    time = start if isinstance(start, datetime) else datetime.fromtimestamp(start / 1000, UTC)
    return time.strftime("%Y-%m-%dT00:00:00Z")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        dividend, divisor = (Decimal(str(each)) for each in value)
        return float((dividend / divisor).quantize(Decimal("0.01"), ROUND_HALF_UP))
    return float(value) if isinstance(value, Decimal) else value


def _comparable(example: Example, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a store with times in epoch milliseconds and decimals as doubles."""
    return {
        name: _milliseconds(value) if name in example.times and value is not None else _plain(value)
        for name, value in row.items()
    }


def _milliseconds(value: Any) -> int:
    if isinstance(value, int):
        return value
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _in_the_topic(pipeline: Pipeline, example: Example) -> Rows:
    rows: Rows = {name: {} for name in example.tables}
    for message in pipeline.read(pipeline.settings.aggregated_topic):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        table, _, row_id = key.decode().partition("-")
        rows[table][row_id or table] = _comparable(example, orjson.loads(value))
    return rows


def _in_the_lake(pipeline: Pipeline, example: Example) -> Rows:
    return {
        table: {_row_id(table, key, row): _comparable(example, row) for row in _rows(pipeline, table).to_dicts()}
        for table, (key, _) in example.tables.items()
    }


def _rows(pipeline: Pipeline, table: str) -> pl.DataFrame:
    lake = Lake(str(pipeline.data / "warehouse"))
    files = table_files(lake.table(table), lake.path(table))
    assert files, "none before the first merge: `eventually` tries again"
    return pl.concat([pl.read_parquet(file) for file in files])


def _in_the_indices(pipeline: Pipeline, example: Example) -> Rows:
    return {
        table: {row_id: _comparable(example, row) for row_id, row in pipeline.documents(table).items()}
        for table in example.tables
    }


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest, pipeline: Pipeline) -> Iterator[Example]:
    found: Example = request.param
    yield found
    with Elasticsearch([pipeline.es_url]) as client:
        for table in found.tables:
            client.indices.delete(index=table, ignore_unavailable=True)
            if client.indices.exists_index_template(name=table):
                client.indices.delete_index_template(name=table)


def test_an_example_is_exact_in_topic_lake_and_indices_across_a_kill(
    pipeline: Pipeline, example: Example, tmp_path: Path
) -> None:
    declaration = ROOT / "examples" / example.name / "pipeline.py"
    rng = random.Random(3)
    events = [example.event(rng, n) for n in range(3_000)]
    records = [(b"key", _written(rng, event)) for event in events]
    malformed = [(b"key", value.encode()) for value, _ in example.malformed]
    job = pipeline.service(STREAM, PIPELINE=declaration, MAX_OFFSETS_PER_BATCH=500)
    with pipeline.running(SINK, PIPELINE=declaration):
        try:
            job.start()
            pipeline.send(pipeline.topic, [*records[:1_000], *malformed])
            half = _expected(example, events[:1_000], tmp_path)
            eventually(lambda: assert_equal(_in_the_topic(pipeline, example), half))
            pipeline.send(pipeline.topic, records[1_000:])
            kill_9(job)
        finally:
            job.kill()
        expected = _expected(example, events, tmp_path)
        with pipeline.running(STREAM, PIPELINE=declaration):
            eventually(lambda: assert_equal(_in_the_topic(pipeline, example), expected))
            eventually(lambda: assert_equal(_in_the_lake(pipeline, example), expected))
            eventually(lambda: assert_equal(_in_the_indices(pipeline, example), expected))
            eventually(lambda: _assert_reasons(pipeline, example))
            pipeline.assert_exact(PIPELINE=declaration)
    assert {alert["index"] for alert in pipeline.alerts()} & set(example.tables)


def _assert_reasons(pipeline: Pipeline, example: Example) -> None:
    letters = pipeline.read(pipeline.settings.dead_letter_topic)
    found = [((m.value() or b"").decode(), headers_of(m)["dead_letter.reason"]) for m in letters]
    assert sorted(found) == sorted(example.malformed)


@pytest.mark.parametrize("setting", ["by Spark", "rocksdb"])
def test_every_path_through_the_stream_job_gives_the_same_rows(
    pipeline: Pipeline, example: Example, tmp_path: Path, setting: str
) -> None:
    """Large batches take Spark's parser and writer, RocksDB its aggregations."""
    declaration = ROOT / "examples" / example.name / "pipeline.py"
    rng = random.Random(4)
    events = [example.event(rng, n) for n in range(2_000)]
    records = [(b"key", _written(rng, event)) for event in events]
    # Of canonical records only, for the fast plan; then of all forms.
    canonical = [(b"key", json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()) for event in events]
    canonical = [record for record in canonical if b"\\" not in record[1]]
    malformed = [(b"key", value.encode()) for value, _ in example.malformed]
    every = [*records, *malformed, *canonical]
    sent = [*events, *(json.loads(value) for _, value in canonical)]
    if setting == "by Spark":
        job = pipeline.running(CRASHING_STREAM, PIPELINE=declaration, KILL_AT=NEVER_BY_SPARK)
    else:
        job = pipeline.running(STREAM, PIPELINE=declaration, STATE_STORE="rocksdb")
    expected = _expected(example, sent, tmp_path)
    with job:
        pipeline.send(pipeline.topic, every)
        eventually(lambda: assert_equal(_in_the_topic(pipeline, example), expected))
        eventually(lambda: assert_equal(_in_the_lake(pipeline, example), expected))
        eventually(lambda: _assert_reasons(pipeline, example))
    first = next(iter(sent[0]))
    in_the_lake = _rows(pipeline, "readings" if example is SENSORS else "orders")
    assert Counter(in_the_lake[first]) == Counter(event[first] for event in sent)
