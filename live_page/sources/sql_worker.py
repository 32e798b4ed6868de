"""Runs one query over the lake in a separate process: ``python -I sql_worker.py``.

Reads the query as JSON from standard input and writes the result or the error as JSON to standard output. It imports
nothing of this project, so that it starts in 0.2 s and knows no settings. Memory, time and the size of the result are
bounded whatever the query does, and only the data files of the tables can be read.
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

MAX_MEMORY: Final = 256
"""MB that DuckDB may use."""
MAX_PROCESS_MEMORY: Final = 448
"""MB of writable memory of the whole process, including what DuckDB does not count."""
MAX_ROWS: Final = 500
MAX_COLUMNS: Final = 50
MAX_CELL: Final = 1_000
"""Characters."""
MAX_RESULT: Final = 400_000
"""Characters of all cells together."""
_ALLOWED: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_NUMBERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER")
_MORE_NUMBERS: Final = ("UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM")


def main() -> None:
    """Run the query of standard input."""
    request = json.load(sys.stdin)
    _limit_process(request["seconds"])
    try:
        result = run_query(request["sql"], request["parameters"], request["files"], request["folder"])
    except duckdb.OutOfMemoryException:
        result = _out_of_memory()
    except duckdb.Error as error:
        # Without the line and column, which are those of the wrapped query.
        result = {"error": " ".join(str(error).partition("\n\nLINE ")[0].split())[:MAX_CELL]}
    except MemoryError:
        result = _out_of_memory()
    except ValueError as error:
        result = {"error": str(error)}
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    # Skips DuckDB's clean-up: the process ends anyway.
    os._exit(0)


def _limit_process(seconds: float) -> None:
    # The system ends this process even if the page has died.
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    os.nice(10)
    # If a container runs out of memory before the limit below, the system kills this process, not the page.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit = MAX_PROCESS_MEMORY << 20
    # Not the address space, of which DuckDB and the C library reserve more than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def run_query(sql: str, parameters: list[str], files: dict[str, list[str]], folder: str) -> dict[str, Any]:
    """Return the first rows of one SELECT over tables, whose files are below `folder`; each cell is text or None.

    Raises `duckdb.Error`, and `ValueError` if the statement is not allowed.
    """
    connection = open_database(files, folder)
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"Expected one SELECT, not {len(statements)} statements.")
    if statements[0].type not in _ALLOWED:
        raise ValueError(f"Only SELECT is allowed, not {statements[0].type.name}.")
    if statements[0].type is duckdb.StatementType.EXPLAIN:
        _require_select(connection, sql)
        plan = connection.execute(sql, parameters)
        names, types = ["", "plan"], ["VARCHAR", "VARCHAR"]
        rows = [tuple(str(value)[: MAX_CELL * 10] for value in row) for row in plan.fetchmany(MAX_ROWS + 1)]
        return _result(names, types, rows, max_cell=MAX_CELL * 10)
    query = _without_semicolon(sql)
    described = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE\n{query}\n)", parameters).fetchall()
    names, types = [name for name, _ in described], [type_ for _, type_ in described]
    # DuckDB truncates and formats the cells: a list of a million numbers never becomes a million Python objects.
    columns = ", ".join(f"c{n}" for n in range(len(names)))
    cells = ", ".join(f"left(CAST(c{n} AS VARCHAR), {MAX_CELL + 1})" for n in range(min(len(names), MAX_COLUMNS)))
    bounded = f"SELECT {cells} FROM (\n{query}\n) AS answer({columns}) LIMIT {MAX_ROWS + 1}"
    return _result(names, types, connection.execute(bounded, parameters).fetchall())


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise `ValueError` unless SELECT is what a statement explains: EXPLAIN ANALYZE also runs it, be it a COPY."""
    for at, _ in duckdb.tokenize(sql):
        # DuckDB does not tell what is explained: it is the first part up to the end that is a statement by itself.
        try:
            explained, *_ = connection.extract_statements(sql.encode()[at:].decode())
        except duckdb.ParserException:
            continue
        if explained.type is duckdb.StatementType.EXPLAIN:
            continue
        if explained.type is duckdb.StatementType.SELECT:
            return
        raise ValueError(f"Only SELECT can be explained, not {explained.type.name}.")
    raise ValueError("Only SELECT can be explained.")


def _without_semicolon(sql: str) -> str:
    """Remove the semicolon that ends a single statement, so that it can stand in brackets."""
    ends = [
        at
        for at, kind in duckdb.tokenize(sql)
        if kind is duckdb.token_type.operator and sql.encode()[at : at + 1] == b";"
    ]
    return sql if not ends else sql.encode()[: ends[0]].decode()


def _result(
    names: list[str], types: list[str], rows: Sequence[tuple[str | None, ...]], max_cell: int = MAX_CELL
) -> dict[str, Any]:
    """Build the result, bounded in size; `truncations` describes the parts left out."""
    truncations = []
    if len(names) > MAX_COLUMNS:
        truncations.append(f"first {MAX_COLUMNS} of {len(names):,} columns")
    size, shown = 0, []
    for row in rows[:MAX_ROWS]:
        if size > MAX_RESULT:
            truncations.append(f"truncated at {MAX_RESULT:,} characters")
            break
        cells = [cell if cell is None or len(cell) <= max_cell else f"{cell[:max_cell]}…" for cell in row]
        size += sum(len(cell or "") for cell in cells)
        shown.append(cells)
    else:
        if len(rows) > MAX_ROWS:
            truncations.append(f"truncated at {MAX_ROWS} rows")
    if any(len(cell or "") > max_cell for row in rows for cell in row):
        truncations.append(f"cells truncated at {max_cell:,} characters (…)")
    return {
        "columns": [name[:MAX_CELL] for name in names[:MAX_COLUMNS]],
        "numeric": [kind.startswith((*_NUMBERS, *_MORE_NUMBERS)) and "[" not in kind for kind in types[:MAX_COLUMNS]],
        "rows": shown,
        "truncations": truncations,
    }


def open_database(files: dict[str, list[str]], folder: str) -> duckdb.DuckDBPyConnection:
    """Open a database of the tables, whose statements reach no other file, no server and no extension.

    Raises `duckdb.PermissionException` for a file that is not below `folder`: a table's log can name any.
    """
    connection = duckdb.connect(":memory:")
    connection.execute(f"SET TimeZone='UTC'; SET threads=1; SET memory_limit='{MAX_MEMORY}MB'")
    connection.execute("SET max_temp_directory_size='0B'; SET enable_progress_bar=false")
    connection.execute("SET autoinstall_known_extensions=false; SET autoload_known_extensions=false")
    # Otherwise DuckDB resolves unknown table names to this program's variables.
    connection.execute("SET python_enable_replacements=false")
    lake = Path(folder).resolve()
    paths_inside = [path for paths in files.values() for path in paths if Path(path).resolve().is_relative_to(lake)]
    connection.execute("SET allowed_paths=?", [paths_inside])
    connection.execute("SET enable_external_access=false")
    for name, paths in files.items():
        connection.read_parquet(paths).create_view(name)
    connection.execute("SET lock_configuration=true")
    return connection


def _out_of_memory() -> dict[str, Any]:
    return {"error": f"The query needs more than {MAX_MEMORY} MB of memory and was stopped: select less."}


if __name__ == "__main__":
    main()
