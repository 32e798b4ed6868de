"""Counts, tables and snapshots over a real Delta table, without Spark."""

import os
import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from stream_processing.aggregator import Append
from stream_processing.counts import Counts
from stream_processing.keyed_state import ROW_ID, KeyedState, empty_state, select_rows, stored_rows
from stream_processing.lake import EVENT_FRAME, AppendInfo, Lake, append_rows, read_files, table_files
from stream_processing.lake_log import LakeLog
from stream_processing.measures import EVENTS, KEYS, state_of
from stream_processing.retention import Retention
from stream_processing.snapshots import Snapshots, UnreadableSnapshotError
from stream_processing.table_writer import TableWriter

from contract.declared import EVENT, table_named
from contract.tables import Key, encode_row_id
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.reference import as_epoch_seconds, reference_tables


def _read_text(path: str) -> str | None:
    return Path(path).read_text() if Path(path).exists() else None


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / 'it\'s "odd" & é東 1;{x} *' / "warehouse"))
    lake.create_missing_tables()
    return lake


@pytest.fixture
def snapshots(lake: Lake, tmp_path: Path) -> Snapshots:
    return Snapshots(str(Path(lake.warehouse).with_name("state")), lake, LakeLog(lake.interactions, _read_text))


def _interactions(seed: int, count: int = 200) -> list[Interaction]:
    rng = random.Random(seed)
    return [
        Interaction(
            f"user_{rng.randrange(20)}",
            f"item {rng.randrange(5)}",
            rng.choice(INTERACTION_TYPES),
            10**9 + rng.randrange(20_000),
        )
        for _ in range(count)
    ]


def _frame(interactions: list[Interaction]) -> pl.DataFrame:
    rows = [(i.user_id, i.item_id, i.interaction_type, datetime.fromtimestamp(i.timestamp, UTC)) for i in interactions]
    return pl.DataFrame(rows, schema=EVENT_FRAME, orient="row")


def _append(lake: Lake, interactions: list[Interaction], batch: int = 0) -> int:
    table = lake.table(EVENT.name)
    append_rows(table, _frame(interactions), AppendInfo("query", batch, "topic", {"t": {"0": batch}}))
    return table.version()


def _restored(lake: Lake, snapshots: Snapshots, key: Key) -> tuple[KeyedState, pl.DataFrame]:
    """Return the state after a restart, and the rows that it would publish."""
    snapshot, files = snapshots.load(key, lake.version())
    state = KeyedState(key, snapshot.rows)
    changed = state.add(read_files(files, {}))
    return state, select_rows(state.rows, key, changed)


def _row_id(key: Key, interaction: Interaction) -> str:
    if key.window is None:
        return str(getattr(interaction, key[0])) if key else ""
    size = int(key.window.size.total_seconds())
    start = datetime.fromtimestamp(interaction.timestamp - interaction.timestamp % size, UTC)
    return encode_row_id([getattr(interaction, name) for name in key.fields] + [key.window.text(start)])


def _writer(lake: Lake, snapshots: Snapshots) -> TableWriter:
    return TableWriter(lake, snapshots, Retention(lake, _refuse))


def _refuse(keys: Sequence[str]) -> None:
    raise AssertionError(f"no row is that old: {keys}")


_USERS = Key(("user_id",))
_COUNTS = [column.name for column in state_of(_USERS) if column.where]


def _flush() -> None:
    pass


def test_an_append_carries_its_offsets_and_the_rows_as_they_were(lake: Lake) -> None:
    interactions = _interactions(0)
    _append(lake, interactions, batch=7)
    assert lake.last_append() == AppendInfo("query", 7, "topic", {"t": {"0": 7}})
    rows = read_files(lake.files(), {}).collect()
    assert rows.sort(rows.columns).equals(_frame(interactions).sort(rows.columns))


def test_a_restart_counts_what_came_after_the_snapshot(lake: Lake, snapshots: Snapshots) -> None:
    before, after = _interactions(1), _interactions(2, 3)
    counts = Counts(lake)
    counts.add(_append(lake, before), _frame(before).lazy())
    assert _writer(lake, snapshots).write(counts.take_unwritten(), _flush)
    _append(lake, after)
    for key in KEYS:
        state, changed = _restored(lake, snapshots, key)
        assert set(changed[ROW_ID]) == {_row_id(key, interaction) for interaction in after}
        expected = KeyedState(key)
        expected.add(_frame(before + after).lazy())
        assert select_rows(state.rows, key).sort(ROW_ID).equals(select_rows(expected.rows, key).sort(ROW_ID))


