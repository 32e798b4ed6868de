"""What the Delta tables hold: their history from delta-rs, their rows by DuckDB, for reading only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
from cachetools.func import ttl_cache
from deltalake import DeltaTable

from contract.tables import AGGREGATE_TABLES, INTERACTIONS
from live_page.unavailable import EmptyError, UnavailableError, told

DELTA: Final = "The lake"
TABLES: Final = (INTERACTIONS, *(table.name for table in AGGREGATE_TABLES))
MOST_ROWS: Final = 500
_LONGEST_QUERY: Final = 10_000


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
    """A query's rows, `MOST_ROWS` at most."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool
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

    def query(self, sql: str, *parameters: str) -> Answer:
        """The answer of one SELECT over the tables; raises `QueryError`, `EmptyError`, `UnavailableError`."""
        if "://" in self._warehouse:
            raise QueryError("Queries need a warehouse that is a folder; this one is elsewhere.")
        if len(sql) > _LONGEST_QUERY:
            raise QueryError(f"The query is longer than {_LONGEST_QUERY} characters.")
        began = datetime.now(UTC)
        if not self._turn.acquire(timeout=self._seconds):
            raise QueryError("Another query is running: try again in a moment.")
        try:
            with self._connection() as connection, self._time_limit(connection):
                _require_one_select(connection, sql)
                found = connection.execute(sql, parameters)
                columns = [column[0] for column in found.description]
                rows = found.fetchmany(MOST_ROWS + 1)
        except duckdb.InterruptException:
            raise QueryError(f"It took longer than {self._seconds:g} seconds, and was stopped.") from None
        except duckdb.Error as error:
            raise QueryError(str(error)) from None
        finally:
            self._turn.release()
        seconds = (datetime.now(UTC) - began).total_seconds()
        return Answer(columns, rows[:MOST_ROWS], len(rows) > MOST_ROWS, seconds)

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A database of the tables as they are now, in which nothing else can be read and nothing written."""
        connection = duckdb.connect(":memory:")
        try:
            connection.execute("SET TimeZone='UTC'; SET threads=1; SET memory_limit='300MB'")
            connection.execute("SET max_temp_directory_size='0B'; SET enable_progress_bar=false")
            connection.execute("SET allowed_directories=?", [[str(Path(self._warehouse).resolve())]])
            connection.execute("SET enable_external_access=false")
            there = [name for name in TABLES if self._add_view(connection, name)]
            if not there:
                raise EmptyError("There are no tables yet: the stream job makes them with its first batch.")
            connection.execute("SET lock_configuration=true")
            yield connection
        finally:
            connection.close()

    def _add_view(self, connection: duckdb.DuckDBPyConnection, name: str) -> bool:
        try:
            with told(DELTA):
                files = DeltaTable(self._path(name)).file_uris()
        except EmptyError:
            return False
        if files:
            connection.read_parquet([str(Path(file).resolve()) for file in files]).create_view(name)
        return bool(files)

    @contextmanager
    def _time_limit(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        timer = threading.Timer(self._seconds, connection.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _path(self, name: str) -> str:
        return f"{self._warehouse}/{name}"


def _require_one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"Expected one SELECT, not {len(statements)} statements.")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(f"Only SELECT is allowed here, and this is {statements[0].type.name}.")


def _version(commit: dict[str, Any]) -> Version:
    measured = commit.get("operationMetrics") or {}
    rows = measured.get("numOutputRows", measured.get("num_added_rows"))
    at = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
    return Version(commit["version"], at, commit.get("operation", ""), None if rows is None else int(rows))
