"""SQL queries over a lake, each in its own process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, write_deltalake

from contract.declared import table_named
from contract.loading import load
from live_page.pages.row_queries import events_of
from live_page.sources import sql_worker
from live_page.sources.errors import UnavailableError
from live_page.sources.lake import LakeReader, QueryError, QueryResult, Versions
from local_stack.services import ROOT
from tests.pipeline import assert_more_than, eventually
from tests.processes import command_line

SECONDS = 60.0
"""Timeout of queries that should finish, even on a slow machine."""
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < b.range"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a warehouse in a folder with spaces")
    rows = 100_000
    columns = {
        "user_id": Array([f"user_{n % 10}" for n in range(rows)], DataType.string()),
        "item_id": Array(["item_1"] * rows, DataType.string()),
        "interaction_type": Array(["view"] * rows, DataType.string()),
        "timestamp": Array(list(range(rows)), DataType.int64()),
    }
    write_deltalake(str(folder / "interactions"), Table.from_arrays(list(columns.values()), names=list(columns)))
    return folder


@pytest.fixture(scope="module")
def lake(warehouse: Path) -> LakeReader:
    return LakeReader(str(warehouse), SECONDS)


def test_a_query_returns_exact_numbers_and_the_columns_names(lake: LakeReader) -> None:
    result = lake.query("SELECT count(*) AS n, 12345678901234567890 AS large, 1 AS n, NULL FROM interactions")
    assert result.columns == ["n", "large", "n", "NULL"]
    assert result.rows == [["100000", "12345678901234567890", "1", None]]
    assert result.numeric[:3] == [True, True, True]
    assert result.truncations == []


@pytest.mark.parametrize(
    "sql",
    [
        "FROM interactions LIMIT 2 -- and a comment",
        "VALUES (1), (2);",
        "SELECT 1 UNION ALL SELECT 2;  -- a comment behind the end",
        "WITH numbers AS (SELECT * FROM range(2)) SELECT * FROM numbers",
        "SELECT 'é;' FROM range(2) ; -- é;",
        "/* ) */ SELECT * FROM range(2)",
    ],
)
def test_any_form_of_select_is_allowed(lake: LakeReader, sql: str) -> None:
    assert len(lake.query(sql).rows) == 2


def test_the_order_of_a_query_is_kept(lake: LakeReader) -> None:
    rows = lake.query("SELECT range FROM range(10000) ORDER BY range DESC").rows
    assert [row[0] for row in rows] == [f"{n}" for n in range(9_999, 9_499, -1)]


def test_the_events_of_a_window_are_those_from_its_start_to_the_next(tmp_path: Path) -> None:
    start, microsecond = datetime(2020, 11, 27, 7, tzinfo=UTC), timedelta(microseconds=1)
    times = [start - microsecond, start, start + timedelta(hours=1) - microsecond, start + timedelta(hours=1), start]
    since_epoch = [(time - datetime(1970, 1, 1, tzinfo=UTC)) // microsecond for time in times]
    columns = {
        "item_id": Array(["item_1"] * 4 + ["item_2"], DataType.string()),
        "timestamp": Array(since_epoch, DataType.int64()).cast(DataType.timestamp("us", tz="UTC")),
    }
    write_deltalake(str(tmp_path / "interactions"), Table.from_arrays(list(columns.values()), names=list(columns)))
    condition, parameters = events_of(table_named("agg_interactions_item_hour"), "item_1|2020-11-27T07:00:00Z")
    found = LakeReader(str(tmp_path), SECONDS).sample("interactions", condition, *parameters, order="timestamp")
    assert found.rows == [["item_1", "2020-11-27 07:59:59.999999+00"], ["item_1", "2020-11-27 07:00:00+00"]]


def test_the_events_of_a_row_are_found_by_a_flag_and_by_fields_named_like_words_of_sql(tmp_path: Path) -> None:
    by_day = load(ROOT / "tests" / "declarations" / "only_windows.py").tables[0]
    columns = {
        "door": Array(["a", "a", "b"], DataType.string()),
        "in_person": Array([True, False, True], DataType.bool()),
        "at": Array([1_606_435_200_000_000] * 3, DataType.int64()).cast(DataType.timestamp("us", tz="UTC")),
    }
    write_deltalake(str(tmp_path / "interactions"), Table.from_arrays(list(columns.values()), names=list(columns)))
    condition, parameters = events_of(by_day, "a|true|2020-11-27T00:00:00Z")
    found = LakeReader(str(tmp_path), SECONDS).sample("interactions", condition, *parameters, order="at")
    assert found.rows == [["a", "true", "2020-11-27 00:00:00+00"]]


def test_an_earlier_version_of_a_table_is_read_beside_the_current_one_of_others(tmp_path: Path) -> None:
    for n in range(3):
        rows = Table.from_arrays([Array([f"user_{n}"], DataType.string())], names=["user_id"])
        for name in ("interactions", "agg_interactions_user"):
            write_deltalake(str(tmp_path / name), rows, mode="append")
    lake = LakeReader(str(tmp_path), SECONDS)
    counts = "SELECT (SELECT count(*) FROM interactions), (SELECT count(*) FROM agg_interactions_user)"
    assert lake.query(counts).rows == [["3", "3"]]
    assert lake.query(counts, versions={"interactions": 0}).rows == [["1", "3"]]
    assert lake.query(counts, versions={"agg_interactions_user": 1}).rows == [["3", "2"]]
    assert lake.sample("interactions", version=0).rows == [["user_0"]]
    assert len(lake.sample("interactions").rows) == 3


def test_a_version_that_is_not_kept_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "interactions"
    rows = Table.from_arrays([Array(["a"], DataType.string())], names=["user_id"])
    write_deltalake(str(folder), rows)
    write_deltalake(str(folder), rows, mode="overwrite")
    DeltaTable(str(folder)).vacuum(0, dry_run=False, enforce_retention_duration=False)
    lake = LakeReader(str(tmp_path), SECONDS)
    # A vacuum of delta-rs is two versions more.
    assert lake.versions("interactions") == Versions(1, 3)
    with pytest.raises(QueryError, match=r"^Version 0 of interactions is not kept any more: choose a later one\.$"):
        lake.query("SELECT 1", versions={"interactions": 0})
    with pytest.raises(UnavailableError, match=r"^The lake cannot be read \(.+\)$"):
        lake.query("SELECT 1", versions={"interactions": 4})


def test_a_result_that_is_too_large_is_truncated_and_says_so(lake: LakeReader) -> None:
    def size(result: QueryResult) -> int:
        return sum(len(cell or "") for row in result.rows for cell in row)

    for sql, truncation in {
        "SELECT repeat('x', 1000000) FROM range(400)": "cells truncated at 1,000 characters (…)",
        "SELECT user_id, list(timestamp) FROM interactions GROUP BY ALL": "cells truncated at 1,000 characters (…)",
        "SELECT * FROM interactions": "truncated at 500 rows",
        f"SELECT {', '.join(map(str, range(300)))}": "first 50 of 300 columns",
        f"SELECT {', '.join(['repeat(range::VARCHAR, 200)'] * 20)} FROM range(300)": "truncated at 400,000 characters",
    }.items():
        result = lake.query(sql)
        assert truncation in result.truncations, sql
        assert size(result) < 500_000
        assert len(result.rows) <= 500


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(repeat('x', 1000), '') FROM range(1000000)",
        "SELECT repeat(range::VARCHAR, 1000000) FROM range(2000)",
        "SELECT repeat('x', 2000000000)",
    ],
)
def test_a_query_that_needs_too_much_memory_fails_in_one_line_and_stays_within_the_limit(
    lake: LakeReader, sql: str
) -> None:
    memory = _PeakMemory()
    with pytest.raises(QueryError) as refused, memory:
        lake.query(sql)
    assert "256 MB of memory" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert memory.bytes < (sql_worker.MAX_PROCESS_MEMORY + 100) << 20


def test_a_query_that_takes_too_long_is_stopped_and_leaves_no_process(warehouse: Path) -> None:
    for sql in (ENDLESS, f"EXPLAIN ANALYZE {ENDLESS}"):
        with pytest.raises(QueryError, match="longer than 0\\.5 seconds and was stopped"):
            LakeReader(str(warehouse), 0.5).query(sql)
    assert _workers() == []


def test_a_query_is_cancelled(lake: LakeReader) -> None:
    cancelled = threading.Event()
    with ThreadPoolExecutor() as pool:
        query = pool.submit(lake.query, ENDLESS, is_cancelled=cancelled.is_set)
        eventually(lambda: assert_more_than(len(_workers()), 0))
        cancelled.set()
        with pytest.raises(QueryError, match="was cancelled"):
            query.result()
    assert _workers() == []


def test_a_query_that_waits_for_another_one_is_cancelled_at_once(lake: LakeReader) -> None:
    cancelled = threading.Event()
    with ThreadPoolExecutor() as pool:
        query = pool.submit(lake.query, ENDLESS, is_cancelled=cancelled.is_set)
        try:
            eventually(lambda: assert_more_than(len(_workers()), 0))
            with pytest.raises(QueryError, match="was cancelled"):
                lake.query("SELECT 1", is_cancelled=lambda: True)
            assert not query.done()
        finally:
            cancelled.set()


def test_a_query_whose_process_is_killed_fails_in_one_line_and_the_next_one_works(lake: LakeReader) -> None:
    with ThreadPoolExecutor() as pool:
        query = pool.submit(lake.query, ENDLESS)
        eventually(lambda: assert_more_than(len(_workers()), 0))
        _workers()[0].kill()
        with pytest.raises(QueryError, match="ended early \\(SIGKILL\\)"):
            query.result()
    assert lake.query("SELECT 1").rows == [["1"]]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM read_csv('/proc/self/environ')", "Permission Error"),
        ("SELECT * FROM '/etc/passwd.csv'", "Permission Error"),
        ("SELECT * FROM glob('/*')", "Permission Error"),
        ("SELECT * FROM read_text('http://127.0.0.1:9200')", "Error"),
        ("SELECT getenv('HOME')", "getenv does not exist"),
        ("SELECT * FROM connection", "connection does not exist"),
        ("COPY interactions TO '/tmp/stolen.csv'", "Only SELECT is allowed, not COPY"),
        ("ATTACH '/tmp/stolen.db'", "Only SELECT is allowed, not ATTACH"),
        ("INSTALL httpfs", "Only SELECT is allowed"),
        ("SELECT 1) AS a; DROP VIEW interactions; SELECT (1", "Parser Error"),
        ("SELECT 1; SELECT 2", "Expected one SELECT, not 2 statements"),
        ("", "Expected one SELECT, not 0 statements"),
        ("SELECT FROM WHERE", "syntax error"),
        ("x" * 10_001, "longer than 10,000 characters"),
        ("SELECT '\ud83d'", "half of a surrogate pair"),
    ],
)
def test_only_the_lake_can_be_read_and_nothing_written(lake: LakeReader, sql: str, reason: str) -> None:
    with pytest.raises(QueryError) as refused:
        lake.query(sql)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN ANALYZE COPY (SELECT 1 AS a, 2 AS b) TO '{}' (FORMAT csv, PARTITION_BY (a), OVERWRITE)",
        "/* SELECT 1 */ EXPLAIN (ANALYZE, FORMAT json) COPY interactions TO '{}/copy.csv'; -- SELECT 1",
        "EXPLAIN ANALYZE CREATE TABLE a AS SELECT 1",
        "EXPLAIN ANALYZE DROP VIEW interactions",
        "EXPLAIN COPY (SELECT 1) TO '{}/copy.csv'",
    ],
)
def test_only_a_select_can_be_explained_and_the_lake_stays_as_it_is(tmp_path: Path, sql: str) -> None:
    table = Table.from_arrays([Array(["a"], DataType.string())], names=["user_id"])
    write_deltalake(str(tmp_path / "interactions"), table)
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(QueryError, match="Only SELECT can be explained, not"):
        LakeReader(str(tmp_path), SECONDS).query(sql.format(tmp_path / "interactions"))
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("options", ["", "ANALYZE", "(ANALYZE)", "(FORMAT json)", "ANALYZE /* COPY */"])
@pytest.mark.parametrize(
    "sql", ["SELECT 1", "FROM interactions", "VALUES (1)", "WITH a AS (SELECT 1) FROM a", "(SELECT 'é;') -- é"]
)
def test_any_form_of_select_can_be_explained(lake: LakeReader, options: str, sql: str) -> None:
    assert lake.query(f"EXPLAIN {options} {sql}").rows


def test_the_process_of_a_query_does_not_inherit_the_environment(
    lake: LakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ES_PASSWORD", "secret")
    with ThreadPoolExecutor() as pool:
        cancelled = threading.Event()
        query = pool.submit(lake.query, ENDLESS, is_cancelled=cancelled.is_set)
        eventually(lambda: assert_more_than(len(_workers()), 0))
        environment = _workers()[0].environ()
        cancelled.set()
        with pytest.raises(QueryError):
            query.result()
    assert "ES_PASSWORD" not in environment


def _workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if any(part.endswith("sql_worker.py") for part in command_line(child))
    ]


class _PeakMemory:
    """The peak memory of a query's process."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            for worker in _workers():
                try:
                    self.bytes = max(self.bytes, worker.memory_info().rss)
                except psutil.Error:
                    continue
