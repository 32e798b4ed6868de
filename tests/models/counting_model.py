"""A model of counting: lake, snapshots, aggregate table and aggregated topic in memory, and the job's own code.

Real: `Aggregator` without its threads, `Counts` and `KeyedState` for one key, `RowPublisher`, `TableWriter`, what
`Snapshots` decides about the lake's version, `LakeLog`. Stand-ins: Delta Lake, and the producer, whose records reach
the broker one by one. The job can be killed before each durable write.
"""

import copy
import queue
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, cast

import orjson
import polars as pl
import pytest
from arro3.core import Table as ArrowTable
from stream_processing import aggregator, counts, published_topic, spark_internals, table_writer
from stream_processing.aggregator import Aggregator, Append
from stream_processing.counts import Counts
from stream_processing.keyed_state import ROW_ID, KeyedState, empty_state
from stream_processing.lake import EVENT_FRAME, Lake
from stream_processing.lake_log import LakeLog
from stream_processing.measures import EVENTS, KEYS
from stream_processing.poisoning_lock import PoisoningLock
from stream_processing.row_publisher import RowPublisher
from stream_processing.settings import StreamProcessingSettings
from stream_processing.snapshots import Snapshot, Snapshots

from contract.tables import Key, Table
from tests.models.exploration import ViolationError

USERS: Final = next(key for key in KEYS if key.columns == ("user_id",))
_SETTINGS: Final = StreamProcessingSettings(warehouse="w", checkpoints="c", materialise_interval=1)
_LATER: Final = 1e9


@dataclass(frozen=True)
class World:
    """All that survives a kill. Each append has an event of each of two users."""

    lake: tuple[str, ...] = ("created",)
    """The log entries: `created`, `compacted`, or the name of an append's file."""
    snapshot: tuple[tuple[tuple[str, int], ...], int, str] | None = None
    """The counts by user, the lake's version that they cover, and the digest of its entry."""
    table: tuple[tuple[str, int], ...] = ()
    topic: tuple[tuple[str, int], ...] = ()
    topics: int = 0
    """How often the topic was recreated."""
    files: tuple[tuple[str, str], ...] = ()
    copy: tuple[Any, ...] | None = None
    """An older lake, snapshot and topic."""
    faults: frozenset[str] = frozenset()

    @property
    def appends(self) -> list[str]:
        """The files with events."""
        return [entry for entry in self.lake if entry.startswith("append")]


class Killed(BaseException):
    """The job is killed before a durable write."""


class Servers:
    """Storage and Kafka."""

    def __init__(self) -> None:
        self.world = World()
        self.writes_left: int | None = None

    def write(self, **changes: Any) -> None:
        """Write durably, in one step, or be killed before."""
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Killed
            self.writes_left -= 1
        self.world = replace(self.world, **changes)

    def read_text(self, _: object, path: str) -> str | None:
        """Read a small file, or an entry of the lake's log."""
        if "_delta_log" not in path:
            return dict(self.world.files).get(path)
        version = int(path.rsplit("/", 1)[1].split(".")[0])
        if version >= len(self.world.lake):
            return None
        entry = self.world.lake[version]
        action = {"add": {"path": entry, "dataChange": entry.startswith("append")}}
        return orjson.dumps(action).decode()

    def write_text(self, _: object, path: str, text: str) -> None:
        """Write a small file."""
        if dict(self.world.files).get(path) != text:
            self.write(files=tuple(sorted((dict(self.world.files) | {path: text}).items())))

    def remove(self, _: object, path: str) -> None:
        """Remove a small file."""
        self.write(files=tuple((p, text) for p, text in self.world.files if p != path))


class Producer:
    """A producer whose records reach the broker one by one, in their order."""

    def __init__(self, servers: Servers, pending: Iterable[tuple[str, int]] = ()) -> None:
        self._servers = servers
        self.pending = list(pending)

    def send(self, records: Iterable[tuple[str, str | None]]) -> None:
        """Take over records."""
        for key, value in records:
            self.pending.append((key, orjson.loads(value or "{}")["total_interactions"]))

    def deliver(self) -> None:
        """Let the broker store the next record."""
        self._servers.write(topic=(*self._servers.world.topic, self.pending[0]))
        del self.pending[0]

    def flush(self) -> None:
        """Wait for the broker."""
        while self.pending:
            self.deliver()


