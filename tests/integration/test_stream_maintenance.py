import os
import time
from pathlib import Path

from deltalake import DeltaTable

from local_stack.services import PRODUCER, STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_more_than, eventually

PER_ROUND = 50


def _interactions(rounds: int) -> list[Interaction]:
    numbers = range(rounds * PER_ROUND)
    return [Interaction(f"user_{n % 7}", f"item_{n % 5}", INTERACTION_TYPES[n % 4], 1_700_000_000 + n) for n in numbers]


def test_small_files_are_compacted_and_old_log_entries_removed_while_the_job_runs(pipeline: Pipeline) -> None:
    table = pipeline.data / "warehouse" / "interactions"
    with pipeline.running(STREAM, UPKEEP_INTERVAL=3, LAKE_HISTORY="0.1"):
        with pipeline.running(PRODUCER, PRODUCER_RATE="0.1"):
            eventually(lambda: _assert_deleted(table / "_delta_log" / f"{3:020d}.json"))
            # An append adds two files.
            eventually(lambda: assert_more_than(_versions(table), 40))
            eventually(lambda: _assert_at_most(len(DeltaTable(table).file_uris()), 12))
        eventually(lambda: _assert_at_most(len(DeltaTable(table).file_uris()), 2))
        eventually(lambda: pipeline.assert_published(pipeline.interactions()))
        # After the last write: a vacuum must not find a file old that has no commit yet.
        orphan = table / "part-00000-never-committed.parquet"
        orphan.write_bytes(b"PAR1")
        _make_old(*table.glob("*.parquet"))
        eventually(lambda: _assert_deleted(orphan))
        # The table's current files are kept, however old, and replaced ones for readers of older versions.
        assert len(list(table.glob("*.parquet"))) > 40
        assert "maintenance failed" not in pipeline.log(STREAM)
    assert pipeline.lake_count() == len(pipeline.interactions())
    # The job continues from a log without its first entries.
    with pipeline.running(STREAM):
        pipeline.send_interactions(_interactions(1))
        eventually(lambda: pipeline.assert_published(pipeline.interactions()))


def _make_old(*files: Path) -> None:
    two_hours_ago = time.time() - 7_200
    for file in files:
        os.utime(file, (two_hours_ago, two_hours_ago))


def _versions(table: Path) -> int:
    return DeltaTable(table).version()


def test_a_time_range_skips_the_files_outside_of_it(pipeline: Pipeline) -> None:
    with pipeline.running(STREAM):
        for n in range(3):
            more = _interactions(n + 1)[n * PER_ROUND :]
            pipeline.send_interactions(more)
            eventually(lambda n=n: _assert_count(pipeline, (n + 1) * PER_ROUND))  # type: ignore[misc]
    added = DeltaTable(pipeline.data / "warehouse" / "interactions").get_add_actions(flatten=True)
    earliest, latest = added["min.timestamp"].to_pylist(), added["max.timestamp"].to_pylist()
    ranges = sorted(zip(earliest, latest, strict=True))
    assert len({day for day, _ in ranges}) >= 3
    assert ranges[-1][0] > ranges[0][1]


def _assert_count(pipeline: Pipeline, count: int) -> None:
    assert pipeline.lake_count() == count


def _assert_at_most(number: int, limit: int) -> None:
    assert number <= limit


def _assert_deleted(file: Path) -> None:
    assert not file.exists()
