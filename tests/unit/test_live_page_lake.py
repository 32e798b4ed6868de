"""The lake page without a browser: example queries, results as charts and CSV, a history, and kept versions."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, write_deltalake

from contract.fields import ColumnType
from contract.loading import load
from contract.pipeline import Pipeline
from live_page.pages.queries import (
    MAX_BARS,
    MAX_HISTORY,
    as_csv,
    bars_of,
    columns_of_tables,
    example_queries,
    format_number,
    history_of,
    with_latest,
)
from live_page.sources.errors import WaitingError
from live_page.sources.lake import BusyError, LakeReader, QueryResult, Versions, first_version
from live_page.sources.sql_worker import run_query
from local_stack.services import ROOT
from tests.pipeline import assert_equal, eventually

DECLARATIONS = (
    "pipeline.py", "examples/orders/pipeline.py", "examples/sensors/pipeline.py", "tests/declarations/only_windows.py",
)  # fmt: skip
VALUES = {
    ColumnType.KEYWORD: "'a'", ColumnType.LONG: "9007199254740993", ColumnType.DOUBLE: "'nan'::DOUBLE",
    ColumnType.DECIMAL: "1.25::DECIMAL(18, 2)", ColumnType.FLAG: "true", ColumnType.DATE: "TIMESTAMPTZ '2026-01-31'",
}  # fmt: skip


# --- Queries ----------------------------------------------------------------------------------------


def _files(pipeline: Pipeline, folder: Path) -> dict[str, list[str]]:
    """Write a row into each table of the lake."""
    event = pipeline.event
    columns = {event.name: {field.name: field.column_type for field in event.fields}}
    columns |= {table.name: {column.name: column.type for column in table.columns} for table in pipeline.tables}
    for name, types in columns.items():
        row = ", ".join(f'{VALUES[type_]} AS "{column}"' for column, type_ in types.items())
        duckdb.connect().sql(f"SELECT {row}").write_parquet(str(folder / f"{name}.parquet"))
    return {name: [str(folder / f"{name}.parquet")] for name in columns}


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_six_example_queries_can_be_answered_whatever_the_declaration(declaration: str, tmp_path: Path) -> None:
    pipeline = load(ROOT / declaration)
    files = _files(pipeline, tmp_path)
    queries = example_queries(pipeline)
    assert len(queries) == 6
    charts = 0
    for sql in queries.values():
        result = QueryResult(**run_query(sql, [], files, str(tmp_path)), seconds=0.0)
        assert len(result.rows) == 1, sql
        charts += bars_of(result) is not None
    assert charts >= 4


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_the_columns_beside_the_box_are_those_of_the_declared_tables(declaration: str, tmp_path: Path) -> None:
    pipeline = load(ROOT / declaration)
    files = _files(pipeline, tmp_path)
    shown = columns_of_tables(pipeline)
    assert shown.keys() == files.keys()
    for name, columns in shown.items():
        assert run_query(f'SELECT * FROM "{name}"', [], files, str(tmp_path))["columns"] == list(columns)


def test_the_types_of_columns_are_those_of_sql() -> None:
    assert columns_of_tables(load(ROOT / "examples/orders/pipeline.py"))["orders"] == {
        "customer_id": "text", "category": "text", "quantity": "bigint", "price": "decimal", "coupon": "text",
        "ordered_at": "timestamp",
    }  # fmt: skip


def test_a_query_of_the_page_waits_for_another_one_without_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lake = LakeReader(str(tmp_path), 0.01)
    asked = []

    def busy(*args: object, **_: object) -> QueryResult:
        asked.append(args)
        raise BusyError("Another query is running: try again in a moment.")

    monkeypatch.setattr(lake, "query", busy)
    for _ in range(2):
        for ask in (lake.answer, lake.sample):
            with pytest.raises(WaitingError, match="waiting for another query"):
                ask("SELECT 1")
    # It is asked again, and not answered with the error of a moment ago.
    assert len(asked) == 4


def test_a_query_of_a_reader_runs_before_those_of_panels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lake = LakeReader(str(tmp_path), 60)
    ran: list[str] = []
    monkeypatch.setattr(lake, "_files", lambda _: {})
    may_end = threading.Event()

    def run(request: str, _: object) -> dict[str, Any]:
        ran.append(json.loads(request)["sql"])
        may_end.wait(30)
        return {"columns": [], "numeric": [], "rows": [], "truncations": []}

    monkeypatch.setattr(lake, "_run_worker", run)
    with ThreadPoolExecutor() as pool:
        pool.submit(lake.answer, "first")
        eventually(lambda: assert_equal(ran, ["first"]))
        panels = [pool.submit(lake.answer, f"panel {n}") for n in range(3)]
        pool.submit(lake.query, "reader")
        eventually(lambda: assert_equal(lake._first.queries, 1))
        # Those that wait for the lock already may get it until then.
        time.sleep(0.2)
        may_end.set()
        for panel in panels:
            panel.result(30)
    assert ran[:2] == ["first", "reader"]


# --- Results ----------------------------------------------------------------------------------------


def _result(columns: dict[str, bool], *rows: Sequence[str | None]) -> QueryResult:
    """A result with these columns, of which some have numbers."""
    return QueryResult(list(columns), list(columns.values()), [list(row) for row in rows], [], 0.1)


def test_a_result_with_a_label_and_a_number_has_bars() -> None:
    result = _result(
        {"item": False, "kind": False, "n": True, "m": True, "other": False},
        ["i", "view", "9007199254740993", "1", "a"], ["", None, "-2.5", "2", "b"], [None, "", "0", "3", "c"],
    )  # fmt: skip
    assert bars_of(result) == ("n", ["i · view", " · NULL", "NULL · "], [9_007_199_254_740_993, -2.5, 0])


def test_what_is_no_number_has_no_bar() -> None:
    values = ("nan", "inf", "-inf", None, "1e400", "1…", "7")
    result = _result({"kind": False, "n": True}, *([f"{value}", value] for value in values))
    assert bars_of(result) == ("n", ["7"], [7])


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"n": True}, ["1"]),
        ({"a": False}, ["1"]),
        ({"n": True, "m": True}, ["1", "2"]),
        # As the totals of all events: no column says what the first number is of.
        ({"n": True, "latest": False}, ["1", "12:00"]),
        ({"a": False, "n": True}, ["1", "nan"]),
    ],
)
def test_a_result_without_a_label_or_a_number_has_no_chart(columns: dict[str, bool], row: list[str | None]) -> None:
    assert bars_of(_result(columns, row)) is None
    assert bars_of(_result({"a": False, "n": True})) is None


def test_a_chart_has_the_first_bars_of_a_long_result() -> None:
    bars = bars_of(_result({"a": False, "n": True}, *([f"{n}", f"{n}"] for n in range(500))))
    assert bars is not None
    assert bars[1] == [f"{n}" for n in range(MAX_BARS)]


def test_special_numbers_are_shown_as_such_and_long_ones_are_exact() -> None:
    shown = [format_number(text) for text in ("nan", "inf", "-inf", "-9223372036854775808", "1e-07", "0.10")]
    assert shown == ["NaN", "Infinity", "-Infinity", "-9223372036854775808", "1e-07", "0.10"]


def test_a_csv_file_has_every_value_as_it_is() -> None:
    cells = ['say "hi"', "a,b;c", "two\nlines", "", None, "é😀", "9007199254740993", "nan"]
    text = as_csv(_result({'the "a", b': False}, *([cell] for cell in cells)))
    assert text.splitlines()[0] == '"the ""a"", b"'
    assert text.endswith('"é😀"\r\n"9007199254740993"\r\n"nan"\r\n')
    # NULL is not an empty text.
    assert '\r\n""\r\n\r\n' in text


def test_another_program_reads_the_csv_file(tmp_path: Path) -> None:
    rows: list[list[str | None]] = [['a "b", c', "9007199254740993"], ["two\r\nlines", None], ["", "-1"]]
    file = tmp_path / "query.csv"
    file.write_text(as_csv(_result({"a": False, "n": True}, *rows)), newline="")
    options = "header=true, auto_detect=false, allow_quoted_nulls=false, columns={a: 'VARCHAR', n: 'BIGINT'}"
    read = duckdb.connect().sql(f"FROM read_csv('{file}', {options})")
    assert read.fetchall() == [('a "b", c', 9_007_199_254_740_993), ("two\r\nlines", None), ("", -1)]


def test_the_history_has_each_query_once_the_latest_first() -> None:
    history: list[str] = []
    for n in [*range(30), 25]:
        history = with_latest(history, f"SELECT {n}")
    assert history[:3] == ["SELECT 25", "SELECT 29", "SELECT 28"]
    assert len(history) == len(set(history)) == MAX_HISTORY


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (json.dumps(["SELECT 1", "SELECT 2"]), ["SELECT 1", "SELECT 2"]),
        (json.dumps([1, None, "", " ", ["a"], "x" * 10_001, "SELECT 1", "SELECT 1"]), ["SELECT 1"]),
        (json.dumps([f"SELECT {n}" for n in range(1_000)]), [f"SELECT {n}" for n in range(MAX_HISTORY)]),
        *((stored, []) for stored in ("", "not JSON", "{}", '{"a": "SELECT 1"}', "null", "1", '"SELECT 1"', None, 5)),
    ],
)
def test_whatever_a_browser_has_stored_is_a_history(stored: object, expected: list[str]) -> None:
    assert history_of(stored) == expected


# --- Versions ---------------------------------------------------------------------------------------


def _write(folder: Path, value: str, *, overwrites: bool = False) -> None:
    rows = Table.from_arrays([Array([value], DataType.string())], names=["user_id"])
    write_deltalake(str(folder), rows, mode="overwrite" if overwrites else "append")


def _readable(folder: Path) -> list[int]:
    """Return the versions that can really be read."""
    found = []
    for version in range(DeltaTable(str(folder)).version() + 1):
        try:
            uris = DeltaTable(str(folder), version=version).file_uris()
        except Exception:
            continue
        if all(Path(uri.removeprefix("file://")).exists() for uri in uris):
            found.append(version)
    return found


def test_all_versions_of_a_table_are_kept_at_first(tmp_path: Path) -> None:
    folder = tmp_path / "interactions"
    for n in range(3):
        _write(folder, f"{n}")
    _write(folder, "all", overwrites=True)
    assert LakeReader(str(tmp_path), 5).versions("interactions") == Versions(0, 3)
    assert _readable(folder) == [0, 1, 2, 3]


def test_a_version_whose_files_were_removed_is_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "interactions"
    for n in range(5):
        _write(folder, f"{n}", overwrites=n % 2 == 1)
    # As a vacuum after its retention.
    removed = {*DeltaTable(str(folder), version=0).file_uris()} - {*DeltaTable(str(folder), version=1).file_uris()}
    for uri in removed:
        Path(uri.removeprefix("file://")).unlink()
    assert first_version(folder) == 1
    assert _readable(folder) == [1, 2, 3, 4]
    DeltaTable(str(folder)).vacuum(0, dry_run=False, enforce_retention_duration=False)
    kept = first_version(folder)
    assert kept == 3
    assert _readable(folder)[0] == kept


def test_a_version_whose_log_entries_were_removed_is_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "interactions"
    for n in range(8):
        _write(folder, f"{n}")
        if n in (2, 5):
            DeltaTable(str(folder)).create_checkpoint()
    # Some entries before the first checkpoint are gone: what follows them can be read from it.
    for version, kept in ((1, 2), (3, 5), (5, 5)):
        for each in range(version + 1):
            folder.joinpath("_delta_log", f"{each:020d}.json").unlink(missing_ok=True)
        assert first_version(folder) == kept
        assert _readable(folder)[0] <= kept
        assert set(range(kept, 8)) <= set(_readable(folder))