class _Lake(Lake):
    servers: Servers

    def version(self) -> int:
        return len(self.servers.world.lake) - 1

    def files(self) -> list[str]:
        return [f"{self.interactions}/{name}" for name in self.servers.world.appends]


class _Snapshots(Snapshots):
    """The snapshots, without Delta Lake."""

    servers: Servers

    def _load(self, key: Key) -> Snapshot:
        stored = self.servers.world.snapshot
        if stored is None:
            return Snapshot(empty_state(key), None)
        rows, version, entry = stored
        return Snapshot(_state(rows), version, entry)

    def save(self, _: Key, rows: pl.DataFrame, version: int, *__: object) -> None:
        self.servers.write(snapshot=(_totals(rows), version, self._log.digest(version) or ""))


def _totals(rows: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(zip(rows[ROW_ID].cast(pl.String).to_list(), rows[EVENTS.name].to_list(), strict=True)))


def _state(totals: Sequence[tuple[str, int]]) -> pl.DataFrame:
    """Return the state of a key after so many events: all of them are the same."""
    schema = empty_state(USERS).schema
    one = KeyedState(USERS)
    one.add(_events(["append"]))
    row = one.rows.row(0, named=True)
    rows = [
        {name: user if name == ROW_ID else n if row[name] == 1 else row[name] for name in schema} for user, n in totals
    ]
    return pl.DataFrame(rows, schema=schema)


def _events(files: Sequence[str], _: object = None) -> pl.LazyFrame:
    """Return the events in files: a view of each user."""
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    rows = [(user, "item", "view", at) for _ in files for user in ("a", "b")]
    return pl.DataFrame(rows, schema=EVENT_FRAME, orient="row").lazy()


@dataclass(frozen=True)
class State:
    """The world and a running job; equal by the world and by what the job remembers."""

    world: World
    memory: tuple[Any, ...] | None
    job: Aggregator | None = field(compare=False)


