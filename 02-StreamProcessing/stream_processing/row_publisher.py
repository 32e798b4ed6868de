"""Publishes changed rows to the aggregated topic."""

import logging
from typing import Final

import polars as pl

from contract.interaction import MAX_ID_BYTES
from contract.tables import AGGREGATE_TABLES, AggregateTable
from stream_processing.engines import POLARS
from stream_processing.kafka_io import RowProducer
from stream_processing.keyed_state import publishable
from stream_processing.measures import record_key, record_value

_ROWS_AT_ONCE: Final = 20_000
"""Bounds the memory of the texts."""

logger = logging.getLogger(__name__)


class RowPublisher:
    """Turns states into the rows of their tables, and sends them."""

    def __init__(self, producer: RowProducer) -> None:
        self._producer = producer

    def publish(self, key: str | None, states: pl.DataFrame) -> None:
        """Send the rows of all tables with this key; without waiting for the broker."""
        publishable = states if key is None else _publishable(key, states)
        for table in AGGREGATE_TABLES:
            if table.key == key:
                self._send(table, publishable)

    def _send(self, table: AggregateTable, states: pl.DataFrame) -> None:
        for part in states.iter_slices(_ROWS_AT_ONCE):
            records = part.select(key=record_key(POLARS, table), value=record_value(POLARS, table))
            self._producer.send(zip(records["key"], records["value"], strict=True))


def _publishable(key: str, states: pl.DataFrame) -> pl.DataFrame:
    found = publishable(key, states)
    if len(found) < len(states):
        logger.warning(
            "%d changed keys are in the lake and not published: their ids have more than %d bytes",
            len(states) - len(found), MAX_ID_BYTES,
        )  # fmt: skip
    return found
