"""The Delta table of events at one version, and the rows that each later version has added."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from contract.event import Event
from verify.database import Database, literal, name
from verify.events import lake_columns, sql_types

LAKE: Final = "lake"
"""The view of all events at the version of the cut."""
LATER: Final = "later"
"""The table of the events that later versions have added, with the column `_version`."""
_MAX_COMMITS: Final = 5_000
"""Commits in which appends are looked for."""


class NotReadableError(Exception):
    """Something cannot be compared; the message has the reason and the remedy."""


@dataclass(frozen=True)
class Cut:
    """A version of the table of events, and the part of the topic that it was made of."""

    version: int
    offsets: Mapping[int, int] = field(default_factory=dict)
    """The next offset of each partition."""
    topic_id: str | None = None
    """The id of the topic that was read last; None if nothing was read."""
    is_whole: bool = True
    """Whether the table has nothing but the records of this topic, as far as its history tells."""


class Warehouse:
    """The Delta tables of a folder."""

    def __init__(self, folder: str) -> None:
        """Raises `NotReadableError` if it is no folder of this machine."""
        if "://" in folder.removeprefix("file://"):
            raise NotReadableError(
                f"WAREHOUSE={folder} is not a folder: copy the tables to a folder of this machine, and name that"
            )
        self._folder = Path(folder.removeprefix("file://"))

    def cut(self, event: Event, topic: str) -> Cut:
        """Return the current version of the table of events; raises `NotReadableError`."""
        # Not by the table's history, which has commits that are newer than its version while others write.
        version = self._open(event.name).version()
        appends = list(self._appends(event.name, version))
        offsets: dict[str, dict[str, int]] = next((append["offsets"] for append in appends), {topic: {}})
        if topic not in offsets:
            raise NotReadableError(
                f"{event.name} was read from topic {', '.join(offsets)}, and KAFKA_TOPIC is {topic}: set KAFKA_TOPIC"
            )
        topics = {append["topic_id"] for append in appends}
        skips = any(append["query"] == "accept-gap" for append in appends)
        read = {int(partition): int(offset) for partition, offset in offsets[topic].items()}
        topic_id = str(appends[0]["topic_id"]) if appends else None
        return Cut(version, read, topic_id, is_whole=len(topics) <= 1 and not skips)

    def rows(self, name: str, version: int | None = None) -> str:
        """Return a table as SQL has it, at its current version or another one; raises `NotReadableError`."""
        uris = self._open(name, version).file_uris()
        files = [unquote(uri.removeprefix("file://")) for uri in uris]
        if not files:
            raise NoRowsError(name)
        return f"read_parquet([{', '.join(literal(file) for file in files)}])"

    def version(self, name: str) -> int:
        """Return the current version of a table; raises `NotReadableError`."""
        return self._open(name).version()

    def load_later(self, database: Database, event: Event, after: int, until: int) -> None:
        """Add the events of the versions after one until another to `LATER`."""
        for version in range(after + 1, until + 1):
            files = list(self._added(event.name, version))
            if files:
                paths = ", ".join(literal(str(self._folder / event.name / file)) for file in files)
                columns = ", ".join(lake_columns(event))
                database.run(f"INSERT INTO {LATER} SELECT {columns}, {version} FROM read_parquet([{paths}])")

    def _appends(self, name: str, version: int) -> Iterator[dict[str, Any]]:
        """Yield what the job has written about its appends until a version, the latest first."""
        for number in range(version, max(-1, version - _MAX_COMMITS), -1):
            try:
                actions = self._actions(name, number)
            except FileNotFoundError:
                return
            yield from filter(None, (_append(action["commitInfo"]) for action in actions if "commitInfo" in action))

    def _added(self, name: str, version: int) -> Iterator[str]:
        """Yield the files that a version has added, if they are no copies of rows that were there before."""
        try:
            actions = self._actions(name, version)
        except FileNotFoundError as error:
            raise NotReadableError(
                f"{error.filename} was deleted meanwhile: set LAKE_HISTORY to more minutes, and restart the stream job"
            ) from None
        for action in actions:
            if "add" in action and action["add"]["dataChange"]:
                yield unquote(action["add"]["path"])

    def _actions(self, name: str, version: int) -> list[dict[str, Any]]:
        """Return the actions of a version; raises FileNotFoundError if the log no longer has it."""
        log = self._folder / name / "_delta_log" / f"{version:020}.json"
        return [json.loads(line) for line in log.read_text().splitlines()]

    def _open(self, name: str, version: int | None = None) -> DeltaTable:
        path = self._folder / name
        try:
            return DeltaTable(str(path), version=version)
        except TableNotFoundError:
            raise NotReadableError(
                f"{path} is no Delta table: set WAREHOUSE to the folder that the stream job writes to"
            ) from None
        except (DeltaError, OSError) as error:
            raise NotReadableError(f"{path} cannot be read: {error}") from None


class NoRowsError(Exception):
    """A Delta table has no row."""


def create_views(database: Database, warehouse: Warehouse, event: Event, cut: Cut) -> None:
    """Create `LAKE` and an empty `LATER`."""
    columns = ", ".join(lake_columns(event))
    try:
        rows = warehouse.rows(event.name, cut.version)
        database.run(f"CREATE VIEW {LAKE} AS SELECT {columns} FROM {rows}")
    except NoRowsError:
        database.run(f"CREATE VIEW {LAKE} AS SELECT {_empty(event)} LIMIT 0")
    database.run(f"CREATE TABLE {LATER} AS SELECT *, 0::BIGINT AS _version FROM {LAKE} LIMIT 0")


def _empty(event: Event) -> str:
    return ", ".join(f"NULL::{kind} AS {name(column)}" for column, kind in sql_types(event).items())


def _append(commit: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        append: dict[str, Any] = json.loads(commit["userMetadata"])
        return append if {"offsets", "topic_id", "query"} <= append.keys() else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
