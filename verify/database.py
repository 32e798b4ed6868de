"""A DuckDB database in a temporary folder, which holds what does not fit into memory."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
from arro3.core import Array, DataType, Table

TEXT: Final = DataType.utf8()
WHOLE: Final = DataType.int64()
DOUBLE: Final = DataType.float64()
FLAG: Final = DataType.bool()
BYTES: Final = DataType.binary()

_BATCH: Final = 20_000

Columns = Mapping[str, DataType]
"""The columns of rows, by name."""


class Database:
    """Tables on disk, and queries over them within a limit of memory."""

    def __init__(self, memory: int, folder: Path | None = None) -> None:
        """Create it in `folder`, as default that for temporary files; `memory` is in MB."""
        self._folder = tempfile.TemporaryDirectory(prefix="verify-", dir=folder)
        self._connection = duckdb.connect(f"{self._folder.name}/verify.duckdb")
        self.run(f"SET memory_limit='{memory}MB'")
        self.run(f"SET temp_directory='{quoted_text(self._folder.name)}/spill'")
        self.run("SET TimeZone='UTC'")
        self.run("SET preserve_insertion_order=false")
        self.run("SET enable_progress_bar=false")
        self.run("SET autoinstall_known_extensions=false")
        # Otherwise names of tables could be those of this program's variables.
        self.run("SET python_enable_replacements=false")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def run(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""
        return self._connection.execute(sql, list(parameters)).fetchall()

    def number(self, sql: str, *parameters: Any) -> int:
        """Return the only value of a query; 0 instead of null."""
        return int(self.run(sql, *parameters)[0][0] or 0)

    def insert(self, table: str, columns: Columns, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows into a table that has these columns first; some of them at a time are in memory."""
        remaining = iter(rows)
        while batch := list(islice(remaining, _BATCH)):
            values = zip(*batch, strict=True)
            arrays: dict[str, Any] = {
                name: Array(list(each), type=kind) for (name, kind), each in zip(columns.items(), values, strict=True)
            }
            self._connection.from_arrow(Table.from_pydict(arrays)).insert_into(table)


def name(text: str) -> str:
    """Return a name as SQL has it.

    >>> name('a"b')
    '"a""b"'
    """
    return '"' + text.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return the inside of a text as SQL has it.

    >>> quoted_text("it's")
    "it''s"
    """
    return text.replace("'", "''")


def literal(value: object) -> str:
    """Return a value as SQL has it.

    >>> literal("it's"), literal(True), literal(None), literal(3)
    ("'it''s'", 'true', 'NULL', '3')
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{quoted_text(value)}'" if isinstance(value, str) else str(value)
