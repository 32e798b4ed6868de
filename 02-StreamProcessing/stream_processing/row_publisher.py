"""Publishes changed rows to the aggregated topic."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import polars as pl

from contract.fields import MAX_ID_BYTES
from contract.tables import Key, Table
from contract.topics import TRACEPARENT
from stream_processing.engines import POLARS
from stream_processing.kafka_io import RowProducer
from stream_processing.keyed_state import publishable
from stream_processing.measures import record_key, record_value, tables_of
from stream_processing.retention import is_expired

_ROWS_AT_ONCE: Final = 20_000
"""Bounds the memory of the texts."""

logger = logging.getLogger(__name__)


class RowPublisher:
    """Turns states into the rows of their tables, and sends them."""

    def __init__(self, producer: RowProducer) -> None:
        self._producer = producer

    def publish(
        self, key: Key, states: pl.DataFrame, clock: datetime | None, contexts: Mapping[str, str] | None = None
    ) -> None:
        """Send the rows of all tables with this key; without waiting for the broker.

        Of rows that their table no longer keeps at this time of the events, the deletion is sent. `contexts` has the
        trace of rows by topic key, for their header.
        """
        found = _publishable(states)
        for table in tables_of(key):
            if table.keep is None:
                self._send(table, found, contexts)
            else:
                expired = is_expired(table, clock)
                self._send(table, found.filter(~expired), contexts)
                keys = found.filter(expired).select(record_key(POLARS, table)).to_series()
                self._producer.send((key, None) for key in keys)

    def _send(self, table: Table, states: pl.DataFrame, contexts: Mapping[str, str] | None) -> None:
        for part in states.iter_slices(_ROWS_AT_ONCE):
            records = part.select(key=record_key(POLARS, table), value=record_value(POLARS, table))
            if contexts:
                records = self._send_traced(records, contexts)
            self._producer.send(zip(records["key"], records["value"], strict=True))

    def _send_traced(self, records: pl.DataFrame, contexts: Mapping[str, str]) -> pl.DataFrame:
        """Send the records that have a trace, each with its header; returns the others."""
        is_traced = records["key"].is_in(list(contexts))
        for key, value in records.filter(is_traced).iter_rows():
            self._producer.send([(key, value)], {TRACEPARENT: contexts[key]})
        return records.filter(~is_traced)


def _publishable(states: pl.DataFrame) -> pl.DataFrame:
    found = publishable(states)
    if len(found) < len(states):
        logger.warning(
            "%d changed rows are in the lake and not published: their ids have more than %d bytes",
            len(states) - len(found), MAX_ID_BYTES,
        )  # fmt: skip
    return found
