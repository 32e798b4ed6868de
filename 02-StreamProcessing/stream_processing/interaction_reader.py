"""Reads ordinary records into interactions without Spark, whose fixed cost per batch exceeds that of a small batch.

A record is ordinary if it is certainly valid by `stream_processing.parsing`; that module decides about all others.

>>> read([b'{"user_id":"u","item_id":"i","interaction_type":"like","timestamp":1}'])
([('u', 'i', 'like', 1)], [])
>>> read([b'{"user_id":"u","item_id":"i","interaction_type":"like","timestamp":"1"}'])
([], [0])
"""

from collections.abc import Sequence
from typing import Final, TypeGuard

import orjson

from contract.interaction import INTERACTION_TYPES, MAX_ID_BYTES, MAX_TIMESTAMP, MIN_TIMESTAMP

_FIELDS: Final = ("user_id", "item_id", "interaction_type", "timestamp")
_QUOTES: Final = 14
"""Of four names and three texts: with more, a name occurs twice."""

Fields = tuple[str, str, str, int]
"""User, item, interaction type, epoch seconds."""


def read(values: Sequence[bytes]) -> tuple[list[Fields], list[int]]:
    """Return the interactions of the ordinary records, and the positions of the others."""
    interactions, others = [], []
    for position, value in enumerate(values):
        fields = _read(value)
        if fields is None:
            others.append(position)
        else:
            interactions.append(fields)
    return interactions, others


def _read(value: bytes) -> Fields | None:
    # Without a backslash, no text is half of a surrogate pair.
    if b"\\" in value or value.count(b'"') != _QUOTES:
        return None
    try:
        record = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict or len(record) != len(_FIELDS):
        return None
    user_id, item_id, interaction_type, timestamp = map(record.get, _FIELDS)
    if (
        _is_id(user_id)
        and _is_id(item_id)
        # A structure has no hash.
        and type(interaction_type) is str
        and interaction_type in INTERACTION_TYPES
        # A bool is an int.
        and type(timestamp) is int
        and MIN_TIMESTAMP <= timestamp <= MAX_TIMESTAMP
    ):
        return user_id, item_id, interaction_type, timestamp
    return None


def _is_id(value: object) -> TypeGuard[str]:
    return type(value) is str and 0 < len(value.encode()) <= MAX_ID_BYTES
