"""Reads the log of the interactions table: which files its appends have added.

The entries are part of the Delta protocol: `_delta_log/<version>.json` has one action per line.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote


class MissingLogEntryError(Exception):
    """The log does not reach back to a version."""


@dataclass(frozen=True)
class LakeLog:
    """The log of a table."""

    table: str
    read_text: Callable[[str], str | None]
    """Reads a small file; None if it does not exist."""

    def without_data(self, version: int) -> bool:
        """Whether the log has this version, and it added no data, such as a compaction."""
        text = self.read_text(self.entry(version))
        return text is not None and not list(added_files(text))

    def added_files(self, versions: Iterable[int]) -> Iterator[str]:
        """Yield the locations of the files that these versions appended; compactions add no data.

        Raises `MissingLogEntryError`.
        """
        for version in versions:
            text = self.read_text(self.entry(version))
            if text is None:
                raise MissingLogEntryError(f"{self.table} has no log entry of version {version}")
            for path in added_files(text):
                yield f"{self.table}/{path}"

    def digest(self, version: int) -> str | None:
        """Return a digest of a version's entry, which another table does not share; None without the entry."""
        text = self.read_text(self.entry(version))
        return None if text is None else sha256(text.encode()).hexdigest()

    def entry(self, version: int) -> str:
        """Return the location of a version's entry."""
        return f"{self.table}/_delta_log/{version:020d}.json"


def added_files(entry: str) -> Iterator[str]:
    """Yield the files that a log entry added as new data, relative to the table.

    >>> list(added_files('{"add":{"path":"a%20b","dataChange":true}}\\n{"add":{"path":"c","dataChange":false}}'))
    ['a b']
    """
    for line in entry.splitlines():
        action: dict[str, Any] = json.loads(line)
        if "add" in action and action["add"]["dataChange"]:
            yield unquote(action["add"]["path"])