class CountingModel:
    """The steps of the model, and its promises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, faults: Sequence[str] = (), appends: int = 2) -> None:
        """Model so many appends, and these faults, each at most once."""
        self._faults, self._appends = faults, appends
        self.servers = servers = Servers()
        self._lake = _Lake("w")
        object.__setattr__(self._lake, "servers", servers)
        stand_ins: dict[str, Any] = {
            "RowProducer": lambda *_: Producer(servers),
            "max_message_bytes": lambda *_: 1 << 20,
            "read_text_if_exists": servers.read_text,
            "modified_at": lambda *_: 0.0,
            "scan_events": _events,
            "Snapshots": self._snapshots,
            "KEYS": (USERS,),
            "time": SimpleNamespace(monotonic=lambda: 0.0, time=lambda: _LATER),
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(aggregator, name, stand_in)
        monkeypatch.setattr(published_topic, "topic_id", lambda *_: f"topic {servers.world.topics}")
        monkeypatch.setattr(published_topic, "offset_ranges", lambda *_: {0: (0, len(servers.world.topic))})
        monkeypatch.setattr(published_topic, "read_text_if_exists", servers.read_text)
        monkeypatch.setattr(published_topic, "write_text", servers.write_text)
        monkeypatch.setattr(published_topic, "remove", servers.remove)
        monkeypatch.setattr(counts, "KEYS", (USERS,))
        monkeypatch.setattr(counts, "_HAS_WINDOWS", False)
        monkeypatch.setattr(Counts, "events", 0)
        monkeypatch.setattr(spark_internals, "max_heap_bytes", lambda _: 1 << 30)
        monkeypatch.setattr(table_writer, "time", SimpleNamespace(monotonic=lambda: 0.0))
        monkeypatch.setattr(table_writer, "merge_rows", self._merge)
        monkeypatch.setattr(Aggregator, "_report_rows", lambda _: None)
        monkeypatch.setattr(Aggregator, "_check_memory", lambda _: None)
        self.start = State(servers.world, None, None)

    def _snapshots(self, folder: str, lake: Lake, log: LakeLog) -> _Snapshots:
        snapshots = _Snapshots(folder, lake, log)
        snapshots.servers = self.servers
        return snapshots

    def _merge(self, _: Lake, __: Table, rows: pl.DataFrame | ArrowTable) -> None:
        merged = cast(pl.DataFrame, rows)
        changed = dict(zip(merged["user_id"].to_list(), merged["total_interactions"].to_list(), strict=True))
        self.servers.write(table=tuple(sorted((dict(self.servers.world.table) | changed).items())))

    # Steps.

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step that is possible, and the state that it leads to."""
        world, job = state.world, state.job
        if job is None:
            yield from self._killed_anywhere("start", state, lambda _: self._start())
            for name in self._faults:
                if name not in world.faults and (changed := _FAULTS[name](world)) is not None:
                    yield name, State(replace(changed, faults=changed.faults | {name}), None, None)
            return
        yield "kill", State(world, None, None)
        if len(world.appends) < self._appends and job._appends.empty():
            yield from self._killed_anywhere("append", state, self._append)
        if not job._appends.empty():
            yield from self._killed_anywhere("count", state, lambda job: self._follow(job, more=False))
            yield from self._killed_anywhere("count in a backlog", state, lambda job: self._follow(job, more=True))
        if job._counts.has_unpublished:
            yield from self._killed_anywhere("publish", state, lambda job: self._follow(job, more=False))
        if cast(Any, job)._producer.pending:
            yield from self._killed_anywhere("deliver", state, lambda job: cast(Any, job)._producer.deliver())
        if world.lake[-1].startswith("append") and "compact" in self._faults:
            yield "compact", State(replace(world, lake=(*world.lake, "compacted")), state.memory, job)
        yield from self._killed_anywhere("materialise", state, lambda job: self._materialise(job, snapshot=True))
        yield from self._killed_anywhere("merge", state, lambda job: self._materialise(job, snapshot=False))

    def _killed_anywhere(
        self, name: str, state: State, run: Callable[[Aggregator], Aggregator | None]
    ) -> Iterator[tuple[str, State]]:
        for writes in count():
            self.servers.world, self.servers.writes_left = state.world, writes
            job = None if state.job is None else self._clone(state.job)
            try:
                job = run(cast(Aggregator, job)) or job
            except Killed:
                if writes:
                    yield f"{name} killed before write {writes}", State(self.servers.world, None, None)
                continue
            assert job is not None
            yield name, State(self.servers.world, _memory(job), job)
            return

    def _clone(self, job: Aggregator) -> Aggregator:
        """Return a copy that can go another way: frames and series are immutable."""
        cloned: Any = copy.copy(job)
        cloned._counts = _clone_counts(job._counts)
        cloned._producer = Producer(self.servers, cast(Any, job)._producer.pending)
        cloned._publisher = RowPublisher(cloned._producer)
        cloned._lock = PoisoningLock()
        cloned._writer = copy.copy(job._writer)
        cloned._appends = queue.Queue()
        cloned._appends.queue.extend(job._appends.queue)
        return cast(Aggregator, cloned)

    def _start(self) -> Aggregator:
        job = Aggregator(cast(Any, None), _SETTINGS, self._lake, lambda: None)
        cast(Any, job)._writer._retention = SimpleNamespace(apply=lambda _: None)
        job._restore()
        return job

    def _append(self, job: Aggregator) -> None:
        """Commit an append, and hand it over, as ingest does."""
        world = self.servers.world
        # Another one has another file.
        name = f"append {len(world.appends)}{' again' if 'restore lake' in world.faults else ''}"
        self.servers.write(lake=(*self.servers.world.lake, name))
        job._appends.put(Append(self._lake.version(), files=[name]))

    def _follow(self, job: Aggregator, *, more: bool) -> None:
        """Let the aggregator follow once: count what waits, and publish unless there is `more`."""
        once: Any = iter([False])
        cast(Any, job)._stop = SimpleNamespace(is_set=lambda: next(once, True))
        job._next_publication = _LATER if more else 0.0
        if more:
            job._appends.queue[0] = replace(job._appends.queue[0], more=True)
        job._follow()

    def _materialise(self, job: Aggregator, *, snapshot: bool) -> None:
        cast(Any, job)._stop = SimpleNamespace(wait=lambda _: True, is_set=lambda: True)
        job._writer._next_snapshot = 0.0 if snapshot else _LATER
        job._materialise()

    # Promises.

    def check(self, state: State) -> None:
        """Raise `ViolationError` unless topic and table get the counts of the lake once the job has no work left."""
        self.servers.world, self.servers.writes_left = state.world, None
        job = self._start() if state.job is None else self._clone(state.job)
        while not job._appends.empty() or job._counts.has_unpublished:
            self._follow(job, more=False)
        cast(Any, job)._producer.flush()
        self._materialise(job, snapshot=True)
        world = self.servers.world
        number = len(world.appends)
        expected = {user: number for user in ("a", "b") if number}
        rows = {key.removeprefix("agg_interactions_user-"): n for key, n in world.topic}
        if rows != expected:
            raise ViolationError(f"the topic has {rows}, and the lake {expected}")
        if dict(world.table) != expected:
            raise ViolationError(f"the table has {dict(world.table)}, and the lake {expected}")
        latest: Counter[str] = Counter()
        for key, n in world.topic:
            if n < latest[key] and "restore lake" not in world.faults:
                raise ViolationError(f"the row with {n} follows the one with {latest[key]}")
            latest[key] = n
        if world.snapshot is None or dict(world.snapshot[0]) != expected:
            raise ViolationError(f"the snapshot is {world.snapshot}, and the lake has {expected}")


