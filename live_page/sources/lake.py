"""The Delta tables: history read by delta-rs, rows queried by DuckDB in a separate process."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from cachetools import TLRUCache
from cachetools.func import ttl_cache
from deltalake import DeltaTable

from contract import declared
from live_page.sources import sql_worker
from live_page.sources.errors import EmptyError, UnavailableError, WaitingError, translate_errors

DELTA: Final = "The lake"
TABLES: Final = (declared.EVENT.name, *(table.name for table in declared.TABLES))
_MAX_QUERY_LENGTH: Final = 10_000
_CANCEL_CHECK_INTERVAL: Final = 0.05
"""Seconds."""
_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\b.*")
_KEPT_ANSWERS: Final = 100
_ANSWER_SECONDS: Final = 7.0
_FAILED_SECONDS: Final = 30.0
_WAITING: Final = "waiting for another query"
_CANCELLED: Final = "The query was cancelled."
NOT_LOCAL: Final = "needs a warehouse that is a local folder; this one is not"


class QueryError(Exception):
    """A query is invalid, not allowed or takes too long; the message gives the reason."""


class BusyError(QueryError):
    """Another query runs."""


@dataclass(frozen=True)
class Version:
    """A commit to a table."""

    version: int
    at: datetime
    operation: str
    rows: int | None


@dataclass(frozen=True)
class TableState:
    """Current state of a Delta table."""

    name: str
    rows: int
    files: int
    bytes: int
    version: int
    history: tuple[Version, ...]
    """The latest first."""


@dataclass(frozen=True)
class Versions:
    """The versions of a table that maintenance has kept, each of which can be read."""

    first: int
    last: int


@dataclass(frozen=True)
class QueryResult:
    """First rows of a query's result."""

    columns: list[str]
    numeric: list[bool]
    """Whether each column holds numbers."""
    rows: list[list[str | None]]
    """Cells as DuckDB formats them, so that integers of any size are exact."""
    truncations: list[str]
    """Descriptions of the parts left out."""
    seconds: float


