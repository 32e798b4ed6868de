"""Reads a recorded file by DuckDB: one SELECT, whose rows come in order, in batches, and with little memory."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import duckdb

from contract.dead_letters import MAX_REASON_CHARACTERS, truncated
from data_producer.columns import COLUMNS, OPTIONAL, InvalidRow, parse
from data_producer.errors import ReplayError
from data_producer.events import Event
from data_producer.position import Identity
from runtime.addresses import shown
from runtime.logs import escape_controls

TABLE: Final = "source"
"""The name of the file's table in a query."""
_MAX_MEMORY: Final = 128
"""MB that DuckDB may use; what a sort needs beyond is written to the temporary folder."""
_MAX_SHOWN_COLUMNS: Final = 20
_COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}
# Every column of a CSV is text: a detected type would turn the id 007 into 7, and fail at a later row of another type.
_CSV: Final = ("read_csv", {"all_varchar": True, "header": True})
_JSON_LINES: Final = ("read_json", {"format": "newline_delimited"})
_READERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    ".csv": _CSV,
    ".tsv": _CSV,
    ".json": ("read_json", {}),
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".parquet": ("read_parquet", {}),
}
"""DuckDB's function, and its options, by the ending of the file's name."""
_PARQUET: Final = "read_parquet"


class Recording:
    """The rows of one query over one file; the query can read nothing else, and write nothing."""

    def __init__(self, path: Path, query: str, temporary: Path | None = None) -> None:
        """Open the file and check the query; large sorts use the folder `temporary`. Raises `ReplayError`."""
        self._path = path
        self._setting = f"PRODUCER_SOURCE={shown(str(path))}"
        name, options = self._reader()
        _require_file(path, self._setting)
        self._connection = _connect(path, temporary)
        try:
            getattr(self._connection, name)(str(path.absolute()), **options).create_view(TABLE)
            self._connection.execute("SET lock_configuration=true")
            columns = self._columns(f"SELECT * FROM {TABLE}")
        except duckdb.Error as error:
            raise ReplayError(
                f"{self._setting} cannot be read: {_one_line(error)}: check that it is what the ending of its name says"
            ) from None
        self._query = _without_semicolon(query) if query else f"SELECT * FROM {TABLE}"
        self._has_query = bool(query)
        if query:
            self._require_one_select(query)
        self._select = f"SELECT {', '.join(self._expressions(columns))} FROM (\n{self._query}\n)"

    def identity(self, topic: str) -> Identity:
        """Return what a position in these rows is valid for."""
        status = self._path.stat()
        return Identity(str(self._path), status.st_size, status.st_mtime_ns, self._query, topic)

    def seek(self, row: int) -> None:
        """Continue after the first `row` rows. Raises `ReplayError`."""
        try:
            # Streams the rows, so that memory does not depend on their number.
            self._connection.execute(f"{self._select} OFFSET {row}")
        except duckdb.Error as error:
            raise self._failed(error) from None

    def read(self, count: int) -> list[Event | InvalidRow]:
        """Return the next rows, at most `count`; none at the end. Raises `ReplayError`."""
        try:
            return list(map(parse, self._connection.fetchmany(count)))
        except duckdb.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _reader(self) -> tuple[str, dict[str, Any]]:
        """Return DuckDB's function for this file, and its options."""
        *others, last = self._path.suffixes or [""]
        compression = _COMPRESSIONS.get(last.lower())
        ending = (others or [""])[-1] if compression else last
        reader, options = _READERS.get(ending.lower(), ("", {}))
        if not reader or (compression and reader == _PARQUET):
            *names, parquet = _READERS
            raise ReplayError(
                f"{self._setting} has an unknown format: expected a name that ends with {', '.join(names)} (each also"
                f" with {' or '.join(_COMPRESSIONS)}) or {parquet}"
            )
        return reader, {**options, **({"compression": compression} if compression else {})}

    def _require_one_select(self, query: str) -> None:
        try:
            statements = self._connection.extract_statements(query)
        except duckdb.Error as error:
            raise ReplayError(f"PRODUCER_QUERY has failed: {_one_line(error)}: correct it") from None
        if len(statements) != 1:
            raise ReplayError(f"PRODUCER_QUERY has {len(statements)} statements: set it to one SELECT")
        if statements[0].type is not duckdb.StatementType.SELECT:
            raise ReplayError(f"PRODUCER_QUERY is a statement of type {statements[0].type.name}: set it to a SELECT")

    def _columns(self, query: str) -> dict[str, str]:
        """Return DuckDB's type of each column of a query, by name."""
        described = self._connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE\n{query}\n)").fetchall()
        return dict(described)

    def _expressions(self, of_file: Mapping[str, str]) -> list[str]:
        """Return the SQL of each field of the event."""
        rest = "" if len(of_file) <= _MAX_SHOWN_COLUMNS else ", ..."
        listed = escape_controls(", ".join(list(of_file)[:_MAX_SHOWN_COLUMNS])) + rest
        try:
            columns = self._columns(self._query)
        except duckdb.Error as error:
            raise ReplayError(
                f"PRODUCER_QUERY has failed: {_one_line(error)}: the table is called {TABLE}, its columns are {listed}"
            ) from None
        by_name = {name.lower(): (name, kind) for name, kind in columns.items()}
        subject = "PRODUCER_QUERY" if self._has_query else self._setting
        required = (column.name for column in COLUMNS if not column.field.optional)
        if missing := [name for name in required if name.lower() not in by_name]:
            remedy = "name them with AS" if self._has_query else "map its columns with PRODUCER_QUERY"
            example = f"SELECT ... AS {missing[0]}, ... FROM {TABLE}"
            raise ReplayError(
                f"{subject} has no {', '.join(missing)}: {remedy}, such as {example}; the columns of the file are"
                f" {listed}"
            )
        expressions, errors = [], []
        for column in COLUMNS:
            if column.name.lower() not in by_name:
                expressions.append("NULL")
                continue
            name, kind = by_name[column.name.lower()]
            expression = column.expression(_quoted(name), kind)
            if expression is not None:
                expressions.append(expression)
            else:
                remedy = f"CAST it in PRODUCER_QUERY to {column.expected}"
                errors.append(f"{subject} has a column {column.name} of type {kind}: {remedy}")
        if errors:
            raise ReplayError("\n".join(errors))
        return [
            *expressions,
            *(
                f"{_quoted(by_name[name.lower()][0])} IS NOT NULL" if name.lower() in by_name else "false"
                for name in OPTIONAL
            ),
        ]

    def _failed(self, error: duckdb.Error) -> ReplayError:
        subject = "PRODUCER_QUERY" if self._has_query else self._setting
        return ReplayError(f"{subject} has failed: {_one_line(error)}: correct the file or the query")