def _memory(job: Aggregator) -> tuple[Any, ...]:
    counted = job._counts
    return (
        (counted.version, job._snapshot_version, job._writer._saved_version),
        _totals(counted._states[USERS].rows),
        (counted.has_unpublished, bool(counted._unwritten[USERS])),
        tuple(cast(Any, job)._producer.pending),
        tuple(append.version for append in job._appends.queue),
    )


def _clone_counts(counted: Counts) -> Counts:
    cloned = copy.copy(counted)
    state = cloned._states[USERS]
    cloned._states = {USERS: copy.copy(state)}
    # A series changes in place.
    cloned._states[USERS]._columns = {name: series.clone() for name, series in state._columns.items()}
    cloned._states[USERS]._key_columns = {name: series.clone() for name, series in state._key_columns.items()}
    cloned._unpublished = {USERS: _clone_numbers(counted._unpublished[USERS])}
    cloned._unwritten = {USERS: _clone_numbers(counted._unwritten[USERS])}
    return cloned


def _clone_numbers(numbers: Any) -> Any:
    cloned = copy.copy(numbers)
    cloned._parts = list(numbers._parts)
    return cloned


def _restore_lake(world: World) -> World | None:
    if world.copy is None or len(world.copy[0]) == 1:
        # Rows of users that an empty lake does not have would stay in the topic.
        return None
    return replace(world, lake=world.copy[0])


_FAULTS: Final[dict[str, Callable[[World], World | None]]] = {
    "compact": lambda _: None,
    "copy": lambda world: replace(world, copy=(world.lake, world.snapshot, world.topic)),
    "restore lake": _restore_lake,
    "restore snapshot": lambda world: None if world.copy is None else replace(world, snapshot=world.copy[1]),
    "lose snapshot": lambda world: replace(world, snapshot=None),
    "restore topic": lambda world: None if world.copy is None else replace(world, topic=world.copy[2]),
    "recreate topic": lambda world: replace(world, topic=(), topics=world.topics + 1),
}
FAULTS: Final = tuple(_FAULTS)
"""The names of all faults."""
