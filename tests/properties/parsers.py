"""The declarations over which the parsers of the project are compared, and the stream job's modules for each."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

import polars as pl

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    decimal,
    epoch_milliseconds,
    epoch_seconds,
    flag,
    iso_datetime,
    number,
    text,
    whole,
)
from contract.loading import load
from local_stack.services import ROOT


def _every_type() -> Pipeline:
    """Declare an event with a field of each type, optional ones, and an id of several fields."""
    kind = choice("kind", "a", "b", "Straße")
    event = Event(
        "everything",
        text("who", max_bytes=100),
        kind,
        whole("size", at_least=-5, at_most=10**15),
        decimal("price", places=3, at_least=-1000, at_most=10**9),
        number("weight", at_least=-0.5),
        flag("isNew2"),
        epoch_seconds("at"),
        epoch_milliseconds("sent"),
        iso_datetime("ordered"),
        text("note", optional=True, max_bytes=50),
        text("place", optional=True, max_bytes=50, default="here"),
        whole("level", optional=True, default=3),
        decimal("discount", optional=True, default=0),
        flag("is_gift", optional=True),
        time="at",
        partition_by="who",
    )
    by_place = Table("by_place", event, key=("note", "place", "who"), measures={"n": count()})
    return Pipeline(event, tables=(by_place,), overview=Overview(total=by_place["n"]))


PIPELINES: Final = {
    **{
        name: load(ROOT / name)
        for name in ("pipeline.py", "examples/sensors/pipeline.py", "examples/orders/pipeline.py")
    },
    "every type": _every_type(),
}


def import_for(pipeline: Pipeline, name: str) -> ModuleType:
    """Import a module of the stream job as in a process with this declaration."""
    declared = SimpleNamespace(EVENT=pipeline.event, PIPELINE=pipeline, TABLES=pipeline.tables)
    # Before the patch, which removes all modules afterwards that are imported within it: some cannot be imported twice.
    import_module(f"stream_processing.{name}")
    with patch.dict(sys.modules, {"contract.declared": declared}):
        for each in [each for each in sys.modules if each.split(".")[0] == "stream_processing"]:
            del sys.modules[each]
        return import_module(f"stream_processing.{name}")


@dataclass(frozen=True)
class Reader:
    """The stream job's reader without Spark, for a declaration."""

    pipeline: Pipeline
    module: ModuleType

    def read(self, values: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Return the events, and the positions of the records that are left to Spark."""
        found: tuple[list[tuple[Any, ...]], list[int]] = self.module.read(values)
        return found

    def frame(self, events: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
        """Return events as rows of the lake's table."""
        return cast(pl.DataFrame, self.module.frame(events))


def reader_of(pipeline: Pipeline) -> Reader:
    """Return the reader as in a process with this declaration."""
    return Reader(pipeline, import_for(pipeline, "event_reader"))
