"""The position of a replay, in a file: which rows are in the topic, so that the next start continues after them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from data_producer.errors import ReplayError
from runtime.addresses import shown


@dataclass(frozen=True)
class Identity:
    """What a position is valid for: the same rows come in the same order as long as nothing of this changes."""

    source: str
    size: int
    """Bytes."""
    modified_ns: int
    query: str
    topic: str


class Position(BaseModel):
    """Which rows are in the topic: the first `row` ones, except those that were skipped."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    identity: Identity
    row: int = 0
    """The number of rows that are sent or skipped."""
    sent: int = 0
    skipped: int = 0
    ends: Mapping[int, int]
    """The end offset of each partition, when these rows were acknowledged and no later one was sent: an interaction of
    a later row can only be from there on."""
    stopped: bool = False
    """Whether no later row was sent: the producer was stopped, not killed."""
    finished: bool = False
    """Whether there is no later row."""

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the position; None if the file does not exist. Raises `ReplayError`."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReplayError(_error(path, f"cannot be read: {error.strerror}")) from None
        except ValidationError:
            raise ReplayError(_error(path, "is no position of a replay: choose another path")) from None

    def store(self, path: Path) -> None:
        """Replace the file at once: after a kill it has this position or the previous one. Raises `ReplayError`."""
        temporary = path.with_name(f"{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(self.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise ReplayError(_error(path, f"cannot be written: {error.strerror}: choose another path")) from None


def _error(path: Path, reason: str) -> str:
    return f"PRODUCER_POSITION={shown(str(path))} {reason}"
