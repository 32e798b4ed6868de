"""The default declaration with the change that CHANGE names, for tests of changes over existing data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from contract.declaration import Event, Overview, Pipeline, Table, choice, count, epoch_seconds, text, whole
from contract.fields import Field
from contract.loading import load

_DEFAULT: Final = load(Path(__file__).parents[2] / "pipeline.py")
_KINDS: Final = ("click", "like", "view", "purchase")
CHANNELS: Final = ("web", "app")


def _pipeline(
    fields: tuple[Field, ...], kinds: tuple[str, ...], *, by_channel: bool = False, time: str = "timestamp"
) -> Pipeline:
    """Return a pipeline with the default's users, and with these fields at the end of the event."""
    kind = choice("interaction_type", *kinds)
    event = Event("interactions", text("user_id"), text("item_id"), kind, *fields, time=time, partition_by="user_id")
    measures = {f"total_{value}": count(where={kind: value}) for value in kinds}
    users = Table("agg_interactions_user", event, ("user_id",), {**measures, "total_interactions": count()})
    tables: tuple[Table, ...] = (users,)
    if by_channel:
        tables = (users, Table("interactions_per_channel", event, ("channel",), {"total": count()}))
    return Pipeline(event, tables, Overview(total=users["total_interactions"], by=kind))


_TIMESTAMP: Final = epoch_seconds("timestamp")
_CHANGES: Final[dict[str, Callable[[], Pipeline]]] = {
    "fewer measures": lambda: _pipeline((_TIMESTAMP,), _KINDS),
    "new choice": lambda: _pipeline((_TIMESTAMP,), (*_KINDS, "share")),
    "new field": lambda: _pipeline(
        (choice("channel", *CHANNELS, optional=True, default="web"), _TIMESTAMP), _KINDS, by_channel=True
    ),
    "new required field": lambda: _pipeline((whole("size"), _TIMESTAMP), _KINDS),
    "choice removed": lambda: _pipeline((_TIMESTAMP,), _KINDS[:3]),
    "type changed": lambda: _pipeline((whole("timestamp"), epoch_seconds("at")), _KINDS, time="at"),
    "renamed": lambda: _pipeline((epoch_seconds("at"),), _KINDS, time="at"),
}

PIPELINE = _CHANGES[os.environ["CHANGE"]]() if os.environ.get("CHANGE") else _DEFAULT
