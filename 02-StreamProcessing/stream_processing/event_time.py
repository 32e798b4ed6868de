"""The time that events have reached: it closes windows, and deletes old rows."""

from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from contract.fields import ColumnType
from stream_processing.engines import polars_type

_CREDIBLE: Final = timedelta(days=1)
"""By how much the clock of a producer can be ahead, or its time zone be wrong."""


def event_time(events: pl.LazyFrame, column: str) -> datetime | None:
    """Return the greatest time in a column, at most the machine's own time; None without any.

    A time that is more than a day ahead does not count at all: it is wrong, and says nothing about the others, which
    may be old ones that are replayed.
    """
    now = datetime.now(UTC)
    time = pl.col(column).cast(polars_type(ColumnType.DATE))
    latest: datetime | None = events.select(time.filter(time <= now + _CREDIBLE).max()).collect().item()
    return None if latest is None else min(latest, now)
