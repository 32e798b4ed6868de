"""What a query can reach besides the tables: nothing, by whichever path or statement."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from live_page.sources.sql_worker import open_database, run_query


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with one data file, other files in it and beside it, and a link that leads out of it."""
    folder = tmp_path / "lake"
    for each in (folder / "a", tmp_path / "lake-other"):
        each.mkdir(parents=True)
    for other in (tmp_path / "secret.csv", tmp_path / "lake-other" / "secret.csv", folder / "a" / "inside.csv"):
        other.write_text("word\nsecret\n")
    for file in (folder / "a" / "1.parquet", tmp_path / "outside.parquet"):
        pl.DataFrame({"n": [1]}).write_parquet(file)
    (folder / "link.parquet").symlink_to(tmp_path / "outside.parquet")
    return folder


def _files(lake: Path) -> dict[str, list[str]]:
    return {"interactions": [str(lake / "a" / "1.parquet")]}


@pytest.mark.parametrize(
    "path",
    [
        "{lake}/a/inside.csv",
        "{lake}/../secret.csv",
        "{lake}/./a/../../secret.csv",
        "{lake}-other/secret.csv",
        "{lake}/link.parquet",
    ],
)
def test_no_file_but_those_of_the_tables_can_be_read(path: str, lake: Path) -> None:
    def content(file: str) -> object:
        return run_query(f"SELECT octet_length(content) FROM read_blob('{file}')", [], _files(lake), str(lake))["rows"]

    assert content(f"{lake}/a/1.parquet") == [[str((lake / "a" / "1.parquet").stat().st_size)]]
    with pytest.raises(duckdb.PermissionException):
        content(path.format(lake=lake))


@pytest.mark.parametrize("path", ["{lake}/../outside.parquet", "{lake}/link.parquet"])
def test_a_table_whose_log_names_a_file_outside_of_the_lake_is_not_read(path: str, lake: Path) -> None:
    files = _files(lake) | {"other": [path.format(lake=lake)]}
    with pytest.raises(duckdb.PermissionException):
        run_query("SELECT * FROM other", [], files, str(lake))


@pytest.mark.parametrize(
    "statement",
    [
        "COPY interactions TO '{lake}/new.parquet'",
        "COPY interactions TO '{lake}/../new.csv'",
        "COPY interactions TO '{lake}/../new' (PARTITION_BY (n))",
        "COPY interactions TO '/dev/stdout'",
        "EXPORT DATABASE '{lake}/../new'",
        "IMPORT DATABASE '{lake}'",
        "ATTACH '{lake}/new.db'",
        "ATTACH '{lake}/../outside.parquet' AS other",
        "CREATE TABLE copied AS FROM read_csv('{lake}/a/inside.csv')",
        "CREATE VIEW other AS FROM read_parquet('{lake}/../outside.parquet')",
        "FROM query_table('{lake}/../outside.parquet')",
        "FROM sniff_csv('{lake}/../secret.csv')",
        "FROM parquet_metadata('{lake}/../outside.parquet')",
        "FROM glob('{lake}/*')",
        "FROM read_text('http://127.0.0.1:9')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{lake}/new.duckdb_extension'",
        "CREATE SECRET word (TYPE s3)",
        "SET enable_external_access=true",
        "SET allowed_paths=['{lake}/../outside.parquet']",
        "RESET allowed_paths",
        "SET allowed_directories=['/']",
        "SET lock_configuration=false",
        "SET memory_limit='1TB'",
        "PRAGMA profiling_output='{lake}/new.json'",
        "CALL enable_logging(storage='file', storage_path='{lake}/new')",
    ],
)
def test_a_statement_reaches_nothing_else_even_if_it_passed_the_check_of_its_type(statement: str, lake: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in lake.parent.rglob("*")}
    with open_database(_files(lake), str(lake)) as connection:
        # DuckDB names what it refuses: a missing function or a syntax error would prove nothing.
        with pytest.raises(duckdb.Error, match=r"disabled (by|through) configuration|configuration has been locked"):
            connection.execute(statement.format(lake=lake)).fetchall()
        assert connection.execute("FROM interactions").fetchall() == [(1,)]
    assert {path: path.stat().st_mtime_ns for path in lake.parent.rglob("*")} == before