def test_a_restart_without_a_snapshot_counts_the_whole_lake(lake: Lake, snapshots: Snapshots) -> None:
    for batch in range(3):
        _append(lake, _interactions(batch), batch)
    state, changed = _restored(lake, snapshots, _USERS)
    assert changed.select(pl.sum_horizontal(pl.col(_COUNTS)).sum()).item() == 600
    assert len(state) == len(changed) == 20


def test_a_compaction_is_not_counted_again(lake: Lake, snapshots: Snapshots) -> None:
    counts = Counts(lake)
    for batch in range(3):
        interactions = _interactions(batch)
        counts.add(_append(lake, interactions, batch), _frame(interactions).lazy())
    _writer(lake, snapshots).write(counts.take_unwritten(), _flush)
    metrics = lake.table(EVENT.name).optimize.compact()
    assert metrics["numFilesRemoved"] == 3
    _, changed = _restored(lake, snapshots, _USERS)
    assert len(changed) == 0


def test_many_small_files_are_compacted(lake: Lake) -> None:
    for batch in range(101):
        _append(lake, _interactions(batch, 1), batch)
    assert len(lake.file_sizes()) == 101
    assert lake.compact_small_files() == lake.file_sizes()
    assert len(lake.files()) == 1
    assert lake.count() == 101
    assert lake.last_append() == AppendInfo("query", 100, "topic", {"t": {"0": 100}})


def test_a_log_that_does_not_reach_back_to_the_snapshot_means_to_count_all(lake: Lake, snapshots: Snapshots) -> None:
    counts = Counts(lake)
    interactions = _interactions(1)
    counts.add(_append(lake, interactions), _frame(interactions).lazy())
    _writer(lake, snapshots).write(counts.take_unwritten(), _flush)
    version = _append(lake, _interactions(2))
    lake.table(EVENT.name).create_checkpoint()
    Path(lake.interactions, "_delta_log", f"{version:020d}.json").unlink()
    state, changed = _restored(lake, snapshots, _USERS)
    assert changed.select(pl.sum_horizontal(pl.col(_COUNTS)).sum()).item() == 400
    assert len(state) == len(changed)


@pytest.mark.parametrize("later", [1, 2, 3])
def test_another_lake_than_that_of_the_snapshot_means_to_count_all(
    lake: Lake, snapshots: Snapshots, later: int
) -> None:
    counts = Counts(lake)
    for batch in range(2):
        counts.add(_append(lake, _interactions(batch), batch), _frame(_interactions(batch)).lazy())
    _writer(lake, snapshots).write(counts.take_unwritten(), _flush)
    shutil.rmtree(lake.warehouse)
    lake.create_missing_tables()
    for batch in range(later):
        _append(lake, _interactions(9 + batch), batch)
    _, changed = _restored(lake, snapshots, _USERS)
    assert changed.select(pl.sum_horizontal(pl.col(_COUNTS)).sum()).item() == 200 * later


def test_the_tables_are_those_of_all_interactions_although_each_write_merges_only_changes(
    lake: Lake, snapshots: Snapshots
) -> None:
    counts, writer, sent = Counts(lake), _writer(lake, snapshots), []
    for batch in range(4):
        interactions = _interactions(batch, 30)
        sent += interactions
        counts.add(_append(lake, interactions, batch), _frame(interactions).lazy())
        writer.write(counts.take_unwritten(), _flush)
    for name, rows in reference_tables(sent).items():
        found = read_files(table_files(lake.table(name), lake.path(name)), {}).collect().to_dicts()
        by_id = {table_named(name).row_id(row) or name: as_epoch_seconds(row) for row in found}
        assert by_id == rows


def test_the_snapshot_of_an_empty_lake_is_empty(lake: Lake, snapshots: Snapshots) -> None:
    snapshots.save(_USERS, empty_state(_USERS), lake.version())
    snapshot, files = snapshots.load(_USERS, lake.version())
    assert (len(snapshot.rows), snapshot.version, list(files)) == (0, lake.version(), [])


def test_the_files_of_replaced_snapshots_are_deleted(lake: Lake, snapshots: Snapshots, tmp_path: Path) -> None:
    state = KeyedState(_USERS)
    state.add(_frame(_interactions(1)).lazy())
    rows = stored_rows(state.rows)
    for version in range(45):
        snapshots.save(_USERS, rows, version, None)
        # After the deletion, which has versions of its own.
        assert version < 38 or snapshots.load(_USERS, version)[0].version == version
    assert len(list(tmp_path.rglob("user_id/*.parquet"))) < 25
    assert snapshots.load(_USERS, 44)[0].version == 44


