"""Measures how old the rows of a batch are when they are indexed, in a few operations for the whole batch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from contract.declared import TABLES
from elasticsearch_sink_alert import metrics
from elasticsearch_sink_alert.kafka.rows import Row

_LATEST_EVENT: Final = {table.name: table.latest_event for table in TABLES if table.latest_event is not None}
"""The column with the time of a row's latest event, by table; not every table has one."""
_MAX_PARSED: Final = 1_000
"""Times of events that are parsed in a batch, evenly spread over its rows: each stands for as many rows."""


def observe(rows: Sequence[Row], now: float) -> None:
    """Add the ages of rows that were indexed `now` (seconds since the epoch) to the histograms of latency."""
    appended = Counter(row.record.timestamp_ms for row in rows)
    metrics.INDEXING_LATENCY.observe(_ages(((time / 1000, number) for time, number in appended.items()), now))
    step = -(-len(rows) // _MAX_PARSED) or 1
    events = Counter(
        row.fields.get(_LATEST_EVENT[row.key.table])
        for row in rows[::step]
        if row.fields is not None and row.key.table in _LATEST_EVENT
    )
    metrics.END_TO_END_LATENCY.observe(_ages(((time, step * number) for time, number in _seconds(events)), now))


def _seconds(times: Mapping[object, int]) -> Iterable[tuple[float, int]]:
    for time, number in times.items():
        # Rows of other writers may have anything there.
        with suppress(ValueError, OverflowError):
            if isinstance(time, str):
                yield datetime.fromisoformat(time).timestamp(), number


def _ages(times: Iterable[tuple[float, int]], now: float) -> dict[float, int]:
    ages: dict[float, int] = {}
    for time, number in times:
        # Not negative, where the clocks of two machines differ.
        age = max(0.0, now - time)
        ages[age] = ages.get(age, 0) + number
    return ages