def _require_file(path: Path, setting: str) -> None:
    remedy = "set it to the path of a recorded file"
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise ReplayError(f"{setting} does not exist: {remedy}") from None
    except IsADirectoryError:
        raise ReplayError(f"{setting} is a folder: {remedy}") from None
    except OSError as error:
        raise ReplayError(f"{setting} cannot be read: {error.strerror}: {remedy}, which this user may read") from None
    if is_empty:
        raise ReplayError(f"{setting} is empty: {remedy}")


def _connect(path: Path, temporary: Path | None) -> duckdb.DuckDBPyConnection:
    """Open a database in which nothing but this file can be read and nothing be written."""
    connection = duckdb.connect(":memory:")
    # One thread: rows come in the same order each time, also those of a query without ORDER BY.
    connection.execute(f"SET TimeZone='UTC'; SET threads=1; SET memory_limit='{_MAX_MEMORY}MB'")
    connection.execute("SET preserve_insertion_order=true; SET enable_progress_bar=false")
    connection.execute("SET autoinstall_known_extensions=false; SET autoload_known_extensions=false")
    # Otherwise DuckDB resolves unknown table names to this program's variables.
    connection.execute("SET python_enable_replacements=false")
    if temporary is None:
        connection.execute("SET max_temp_directory_size='0B'")
    else:
        # What a killed replay has left.
        shutil.rmtree(temporary, ignore_errors=True)
        connection.execute("SET temp_directory=?", [str(temporary.absolute())])
    connection.execute("SET allowed_paths=?", [[str(path.absolute())]])
    connection.execute("SET enable_external_access=false")
    return connection


def _without_semicolon(query: str) -> str:
    """Remove the semicolon that ends a single statement, so that it can stand in brackets."""
    encoded = query.encode()
    ends = [
        at for at, kind in duckdb.tokenize(query) if kind is duckdb.token_type.operator and encoded[at : at + 1] == b";"
    ]
    return query if not ends else encoded[: ends[0]].decode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_line(error: duckdb.Error) -> str:
    # Without the line and column, which are those of the wrapped query.
    text = " ".join(str(error).partition("\n\nLINE ")[0].split()).rstrip(".")
    return truncated(escape_controls(text), MAX_REASON_CHARACTERS)
