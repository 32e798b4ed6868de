"""Answers one query over the lake in a process of its own: ``python -I sql_worker.py``.

Reads the query as JSON from standard input and writes the answer, or why there is none, as JSON to standard output. It
imports nothing of this project, so that it starts in a tenth of a second and knows no settings. Whatever the query
does, memory, time and the answer's size are bounded, and no file but the lake's can be read.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb

MEMORY: Final = 256
"""MB that DuckDB may use."""
PROCESS_MEMORY: Final = 448
"""MB of writable memory of the whole process, for what DuckDB does not count."""
MOST_ROWS: Final = 500
MOST_COLUMNS: Final = 50
LONGEST_CELL: Final = 1_000
"""Characters."""
LARGEST_ANSWER: Final = 400_000
"""Characters of all cells together."""
_ALLOWED: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_NUMBERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER")
_MORE_NUMBERS: Final = ("UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM")


def main() -> None:
    """Answer the query of standard input."""
    asked = json.load(sys.stdin)
    _bound(asked["seconds"])
    try:
        said = answer(asked["sql"], asked["parameters"], asked["files"], asked["folder"])
    except duckdb.OutOfMemoryException:
        said = _out_of_memory()
    except duckdb.Error as error:
        # Without the line and the place in it, which are those of the query as it is wrapped here.
        said = {"error": " ".join(str(error).partition("\n\nLINE ")[0].split())[:LONGEST_CELL]}
    except MemoryError:
        said = _out_of_memory()
    except ValueError as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()
    # What DuckDB would still tidy up dies with the process.
    os._exit(0)


def _bound(seconds: float) -> None:
    # Should the page die, nobody is left to end this: the system does.
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    os.nice(10)
    # Where a container's memory ends before the limit below, this is what the system ends, and not the page.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = PROCESS_MEMORY << 20
    # Not the address space: DuckDB and the C library reserve more of that than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def answer(sql: str, parameters: list[str], files: dict[str, list[str]], folder: str) -> dict[str, Any]:
    """The first rows of one SELECT over the files of tables, which are below the folder; each cell is text or None.

    Raises `duckdb.Error`, and ValueError for what is not allowed.
    """
    connection = _connect(files, folder)
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"Expected one SELECT, not {len(statements)} statements.")
    if statements[0].type not in _ALLOWED:
        raise ValueError(f"Only SELECT is allowed here, and this is {statements[0].type.name}.")
    if statements[0].type is duckdb.StatementType.EXPLAIN:
        found = connection.execute(sql, parameters)
        names, types = ["", "plan"], ["VARCHAR", "VARCHAR"]
        rows = [tuple(str(value)[: LONGEST_CELL * 10] for value in row) for row in found.fetchmany(MOST_ROWS + 1)]
        return _answer(names, types, rows, longest=LONGEST_CELL * 10)
    query = _without_semicolon(sql)
    described = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE\n{query}\n)", parameters).fetchall()
    names, types = [name for name, _ in described], [type_ for _, type_ in described]
    # DuckDB itself cuts and writes the cells: a list of a million numbers never becomes a million objects of Python's.
    columns = ", ".join(f"c{n}" for n in range(len(names)))
    cells = ", ".join(f"left(CAST(c{n} AS VARCHAR), {LONGEST_CELL + 1})" for n in range(min(len(names), MOST_COLUMNS)))
    bounded = f"SELECT {cells} FROM (\n{query}\n) AS answer({columns}) LIMIT {MOST_ROWS + 1}"
    return _answer(names, types, connection.execute(bounded, parameters).fetchall())


def _without_semicolon(sql: str) -> str:
    """A single statement without what ends it, so that it can stand in brackets."""
    ends = [
        at
        for at, kind in duckdb.tokenize(sql)
        if kind is duckdb.token_type.operator and sql.encode()[at : at + 1] == b";"
    ]
    return sql if not ends else sql.encode()[: ends[0]].decode()


def _answer(
    names: list[str], types: list[str], rows: Sequence[tuple[str | None, ...]], longest: int = LONGEST_CELL
) -> dict[str, Any]:
    """The answer as it is sent; `cut` names what was left out of it."""
    cut = []
    if len(names) > MOST_COLUMNS:
        cut.append(f"the first {MOST_COLUMNS} of {len(names):,} columns")
    size, shown = 0, []
    for row in rows[:MOST_ROWS]:
        if size > LARGEST_ANSWER:
            cut.append(f"cut at {LARGEST_ANSWER:,} characters")
            break
        cells = [cell if cell is None or len(cell) <= longest else f"{cell[:longest]}…" for cell in row]
        size += sum(len(cell or "") for cell in cells)
        shown.append(cells)
    else:
        if len(rows) > MOST_ROWS:
            cut.append(f"cut at {MOST_ROWS} rows")
    if any(len(cell or "") > longest for row in rows for cell in row):
        cut.append(f"cells cut at {longest:,} characters (…)")
    return {
        "columns": [name[:LONGEST_CELL] for name in names[:MOST_COLUMNS]],
        "numeric": [kind.startswith((*_NUMBERS, *_MORE_NUMBERS)) and "[" not in kind for kind in types[:MOST_COLUMNS]],
        "rows": shown,
        "cut": cut,
    }


def _connect(files: dict[str, list[str]], folder: str) -> duckdb.DuckDBPyConnection:
    """A database of the tables, in which nothing else can be read and nothing written."""
    connection = duckdb.connect(":memory:")
    connection.execute(f"SET TimeZone='UTC'; SET threads=1; SET memory_limit='{MEMORY}MB'")
    connection.execute("SET max_temp_directory_size='0B'; SET enable_progress_bar=false")
    connection.execute("SET autoinstall_known_extensions=false; SET autoload_known_extensions=false")
    # A name that no table has would otherwise be looked for among this program's variables.
    connection.execute("SET python_enable_replacements=false")
    connection.execute("SET allowed_directories=?", [[folder]])
    connection.execute("SET enable_external_access=false")
    for name, paths in files.items():
        connection.read_parquet(paths).create_view(name)
    connection.execute("SET lock_configuration=true")
    return connection


def _out_of_memory() -> dict[str, Any]:
    return {"error": f"It needs more than {MEMORY} MB of memory, and was stopped: ask for less."}


if __name__ == "__main__":
    main()