class _Waiting:
    """Counts the queries that wait before others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.queries = 0

    def __enter__(self) -> None:
        with self._lock:
            self.queries += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.queries -= 1


class LakeReader:
    """Reads the warehouse: history and rows if it is a folder, otherwise history alone."""

    def __init__(self, warehouse: str, seconds: float) -> None:
        """Create a reader whose queries may take `seconds`."""
        self._warehouse = warehouse.removeprefix("file://").rstrip("/")
        self._seconds = seconds
        # One query at a time leaves the other cores to the pipeline.
        self._lock = threading.Lock()
        self._first = _Waiting()
        self.state = ttl_cache(20, 2)(self._state)
        self.sample = ttl_cache(50, 4)(self._sample)
        self.versions = ttl_cache(20, 4)(self._versions)
        self._answers: TLRUCache[tuple[str, ...], QueryResult | UnavailableError] = TLRUCache(_KEPT_ANSWERS, _expiry)
        self._answers_lock = threading.Lock()

    def _state(self, name: str) -> TableState:
        """Read the current state of a table; raises `EmptyError`, `UnavailableError`."""
        with translate_errors(DELTA):
            table = DeltaTable(self._path(name))
            actions = table.get_add_actions(flatten=True)
            sizes = actions["size_bytes"].to_pylist()
            history = table.history(15)
            return TableState(
                name, int(table.count()), len(sizes), sum(sizes), table.version(), tuple(map(_version, history))
            )

    def _versions(self, name: str) -> Versions:
        """Return which versions of a table can be read; raises `EmptyError`, `UnavailableError`."""
        if not self._is_local:
            raise EmptyError(f"Reading an earlier version {NOT_LOCAL}")
        with translate_errors(DELTA):
            return Versions(first_version(Path(self._path(name))), DeltaTable(self._path(name)).version())

    def _sample(
        self,
        name: str,
        condition: str = "",
        *parameters: str,
        order: str = "",
        size: int = 10,
        version: int | None = None,
    ) -> QueryResult:
        """Read some rows of a table, as default of its current version.

        Raises `EmptyError`, `UnavailableError`, or `WaitingError` while another query runs.
        """
        # Names in quotes, since they can be words of SQL.
        where = f" WHERE {condition}" if condition else ""
        by = f' ORDER BY "{order}" DESC' if order else ""
        try:
            versions = {} if version is None else {name: version}
            query = f'SELECT * FROM "{name}"{where}{by} LIMIT {size}'
            return self.query(query, *parameters, versions=versions, gives_way=True)
        except BusyError:
            raise WaitingError(_WAITING) from None
        except QueryError as error:
            raise UnavailableError(str(error)) from None

    def answer(self, sql: str, *parameters: str) -> QueryResult:
        """Answer a query of the page's own, or repeat the answer of a moment ago, also if it has failed.

        Raises `EmptyError`, `UnavailableError`, or `WaitingError` while another query runs.
        """
        with self._answers_lock:
            known = self._answers.get((sql, *parameters))
        if known is None:
            try:
                known = self.query(sql, *parameters, gives_way=True)
            except BusyError:
                raise WaitingError(_WAITING) from None
            except QueryError as error:
                known = UnavailableError(str(error))
            with self._answers_lock:
                self._answers[(sql, *parameters)] = known
        if isinstance(known, UnavailableError):
            raise UnavailableError(str(known))
        return known

    def query(
        self,
        sql: str,
        *parameters: str,
        is_cancelled: Callable[[], bool] = lambda: False,
        versions: Mapping[str, int] = MappingProxyType({}),
        gives_way: bool = False,
    ) -> QueryResult:
        """Run one SELECT over the tables; raises `QueryError`, `EmptyError`, `UnavailableError`.

        Runs in a separate process, which is killed on timeout or when `is_cancelled` returns true. A table is read as
        of its version in `versions`, or its current one. A query that `gives_way` runs after those that do not.
        """
        if not self._is_local:
            raise QueryError(f"A query {NOT_LOCAL}.")
        if len(sql) > _MAX_QUERY_LENGTH:
            raise QueryError(f"The query is longer than {_MAX_QUERY_LENGTH:,} characters.")
        if not sql.isascii() and any("\ud800" <= character <= "\udfff" for character in sql):
            raise QueryError("The query has half of a surrogate pair, which is not a character.")
        began = time.monotonic()
        self._claim(is_cancelled, gives_way=gives_way)
        try:
            folder = str(Path(self._warehouse).resolve())
            request = {"sql": sql, "parameters": parameters, "files": self._files(versions), "folder": folder}
            result = self._run_worker(json.dumps(request | {"seconds": self._seconds}), is_cancelled)
        finally:
            self._lock.release()
        if "error" in result:
            raise QueryError(result["error"])
        return QueryResult(**result, seconds=time.monotonic() - began)

    def _claim(self, is_cancelled: Callable[[], bool], *, gives_way: bool) -> None:
        """Wait until no other query runs; raises `BusyError` if that takes too long."""
        until = time.monotonic() + self._seconds
        with nullcontext() if gives_way else self._first:
            while True:
                if gives_way and self._first.queries:
                    time.sleep(_CANCEL_CHECK_INTERVAL)
                elif self._lock.acquire(timeout=_CANCEL_CHECK_INTERVAL):
                    return
                if is_cancelled():
                    raise QueryError(_CANCELLED)
                if time.monotonic() > until:
                    raise BusyError("Another query is running: try again in a moment.")

    def _run_worker(self, request: str, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Return the worker's answer; raises `QueryError` if it was killed."""
        # Without the environment, which may hold passwords; one arena, or each thread reserves memory.
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
            try:
                output = self._communicate(worker, request, is_cancelled)
            finally:
                worker.kill()
        if worker.returncode == -signal.SIGALRM:
            raise self._timeout_error()
        try:
            result: dict[str, Any] = json.loads(output)
        except ValueError:
            status = worker.returncode
            exit_reason = signal.Signals(-status).name if status < 0 else f"status {status}"
            limit = sql_worker.MAX_PROCESS_MEMORY
            raise QueryError(
                f"The query's process ended early ({exit_reason}), probably because it needed more than {limit} MB of"
                " memory: select less."
            ) from None
        return result

    def _communicate(self, worker: "subprocess.Popen[str]", request: str, is_cancelled: Callable[[], bool]) -> str:
        """Send the request and return the worker's output; raises `QueryError` on timeout or cancellation."""
        deadline, unsent = time.monotonic() + self._seconds, request
        while True:
            try:
                return worker.communicate(unsent or None, timeout=_CANCEL_CHECK_INTERVAL)[0]
            except subprocess.TimeoutExpired:
                unsent = ""
            if is_cancelled():
                raise QueryError(_CANCELLED)
            if time.monotonic() > deadline:
                raise self._timeout_error()

    def _timeout_error(self) -> QueryError:
        return QueryError(f"The query took longer than {self._seconds:g} seconds and was stopped.")

    @property
    def _is_local(self) -> bool:
        return "://" not in self._warehouse

    def _files(self, versions: Mapping[str, int]) -> dict[str, list[str]]:
        """List the files of each table; raises `QueryError`, `EmptyError`, `UnavailableError`."""
        files = {}
        for name in TABLES:
            with suppress(EmptyError), translate_errors(DELTA):
                uris = DeltaTable(self._path(name), version=versions.get(name)).file_uris()
                paths = [Path(unquote(uri.removeprefix("file://"))).resolve() for uri in uris]
                if name in versions and not all(path.exists() for path in paths):
                    raise QueryError(f"Version {versions[name]} of {name} is not kept any more: choose a later one.")
                if paths:
                    files[name] = [str(path) for path in paths]
        if not files:
            raise EmptyError("No tables yet: the stream job creates them with its first batch.")
        return files

    def _path(self, name: str) -> str:
        return f"{self._warehouse}/{name}"


