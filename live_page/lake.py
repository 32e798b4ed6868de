"""What the Delta tables hold: their history from delta-rs, their rows by DuckDB in a process of its own."""

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from cachetools.func import ttl_cache
from deltalake import DeltaTable

from contract.tables import AGGREGATE_TABLES, INTERACTIONS
from live_page import sql_worker
from live_page.unavailable import EmptyError, UnavailableError, told

DELTA: Final = "The lake"
TABLES: Final = (INTERACTIONS, *(table.name for table in AGGREGATE_TABLES))
_LONGEST_QUERY: Final = 10_000
_LOOK: Final = 0.05
"""Seconds between looks whether a query has to end."""


class QueryError(Exception):
    """A query that is wrong, not allowed, or takes too long; the message says which."""


@dataclass(frozen=True)
class Version:
    """A commit of a table."""

    version: int
    at: datetime
    operation: str
    rows: int | None


@dataclass(frozen=True)
class TableState:
    """A Delta table as it is now."""

    name: str
    rows: int
    files: int
    bytes: int
    version: int
    history: tuple[Version, ...]
    """The latest first."""


@dataclass(frozen=True)
class Answer:
    """A query's first rows."""

    columns: list[str]
    numeric: list[bool]
    """Per column: whether it holds numbers."""
    rows: list[list[str | None]]
    """Each cell as DuckDB writes it: whole numbers are exact, whatever their size."""
    cut: list[str]
    """What was left out, in words."""
    seconds: float


class LakeReader:
    """Reads the warehouse, a folder; of one elsewhere it knows the history, and has no rows."""

    def __init__(self, warehouse: str, seconds: float) -> None:
        """`seconds`: how long a query may take."""
        self._warehouse = warehouse.removeprefix("file://").rstrip("/")
        self._seconds = seconds
        # One query at a time: the pipeline has the machine's other cores.
        self._turn = threading.Lock()
        self.state = ttl_cache(20, 2)(self._state)
        self.sample = ttl_cache(50, 4)(self._sample)

    def _state(self, name: str) -> TableState:
        """The table as it is now; raises `EmptyError`, `UnavailableError`."""
        with told(DELTA):
            table = DeltaTable(self._path(name))
            actions = table.get_add_actions(flatten=True)
            sizes = actions["size_bytes"].to_pylist()
            history = table.history(15)
            return TableState(
                name, int(table.count()), len(sizes), sum(sizes), table.version(), tuple(map(_version, history))
            )

    def _sample(self, name: str, condition: str = "", *parameters: str, order: str = "", size: int = 10) -> Answer:
        """Some rows of a table; raises `EmptyError`, `UnavailableError`."""
        where = f" WHERE {condition}" if condition else ""
        by = f" ORDER BY {order} DESC" if order else ""
        try:
            return self.query(f"SELECT * FROM {name}{where}{by} LIMIT {size}", *parameters)
        except QueryError as error:
            raise UnavailableError(str(error)) from None

    def query(self, sql: str, *parameters: str, cancelled: threading.Event | None = None) -> Answer:
        """The answer of one SELECT over the tables; raises `QueryError`, `EmptyError`, `UnavailableError`.

        It is computed in a process of its own, which is killed when the time is over or `cancelled` is set.
        """
        if "://" in self._warehouse:
            raise QueryError("Queries need a warehouse that is a folder; this one is elsewhere.")
        if len(sql) > _LONGEST_QUERY:
            raise QueryError(f"The query is longer than {_LONGEST_QUERY:,} characters.")
        began = time.monotonic()
        if not self._turn.acquire(timeout=self._seconds):
            raise QueryError("Another query is running: try again in a moment.")
        try:
            asked = {"sql": sql, "parameters": parameters, "files": self._files(), "seconds": self._seconds}
            said = self._run(json.dumps(asked | {"folder": str(Path(self._warehouse).resolve())}), cancelled)
        finally:
            self._turn.release()
        if "error" in said:
            raise QueryError(said["error"])
        return Answer(**said, seconds=time.monotonic() - began)

    def _run(self, asked: str, cancelled: threading.Event | None) -> dict[str, Any]:
        """What the worker says; raises `QueryError` where it was ended."""
        # Nothing of the environment, which may have passwords in it; one arena, or each thread reserves memory.
        command = [sys.executable, "-I", str(Path(sql_worker.__file__))]
        with subprocess.Popen(
            command,
            text=True,
            cwd="/",
            env={"MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as worker:
            until, said, left = time.monotonic() + self._seconds, "", asked
            try:
                while True:
                    try:
                        said, _ = worker.communicate(left or None, timeout=_LOOK)
                        break
                    except subprocess.TimeoutExpired:
                        left = ""
                    if cancelled is not None and cancelled.is_set():
                        raise QueryError("It was cancelled.")
                    if time.monotonic() > until:
                        raise QueryError(f"It took longer than {self._seconds:g} seconds, and was stopped.")
            finally:
                worker.kill()
        if worker.returncode == -signal.SIGALRM:
            raise QueryError(f"It took longer than {self._seconds:g} seconds, and was stopped.")
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            status = worker.returncode
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            limit = sql_worker.PROCESS_MEMORY
            raise QueryError(
                f"It ended early ({how}), probably for more than {limit} MB of memory: ask for less."
            ) from None
        return answer

    def _files(self) -> dict[str, list[str]]:
        """The files of each table's current version; raises `EmptyError`, `UnavailableError`."""
        files = {}
        for name in TABLES:
            with suppress(EmptyError), told(DELTA):
                uris = DeltaTable(self._path(name)).file_uris()
                if uris:
                    files[name] = [str(Path(unquote(uri.removeprefix("file://"))).resolve()) for uri in uris]
        if not files:
            raise EmptyError("There are no tables yet: the stream job makes them with its first batch.")
        return files

    def _path(self, name: str) -> str:
        return f"{self._warehouse}/{name}"


def _version(commit: dict[str, Any]) -> Version:
    measured = commit.get("operationMetrics") or {}
    rows = measured.get("numOutputRows", measured.get("num_added_rows"))
    at = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
    return Version(commit["version"], at, commit.get("operation", ""), None if rows is None else int(rows))
