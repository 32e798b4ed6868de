"""What a query can read besides the lake: nothing, by whichever path."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from live_page.sources.sql_worker import run_query


@pytest.mark.parametrize("path", ["{lake}/../secret.csv", "{lake}/./a/../../secret.csv", "{lake}-other/secret.csv"])
def test_no_path_leads_out_of_the_lake(path: str, tmp_path: Path) -> None:
    lake, other = tmp_path / "lake", tmp_path / "lake-other"
    for folder in (lake, lake / "a", other):
        folder.mkdir()
    for secret in (tmp_path / "secret.csv", other / "secret.csv", lake / "inside.csv"):
        secret.write_text("word\nsecret\n")
    pl.DataFrame({"n": [1]}).write_parquet(lake / "a" / "1.parquet")
    files = {"interactions": [str(lake / "a" / "1.parquet")]}

    def rows(file: str) -> object:
        return run_query(f"SELECT word FROM read_csv('{file}')", [], files, str(lake))["rows"]

    assert rows(f"{lake}/inside.csv") == [["secret"]]
    with pytest.raises(duckdb.PermissionException):
        rows(path.format(lake=lake))