def test_a_snapshot_of_other_measures_is_not_used(lake: Lake, snapshots: Snapshots) -> None:
    state = KeyedState(_USERS)
    state.add(_frame(_interactions(1)).lazy())
    snapshots.save(_USERS, stored_rows(state.rows).drop(_COUNTS[0]), _append(lake, _interactions(1)))
    snapshot, files = snapshots.load(_USERS, lake.version())
    assert snapshot.version is None
    assert len(files) == 1


@pytest.mark.parametrize("append", [Append(1), Append(1, _frame([]))], ids=["by Spark", "without Spark"])
def test_an_append_without_interactions_changes_nothing(append: Append) -> None:
    counts = Counts(Lake("unused"))
    counts.add(1, append.scan({}))
    assert not counts.has_unpublished
    assert {key: len(rows) for key, rows in counts.take_unpublished().items()} == dict.fromkeys(KEYS, 0)


def test_a_compaction_adds_no_data_to_the_log(lake: Lake) -> None:
    versions = [_append(lake, _interactions(n), n) for n in range(3)]
    lake.compact(1 << 20)
    log = LakeLog(lake.interactions, _read_text)
    found = [log.without_data(version) for version in (*versions, lake.version(), lake.version() + 1)]
    assert found == [False, False, False, True, False]


def test_a_snapshot_is_stored_once_for_each_version(lake: Lake, snapshots: Snapshots, tmp_path: Path) -> None:
    counts, writer = Counts(lake), _writer(lake, snapshots)
    counts.add(_append(lake, _interactions(1)), _frame(_interactions(1)).lazy())
    assert writer.write(counts.take_unwritten(), _flush)
    assert writer.write(counts.take_unwritten(), _flush)
    assert len(list(tmp_path.rglob("user_id/_delta_log/*.json"))) == 1


def test_a_snapshot_waits_until_the_rows_are_in_kafka(lake: Lake, snapshots: Snapshots) -> None:
    counts = Counts(lake)
    interactions = _interactions(1)
    counts.add(_append(lake, interactions), _frame(interactions).lazy())

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        _writer(lake, snapshots).write(counts.take_unwritten(), fail)
    assert snapshots.load(_USERS, lake.version())[0].version is None


def test_a_row_that_changes_twice_is_published_and_written_once(lake: Lake) -> None:
    counts, interactions = Counts(lake), _interactions(1, 30)
    for _ in range(100):
        counts.add(_append(lake, interactions), _frame(interactions).lazy())
    unpublished, unwritten = counts.take_unpublished(), counts.take_unwritten()
    for key in KEYS:
        values = {_row_id(key, interaction) for interaction in interactions}
        assert sorted(unpublished[key][ROW_ID]) == sorted(values)
        assert len(unwritten.changed[key]) == len(values)
        counted = [EVENTS.name] if EVENTS in state_of(key) else [c.name for c in state_of(key) if c.where]
        assert unpublished[key].select(pl.sum_horizontal(pl.col(counted)).sum()).item() == 3000
    assert not counts.has_unpublished
    counts.add(_append(lake, interactions[:1]), _frame(interactions[:1]).lazy())
    assert {key: list(rows[ROW_ID]) for key, rows in counts.take_unpublished().items()} == {
        key: [_row_id(key, interactions[0])] for key in KEYS
    }
    counts.publish_all()
    assert {key: len(rows) for key, rows in counts.take_unpublished().items()} == {
        key: len({_row_id(key, interaction) for interaction in interactions}) for key in KEYS
    }


@pytest.mark.parametrize("pattern", ["*.parquet", "_delta_log/*.json"], ids=["rows", "log"])
@pytest.mark.parametrize("size", [20, -1], ids=["almost empty", "without its end"])
def test_counts_that_are_damaged_are_refused_with_the_remedy(
    lake: Lake, snapshots: Snapshots, pattern: str, size: int
) -> None:
    snapshots.save(KEYS[0], empty_state(KEYS[0]).clear(1), 0)
    (folder,) = Path(lake.warehouse).with_name("state").iterdir()
    file = max(folder.glob(pattern))
    os.truncate(file, size if size > 0 else file.stat().st_size - 9)
    remedy = r"cannot be read \(.+\): if they are damaged, run .+ rebuild`"
    with pytest.raises(UnreadableSnapshotError, match=remedy) as refused:
        snapshots.load(KEYS[0], 0)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
