"""An event as the producer has it, and its record."""

from datetime import datetime
from typing import Any

import orjson

from contract.declared import EVENT
from contract.fields import FieldType

Event = dict[str, Any]
"""The fields of an event by name, in the declared order, as JSON has them."""


def record_of(event: Event) -> dict[str, Any]:
    """Return the record of an event: JSON, keyed as declared.

    >>> record_of({"user_id": "user_1", "item_id": "item_2", "interaction_type": "view", "timestamp": 1})["key"]
    b'user_1'
    """
    return {"key": event[EVENT.partition_by].encode(), "value": orjson.dumps(event)}


def seconds_of(event: Event) -> float:
    """Return when an event has happened, in epoch seconds."""
    value = event[EVENT.time]
    match EVENT.time_field.type:
        case FieldType.ISO_DATETIME:
            return datetime.fromisoformat(value).timestamp()
        case FieldType.EPOCH_MILLISECONDS:
            return float(value) / 1000
        case _:
            return float(value)