def _expiry(_: object, answer: QueryResult | UnavailableError, now: float) -> float:
    """Return when an answer is too old: the queries of open pages take a tenth of the time of the lake at most."""
    return now + (
        _FAILED_SECONDS if isinstance(answer, UnavailableError) else max(_ANSWER_SECONDS, 10 * answer.seconds)
    )


def first_version(table: Path) -> int:
    """Return the first version that can be read: maintenance has removed log entries or files of those before it."""
    names = sorted(path.name for path in (table / "_delta_log").glob("*"))
    commits = [int(found[1]) for found in map(_COMMIT.fullmatch, names) if found]
    checkpoints = [int(found[1]) for found in map(_CHECKPOINT.fullmatch, names) if found]
    if not commits:
        return max(checkpoints, default=0)
    # A version is read from a checkpoint and the entries after it, or from the very first entry.
    first = 0 if commits[0] == 0 else min((each for each in checkpoints if each >= commits[0] - 1), default=commits[0])
    for version in reversed(commits):
        if version <= first:
            break
        # What this version has removed is needed by the one before.
        if not all((table / path).exists() for path in _removed_files(table / "_delta_log" / f"{version:020d}.json")):
            return version
    return first


def _removed_files(commit: Path) -> Iterator[str]:
    # Maintenance may remove the entry meanwhile.
    with suppress(FileNotFoundError):
        for line in commit.read_bytes().splitlines():
            if b'"remove"' in line and (removed := json.loads(line).get("remove")):
                yield unquote(removed["path"])


def _version(commit: dict[str, Any]) -> Version:
    metrics = commit.get("operationMetrics") or {}
    rows = metrics.get("numOutputRows", metrics.get("num_added_rows"))
    at = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
    return Version(commit["version"], at, commit.get("operation", ""), None if rows is None else int(rows))
