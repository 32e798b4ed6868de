"""The words of a declaration: what `pipeline.py` imports."""

from contract.event import Event
from contract.fields import (
    choice,
    decimal,
    epoch_milliseconds,
    epoch_seconds,
    flag,
    iso_datetime,
    number,
    text,
    whole,
)
from contract.measures import (
    count,
    distinct,
    earliest,
    latest,
    least,
    least_choice,
    mean,
    mean_per_choice,
    most,
    most_choice,
    ratio,
    rows_of,
    total,
)
from contract.pipeline import Overview, Pipeline
from contract.tables import Table
from contract.windows import days, every, hours, minutes

__all__ = [
    "Event",
    "Overview",
    "Pipeline",
    "Table",
    "choice",
    "count",
    "days",
    "decimal",
    "distinct",
    "earliest",
    "epoch_milliseconds",
    "epoch_seconds",
    "every",
    "flag",
    "hours",
    "iso_datetime",
    "latest",
    "least",
    "least_choice",
    "mean",
    "mean_per_choice",
    "minutes",
    "most",
    "most_choice",
    "number",
    "ratio",
    "rows_of",
    "text",
    "total",
    "whole",
]
