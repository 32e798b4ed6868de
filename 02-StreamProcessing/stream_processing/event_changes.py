"""Compares the declared event with the one that the lake was written with.

A field that is added has to be optional: rows that were written before have none, and are read with its default.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pyspark.sql import SparkSession

from contract.declared import EVENT
from contract.event import Event
from contract.fields import Field
from stream_processing.lake import Lake
from stream_processing.settings import StreamProcessingSettings
from stream_processing.storage import read_text_if_exists, write_text

_FILE: Final = "event.definition"

Definition = Mapping[str, Any]
"""An event or a field, as it is stored."""


class EventChangedError(Exception):
    """The declared event does not fit the data that exists."""


def require_compatible_event(session: SparkSession, settings: StreamProcessingSettings, lake: Lake) -> None:
    """Add new fields to the lake's table, and store the event; raises `EventChangedError` if it does not fit."""
    file, current = f"{settings.checkpoints}/{_FILE}", definition(EVENT)
    known = read_text_if_exists(session, file)
    if known is not None:
        problems = list(incompatibilities(json.loads(known), current))
        if problems:
            raise EventChangedError(
                f"the declaration of the event does not fit the data in {settings.warehouse}: {'; '.join(problems)}."
                " Undo the change, or set KAFKA_TOPIC, WAREHOUSE and CHECKPOINTS to new ones"
            )
    lake.add_missing_event_columns()
    text = json.dumps(current, indent=1)
    if text != known:
        write_text(session, file, text)


def definition(event: Event) -> Definition:
    """Return what is stored of an event."""
    return {"name": event.name, "fields": {field.name: _of_field(field) for field in event.fields}}


def _of_field(field: Field) -> Definition:
    stored: dict[str, Any] = {"type": field.type.value}
    if field.choices:
        stored["choices"] = list(field.choices)
    if field.places:
        stored["places"] = field.places
    if field.optional:
        stored["optional"] = True
    return stored


def incompatibilities(before: Definition, now: Definition) -> Iterator[str]:
    """Yield what keeps the rows that were written before from being read as the event that is declared now."""
    if before["name"] != now["name"]:
        yield f"it was {before['name']}, and is {now['name']}"
        return
    for name, was in before["fields"].items():
        if name not in now["fields"]:
            yield f"field {name} was removed or renamed"
        else:
            yield from _changes(name, was, now["fields"][name])
    for name, field in now["fields"].items():
        if name not in before["fields"] and not field.get("optional"):
            yield f"field {name} is new, and rows that exist lack it: declare it with optional=True"


def _changes(name: str, was: Definition, now: Definition) -> Iterator[str]:
    if was["type"] != now["type"]:
        yield f"field {name} was a {was['type']}, and is a {now['type']}"
    elif was.get("places") != now.get("places"):
        yield f"field {name} had {was.get('places')} decimal places, and has {now.get('places')}"
    if was.get("optional") and not now.get("optional"):
        yield f"field {name} was optional, and rows that exist can lack it"
    if removed := _missing(was.get("choices", ()), now.get("choices", ())):
        yield f"field {name} no longer has {', '.join(removed)}, which rows that exist can have"


def _missing(before: Sequence[str], now: Sequence[str]) -> list[str]:
    return [value for value in before if value not in now]
