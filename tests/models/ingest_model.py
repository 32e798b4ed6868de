"""A model of ingest: topic, lake, checkpoint and dead letters in memory, and the job's own code between them.

Real: `find_start_position`, `start_ingest` with `_BatchWriter`, `accept_gap`, `Checkpoint`, `Lake`'s reading of its
history, `AppendInfo`, `PartitionGap`. Stand-ins: what Spark, Delta Lake and Kafka do. Each of their durable writes is
one step; the job can be killed before each.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, Self, cast
from uuid import UUID

import orjson
import polars as pl
import pytest
from pyspark.sql import SparkSession
from stream_processing import (
    checkpoint,
    commands,
    ingest,
    kafka_io,
    published_topic,
    spark_internals,
    start_position,
)
from stream_processing.lake import AppendInfo, Lake
from stream_processing.parsing import NOT_CANONICAL
from stream_processing.partition_gap import PartitionGap
from stream_processing.progress import RunningBatch
from stream_processing.settings import StreamProcessingSettings
from stream_processing.start_position import (
    LostCheckpointError,
    OlderLakeError,
    OlderTopicError,
    TopicRecreatedError,
)

from contract.declared import EVENT
from tests.models.exploration import ViolationError

TOPIC: Final = "t"
SETTINGS: Final = StreamProcessingSettings(
    kafka_topic=TOPIC, warehouse="w", checkpoints="c", batch_interval=1e-9, loop_sleep=1e-3
)
_CHECKPOINT: Final = f"{SETTINGS.checkpoints}/ingest"

Origin = tuple[int, int, int]
"""A record: how often the topic had been recreated, partition, offset."""


@dataclass(frozen=True)
class Topic:
    """The records of one topic, also those that it no longer holds."""

    partitions: tuple[str, ...]
    """A letter for each record: `v` for a valid one, `m` for a malformed one."""
    earliest: tuple[int, ...]
    """The first offset that each partition still holds."""
    copied: tuple[int, ...] = ()
    """How many records of each partition are those of `copied_from`: the topic is an older copy of it."""
    copied_from: int = -1

    def origin(self, n: int, partition: int, offset: int) -> Origin:
        """Return the origin of a record of this topic, which is the `n`th."""
        is_copied = partition < len(self.copied) and offset < self.copied[partition]
        return (self.copied_from if is_copied else n, partition, offset)

    def send(self) -> Self:
        """Append a malformed record to partition 1, and a valid one to each other partition."""
        return replace(self, partitions=tuple(f"{r}{'m' if p == 1 else 'v'}" for p, r in enumerate(self.partitions)))


@dataclass(frozen=True)
class Commit:
    """A version of the lake."""

    info: str | None = None
    rows: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class World:
    """All that survives a kill."""

    topics: tuple[Topic, ...]
    """The last one is the current one."""
    lake: tuple[Commit, ...] = (Commit(),)
    history: int = 0
    """The first version that the lake's history reaches back to."""
    files: tuple[tuple[str, str], ...] = ()
    """The checkpoints: paths and texts."""
    dead_letters: tuple[Origin, ...] = ()
    queries: int = 0
    """How many queries were created."""
    accepted: frozenset[Origin] = frozenset()
    """Records that `accept-gap` has reported as lost."""
    copy: tuple[tuple[Commit, ...], int, tuple[tuple[str, str], ...], int, Topic] | None = None
    """An older lake, its history and checkpoints; an older topic, after its place in `topics`."""
    faults: frozenset[str] = frozenset()

    @property
    def topic(self) -> Topic:
        """The current topic."""
        return self.topics[-1]

    @property
    def topic_id(self) -> str:
        """The id of the current topic; an older copy has that of the topic that was copied."""
        return f"topic {self.topic.copied_from if self.topic.copied else len(self.topics) - 1}"

    def with_fault(self, fault: str, **changes: Any) -> Self:
        """Return the world after something that the job did not do."""
        return replace(self, faults=self.faults | {fault}, **changes)


@dataclass(frozen=True)
class Process:
    """What a running job remembers."""

    starting_offsets: str
    memory: tuple[tuple[str, Any], ...]
    """The attributes of its `_BatchWriter` that change."""


State = tuple[World, Process | None]


class Killed(BaseException):
    """The job is killed before a durable write."""


class DataLossError(Exception):
    """Spark stops the query: offsets that it has not read are no longer in the topic."""


REFUSALS: Final = (OlderLakeError, LostCheckpointError, OlderTopicError, TopicRecreatedError, DataLossError)


@dataclass(frozen=True)
class Record:
    """A record of the topic, as rows of Spark have it."""

    origin: Origin
    is_valid: bool

    @property
    def value(self) -> bytes:
        """The value; the user is the record's origin."""
        if not self.is_valid:
            return b"not JSON"
        user = ",".join(map(str, self.origin))
        return orjson.dumps({"user_id": user, "item_id": "i", "interaction_type": "view", "timestamp": 1_700_000_000})


class Batch(list[Record]):
    """A DataFrame of records."""

    is_canonical = False

    def select(self, *_: object) -> Self:
        """Keep all columns."""
        return self

    def observe(self, observation: Any, _: object) -> Self:
        """Count the malformed records."""
        observation.get = {"malformed": sum(not record.is_valid for record in self)}
        return self

    def where(self, _: object) -> "Batch":
        """Keep the valid records: the only condition that ingest has."""
        return Batch(record for record in self if record.is_valid)


class Servers:
    """Kafka, Spark's engine and storage."""

    def __init__(self) -> None:
        self.world = World((Topic(("", ""), (0, 0)),))
        self.writes_left: int | None = None
        """Durable writes before the kill; None: no kill."""
        self.gaps: list[PartitionGap] = []
        self.batch_function: Callable[[Any, int], None] | None = None
        self.lake = ModelLake("w")
        object.__setattr__(self.lake, "servers", self)

    def write(self, **changes: Any) -> None:
        """Write durably, in one step, or be killed before."""
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Killed
            self.writes_left -= 1
        self.world = replace(self.world, **changes)

    # Storage.

    def texts(self) -> dict[str, str]:
        """Return the files of the checkpoints."""
        return dict(self.world.files)

    def write_text(self, _: object, path: str, text: str) -> None:
        """Write a file."""
        if self.texts().get(path) != text:
            self.write(files=tuple(sorted((self.texts() | {path: text}).items())))

    def remove(self, _: object, path: str) -> None:
        """Remove a file or a folder."""
        left = tuple((p, text) for p, text in self.world.files if p != path and not p.startswith(f"{path}/"))
        if left != self.world.files:
            self.write(files=left)

    def list_names(self, _: object, path: str) -> list[str]:
        """List a folder."""
        return [p[len(path) + 1 :].split("/")[0] for p, _ in self.world.files if p.startswith(f"{path}/")]

    def read_text(self, _: object, path: str) -> str:
        """Read a file of the checkpoints."""
        return self.texts()[path]

    def read_text_if_exists(self, _: object, path: str) -> str | None:
        """Read a file of the checkpoints, or an entry of the lake's log."""
        if "_delta_log" in path:
            return '{"add":{"path":"file","dataChange":true}}'
        return self.texts().get(path)

    # Kafka.

    def topic_id(self, *_: object) -> str:
        """Return the id of the current topic."""
        return self.world.topic_id

    def partitions(self, *_: object) -> list[int]:
        """Return the partitions of the topic."""
        return list(range(len(self.world.topic.partitions)))

    def ends(self) -> dict[str, int]:
        """Return the end offset of each partition."""
        return {str(p): len(records) for p, records in enumerate(self.world.topic.partitions)}

    def offset_ranges(self, *_: object) -> dict[int, tuple[int, int]]:
        """Return the first and the end offset of each partition."""
        return {p: (self.world.topic.earliest[p], end) for p, end in enumerate(self.ends().values())}

    def read(self, start: Mapping[str, int], end: Mapping[str, int], *, fail: bool = True) -> Batch:
        """Read records; raises `DataLossError` if some of them are not there any more."""
        topic, n = self.world.topic, len(self.world.topics) - 1
        batch = Batch()
        if not fail and {*start} ^ {*end}:
            raise ViolationError(f"Spark refuses to read from {start} to {end}")
        for partition, records in enumerate(topic.partitions):
            first, last = start.get(str(partition), 0), end.get(str(partition), 0)
            if first == start_position._EARLIEST:
                first = topic.earliest[partition]
            if fail and first < last and (first < topic.earliest[partition] or last > len(records)):
                raise DataLossError
            offsets = range(max(first, topic.earliest[partition]), min(last, len(records)))
            batch += [Record(topic.origin(n, partition, offset), records[offset] == "v") for offset in offsets]
        return batch

    # Spark's query.

    def run_batch(self, process: Process, function: Callable[[Any, int], None]) -> bool:
        """Repeat the unfinished batch, or run one with all new records; return whether there is anything to do."""
        started, committed = (
            sorted(map(int, self.list_names(None, f"{_CHECKPOINT}/{name}"))) for name in ("offsets", "commits")
        )
        batch = started[-1] if started else 0
        is_repeated = bool(started) and batch > max(committed, default=-1)
        if started and not is_repeated:
            batch += 1
        start = self._start(process) if batch == 0 else self._offsets(batch - 1)
        ends = self.ends()
        for partition in ends.keys() - start.keys():
            start[partition] = self.world.topic.earliest[int(partition)]
            if start[partition] != 0:
                raise DataLossError
        if any(ends.get(partition, 0) < offset for partition, offset in start.items()):
            raise DataLossError
        if not is_repeated:
            if ends == start:
                return False
            self.write_text(None, f"{_CHECKPOINT}/offsets/{batch}", f"v1\n{{}}\n{json.dumps({TOPIC: ends})}")
        function(self.read(start, self._offsets(batch)), batch)
        self.write_text(None, f"{_CHECKPOINT}/commits/{batch}", "v1\n{}")
        return True

    def _start(self, process: Process) -> dict[str, int]:
        """Return the first offsets of a new query, which Spark stores before its first batch."""
        path = f"{_CHECKPOINT}/sources/0/0"
        if path not in self.texts():
            known = {} if process.starting_offsets == "earliest" else json.loads(process.starting_offsets)[TOPIC]
            if known and known.keys() != self.ends().keys():
                raise ViolationError(
                    f"Spark refuses startingOffsets {known} of a topic with {len(self.ends())} partitions"
                )
            earliest = {str(p): offset for p, offset in enumerate(self.world.topic.earliest)}
            start = {p: o if known.get(p, -2) == start_position._EARLIEST else known[p] for p, o in earliest.items()}
            self.write_text(None, path, json.dumps(start))
        return dict(json.loads(self.texts()[path]))

    def _offsets(self, batch: int) -> dict[str, int]:
        return dict(checkpoint.parse_offsets(self.texts()[f"{_CHECKPOINT}/offsets/{batch}"])[0][TOPIC])

    # What ingest calls.

    def append(self, rows: Any, info: AppendInfo) -> None:
        """Commit rows to the lake."""
        if isinstance(rows, pl.DataFrame):
            origins = [cast(Origin, tuple(map(int, user.split(",")))) for user in rows["user_id"].to_list()]
        elif rows.is_canonical and not all(record.is_valid for record in rows):
            raise RuntimeError(NOT_CANONICAL)
        else:
            origins = [record.origin for record in rows]
        self.write(lake=(*self.world.lake, Commit(info.to_json(), tuple(origins))))

    def without_sent(self, malformed: Batch, _: object) -> Batch:
        """Drop the records whose dead letters are in the topic already."""
        sent = {origin[1:] for origin in self.world.dead_letters}
        return Batch(record for record in malformed if record.origin[1:] not in sent)

    def send_dead_letters(self, malformed: Batch, _: object) -> dict[str, int]:
        """Send dead letters, one by one."""
        for record in malformed:
            self.write(dead_letters=tuple(sorted((*self.world.dead_letters, record.origin))))
        return {}


class _Table:
    """The interactions table, as delta-rs opens it."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def history(self, _limit: int | None = None) -> Iterator[dict[str, Any]]:
        world = self._servers.world
        for version in reversed(range(world.history, len(world.lake))):
            info = world.lake[version].info
            yield {"version": version} | ({} if info is None else {"userMetadata": info})

    def version(self) -> int:
        return len(self._servers.world.lake) - 1

    def count(self) -> int:
        return sum(len(commit.rows) for commit in self._servers.world.lake)

    def update_incremental(self) -> None:
        """There is nothing to update."""


class ModelLake(Lake):
    """The lake over a table in memory."""

    servers: Servers

    def table(self, name: str) -> Any:
        """Open the interactions table."""
        assert name == EVENT.name
        return _Table(self.servers)

    def write_marker(self, info: AppendInfo) -> None:
        """Commit an append without rows."""
        self.servers.append(Batch(), info)


class _Session:
    """A session of Spark, its readers and its writers."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._options: dict[str, str] = {}
        self.sparkContext = SimpleNamespace(defaultParallelism=2)

    def __getattr__(self, name: str) -> Any:
        if name in ("readStream", "read"):
            self._options = {}
        return self if name in ("readStream", "read", "writeStream") else lambda *_, **__: self

    def options(self, **options: str) -> Self:
        self._options |= options
        return self

    def select(self, *_: object) -> Any:
        """Return the records of a batch source; a stream has none yet."""
        if "endingOffsets" not in self._options:
            return self
        start, end = (json.loads(self._options[name])[TOPIC] for name in ("startingOffsets", "endingOffsets"))
        return self._servers.read(start, end, fail=self._options["failOnDataLoss"] == "true")

    def foreachBatch(self, function: Callable[[Any, int], None]) -> Self:  # noqa: N802
        self._servers.batch_function = function
        return self

    def start(self) -> None:
        """Create the query, or continue it."""
        if f"{_CHECKPOINT}/metadata" not in self._servers.texts():
            number = self._servers.world.queries
            self._servers.write(queries=number + 1)
            self._servers.write_text(None, f"{_CHECKPOINT}/metadata", json.dumps({"id": str(UUID(int=number))}))


class _Anything:
    """An expression of Spark."""

    def __getattr__(self, _: str) -> Any:
        return self

    def __call__(self, *_: object) -> Self:
        return self

    def __invert__(self) -> Self:
        return self


_MEMORY: Final = ("_query_id", "_repeated_batch", "_expected_with_others", "_offsets", "_topic_id")


class IngestModel:
    """The steps of the model, and its promises."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, by_spark: bool, faults: Sequence[str], sends: int = 2
    ) -> None:
        """Model small batches, or large ones `by_spark`, with these faults, each at most once, and so many sends."""
        self._faults = faults
        self._sends = sends
        self.servers = servers = Servers()
        self._session = cast(SparkSession, _Session(servers))
        self.start: State = (servers.world, None)
        for module in (checkpoint, commands, ingest, published_topic, start_position):
            for name in ("list_names", "read_text", "read_text_if_exists", "write_text", "remove"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, getattr(servers, name))
        monkeypatch.setattr(kafka_io, "topic_id", servers.topic_id)
        monkeypatch.setattr(kafka_io, "partitions_of", servers.partitions)
        monkeypatch.setattr(kafka_io, "offset_ranges", servers.offset_ranges)
        monkeypatch.setattr(commands, "_gaps", self._recording(commands._gaps))
        monkeypatch.setattr(spark_internals, "muted", lambda *_: nullcontext())
        monkeypatch.setattr(spark_internals, "wait_for_tasks", lambda *_: None)
        self._patch_ingest(monkeypatch)
        monkeypatch.setattr(ingest, "_MAX_COLLECTED_RECORDS", -1 if by_spark else 20_000)

    def _patch_ingest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = self.servers

        def parse_canonical(batch: Batch) -> Batch:
            canonical = Batch(batch)
            canonical.is_canonical = True
            return canonical

        def parse_by_spark(_: object, records: Sequence[Record]) -> tuple[list[Any], list[Record]]:
            return [], list(records)

        stand_ins: dict[str, Any] = {
            "F": _Anything(),
            "Observation": SimpleNamespace,
            "set_polling_interval": lambda *_: None,
            "trigger_interval": lambda *_: "",
            "collect_records": list,
            "parse": lambda batch: batch,
            "parse_canonical": parse_canonical,
            "data_frame": lambda _, records: Batch(records),
            "with_reason": lambda records: records,
            "malformed_records": lambda batch: Batch(record for record in batch if not record.is_valid),
            "without_sent": servers.without_sent,
            "send_dead_letters": servers.send_dead_letters,
            "append": lambda rows, _, info: servers.append(rows, info),
            "append_rows": lambda _, rows, info: servers.append(rows, info),
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(ingest, name, stand_in)
        monkeypatch.setattr(ingest._BatchWriter, "_parse_by_spark", parse_by_spark)

    def _recording(self, gaps: Callable[..., Iterator[PartitionGap]]) -> Callable[..., Iterator[PartitionGap]]:
        def recorded(*arguments: Any, **keywords: Any) -> Iterator[PartitionGap]:
            self.servers.gaps = list(gaps(*arguments, **keywords))
            return iter(self.servers.gaps)

        return recorded

    # Steps.

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step that is possible, and the state that it leads to."""
        world, process = state
        if sum(len(topic.partitions[0]) for topic in world.topics) < self._sends:
            yield "send", (replace(world, topics=(*world.topics[:-1], world.topic.send())), process)
        if process is not None:
            yield "kill", (world, None)
            yield from self._killed_anywhere("batch", world, lambda: self._run_batch(process))
            if _REMOVE_HISTORY in self._faults and (trimmed := _without_history(world)) is not None:
                yield _REMOVE_HISTORY, (trimmed, process)
            return
        yield from self._killed_anywhere("start", world, self._start_job)
        for fault in self._faults:
            if fault in _FAULTS and fault not in world.faults and (changed := _FAULTS[fault](world)) is not None:
                yield fault, (changed, None)
        if "retention" in world.faults or len(world.topics) > 1 or "restore topic" in world.faults:
            yield from self._killed_anywhere("accept-gap", world, self._accept_gap)

    def _killed_anywhere(
        self, name: str, world: World, run: Callable[[], Process | None]
    ) -> Iterator[tuple[str, State]]:
        """Yield the states after this part of the job, and after it was killed before each durable write."""
        for writes in count():
            self.servers.world, self.servers.writes_left = world, writes
            try:
                process = run()
            except Killed:
                yield f"{name} killed before write {writes}", (self.servers.world, None)
                continue
            except REFUSALS as refusal:
                self._require_reason(refusal)
                yield f"{name} refused: {type(refusal).__name__}", (self.servers.world, None)
            else:
                yield name, (self.servers.world, process)
            return

    def _start_job(self) -> Process:
        servers = self.servers
        position = start_position.find_start_position(self._session, SETTINGS, servers.lake)
        ingest.start_ingest(
            self._session, SETTINGS, servers.lake, position, lambda _: None, RunningBatch(), lambda: None
        )
        return Process(position.starting_offsets, self._memory())

    def _memory(self) -> tuple[tuple[str, Any], ...]:
        values = vars(self.servers.batch_function)
        return tuple(
            (name, tuple(sorted(values[name].items())) if name == "_offsets" else values[name]) for name in _MEMORY
        )

    def _run_batch(self, process: Process) -> Process:
        writer = self._writer()
        for name, value in process.memory:
            vars(writer)[name] = dict(value) if name == "_offsets" else value
        self.servers.run_batch(process, writer)
        return replace(process, memory=self._memory())

    def _writer(self) -> Callable[[Any, int], None]:
        assert self.servers.batch_function is not None
        return self.servers.batch_function

    def _accept_gap(self) -> None:
        servers = self.servers
        before, servers.gaps = len(servers.world.lake), []
        try:
            commands.accept_gap(self._session, SETTINGS, servers.lake)
        except commands.OffsetsUnknownError:
            return
        finally:
            if len(servers.world.lake) > before:
                servers.world = replace(servers.world, accepted=servers.world.accepted | _lost(servers))

    # Promises.

    def check(self, state: State) -> None:
        """Raise `ViolationError` unless the job, with the documented remedies, continues and misses nothing."""
        world, process = state
        servers = self.servers
        servers.world, servers.writes_left = world, None
        if process is not None:
            # A kill between any two steps is another state; this one goes on.
            self._continue(process)
            return
        for _ in range(4):
            try:
                process = self._start_job()
            except REFUSALS as refusal:
                self._require_reason(refusal)
                if isinstance(refusal, LostCheckpointError):
                    return
                self._remedy(refusal)
                continue
            if self._continue(process):
                return
        raise ViolationError("the documented remedies do not let the job continue")

    def _continue(self, process: Process) -> bool:
        """Process all records; return whether it could."""
        servers = self.servers
        writer = self._writer()
        for name, value in process.memory:
            vars(writer)[name] = dict(value) if name == "_offsets" else value
        try:
            while servers.run_batch(process, writer):
                pass
        except DataLossError as refusal:
            self._require_reason(refusal)
            self._remedy(refusal)
            return False
        _require_complete(servers.world)
        return True

    def _remedy(self, refusal: Exception) -> None:
        """Do what the message of a refusal says."""
        if isinstance(refusal, OlderLakeError):
            self.servers.world = replace(self.servers.world, files=())
        else:
            self._accept_gap()

    def _require_reason(self, refusal: Exception) -> None:
        """Raise `ViolationError` if the job is refused without a fault that explains it."""
        faults = self.servers.world.faults
        reasons = {
            OlderLakeError: {"restore lake", "delete lake"},
            LostCheckpointError: {"remove history"},
            OlderTopicError: {"restore topic"},
            TopicRecreatedError: {"recreate topic", "restore topic"},
            DataLossError: {"retention", "recreate topic", "restore topic"},
        }
        if not faults & reasons[type(refusal)]:
            raise ViolationError(f"{type(refusal).__name__} after {sorted(faults)}")


def _lost(servers: Servers) -> set[Origin]:
    """Return the records that the last `accept-gap` has reported as lost."""
    world, lost = servers.world, set()
    n = len(world.topics) - 1
    for gap in servers.gaps:
        if gap.topic_recreated:
            lost |= {
                world.topics[before].origin(before, gap.partition, offset)
                for before in range(n)
                if gap.partition < len(world.topics[before].partitions)
                for offset in range(gap.position, len(world.topics[before].partitions[gap.partition]))
            }
        else:
            lost |= {world.topic.origin(n, gap.partition, offset) for offset in range(gap.position, gap.resume_at)}
    return lost


def _require_complete(world: World) -> None:
    """Raise `ViolationError` unless each record is where it belongs, as often as is promised."""
    rows = Counter(origin for commit in world.lake for origin in commit.rows)
    dead_letters = Counter(world.dead_letters)
    is_older_lake = world.faults & {"restore lake", "delete lake"}
    for n, topic in enumerate(world.topics):
        for partition, records in enumerate(topic.partitions):
            for offset, kind in enumerate(records):
                origin = (n, partition, offset)
                if topic.origin(*origin) != origin:
                    continue
                is_held = n == len(world.topics) - 1 and offset >= topic.earliest[partition]
                # Whoever deletes the lake starts from scratch, with what the topic holds.
                is_started_again = "delete lake" in world.faults
                # A dead letter cannot be sent if its record was deleted after the kill. One of a recreated topic is
                # taken for that of the record that had its place.
                may_lack = origin in world.accepted or (not is_held and (kind == "m" or is_started_again))
                may_lack |= kind == "m" and any((before, partition, offset) in dead_letters for before in range(n))
                found = rows[origin] if kind == "v" else dead_letters[origin]
                name = f"{'row' if kind == 'v' else 'dead letter'} of record {origin}"
                if not found and not may_lack:
                    raise ViolationError(f"no {name}")
                # What was read again from a lake of the past is reported again.
                if found > 1 and (kind == "v" or not is_older_lake):
                    raise ViolationError(f"{found} times the {name}")


def _without(world: World, path: str) -> tuple[tuple[str, str], ...]:
    return tuple((p, text) for p, text in world.files if not p.startswith(path))


def _latest(world: World, folder: str) -> str | None:
    files = [path for path, _ in world.files if path.startswith(f"{_CHECKPOINT}/{folder}/")]
    return max(files, key=_number, default=None)


def _number(path: str) -> int:
    return int(path.rsplit("/", 1)[1])


def _lose_commit(world: World) -> World | None:
    latest = _latest(world, "commits")
    return None if latest is None else world.with_fault("lose commit", files=_without(world, latest))


def _with_files(fault: str, world: World, files: tuple[tuple[str, str], ...]) -> World:
    """Change the checkpoints. Without any offsets or append, a start cannot know of records that were deleted."""
    changed = replace(world, files=files)
    unknown = set() if _has_read(changed) else _deleted(changed)
    return changed.with_fault(fault, accepted=world.accepted | unknown)


def _deleted(world: World) -> set[Origin]:
    """Return the records that the topic no longer holds, of those before too if its id is not known."""
    n = len(world.topics) - 1
    deleted = {
        world.topic.origin(n, p, offset) for p, first in enumerate(world.topic.earliest) for offset in range(first)
    }
    if f"{_CHECKPOINT}.topic" in dict(world.files):
        return deleted
    return deleted.union(*map(_origins, range(n), world.topics))


def _origins(n: int, topic: Topic) -> set[Origin]:
    return {topic.origin(n, p, offset) for p, records in enumerate(topic.partitions) for offset in range(len(records))}


def _damage(fault: str, world: World, file: str | None) -> World | None:
    """Empty a file of the checkpoint, as a power failure can."""
    files = dict(world.files)
    return None if file not in files else _with_files(fault, world, tuple(sorted((files | {file: ""}).items())))


def _restore_checkpoint(world: World) -> World | None:
    return None if world.copy is None else _with_files("restore checkpoint", world, world.copy[2])


def _restore_lake(world: World) -> World | None:
    if world.copy is None:
        return None
    lake, history, *_ = world.copy
    restored = world.with_fault("restore lake", lake=lake, history=history)
    # Whoever restores an empty one starts from scratch.
    return restored if any(commit.info for commit in lake) else restored.with_fault("delete lake")


def _restore_topic(world: World) -> World | None:
    """Put an older copy of the topic in its place, with the same id.

    What the copy lacks is lost with Kafka's data. What it gets in place of records that were read is not read: then
    nothing counts twice.
    """
    if world.copy is None:
        return None
    *_, n, topic = world.copy
    copy = replace(topic, copied=tuple(map(len, topic.partitions)), copied_from=n)
    lost = {
        origin
        for m, each in enumerate(world.topics)
        for origin in _origins(m, each)
        if m != n or origin[2] >= copy.copied[origin[1]]
    }
    read = _read_up_to(world)
    replaced = {
        (len(world.topics), partition, offset)
        for partition, size in enumerate(copy.copied)
        for offset in range(size, read.get(str(partition), 0))
    }
    return world.with_fault("restore topic", topics=(*world.topics, copy), accepted=world.accepted | lost | replaced)


def _read_up_to(world: World) -> dict[str, int]:
    """Return the offsets up to which any batch has read the topic, appended or not."""
    found: dict[str, int] = {}
    infos = [json.loads(commit.info)["offsets"] for commit in world.lake if commit.info]
    texts = [text for path, text in world.files if path.startswith(f"{_CHECKPOINT}/offsets/") and text]
    for offsets in (*infos, *(checkpoint.parse_offsets(text)[0] for text in texts)):
        for partition, offset in offsets[TOPIC].items():
            found[partition] = max(found.get(partition, 0), offset)
    return found


def _delete_records(fault: str, world: World, most: int) -> World | None:
    """Delete the first records of each partition; a job that has not looked at the topic cannot know of them."""
    topic = world.topic
    if not all(topic.partitions):
        return None
    deleted = replace(topic, earliest=tuple(min(most, len(records)) for records in topic.partitions))
    changed = world.with_fault(fault, topics=(*world.topics[:-1], deleted)).with_fault("retention")
    is_known = _has_read(world) and dict(world.files).get(f"{_CHECKPOINT}.topic") == world.topic_id
    return changed if is_known else replace(changed, accepted=changed.accepted | _deleted(changed))


def _has_read(world: World) -> bool:
    """Whether lake or checkpoint have offsets; a checkpoint with a damaged id counts as lost."""
    latest, files = _latest(world, "offsets"), dict(world.files)
    is_readable = latest and files[latest] and files.get(f"{_CHECKPOINT}/metadata")
    return any(commit.info for commit in world.lake) or bool(is_readable)


def _added_partition(world: World) -> World:
    topic = world.topic
    added = replace(topic, partitions=(*topic.partitions, "v"), earliest=(*topic.earliest, 0))
    return world.with_fault("add partition", topics=(*world.topics[:-1], added))


def _recreated(world: World) -> World:
    """Recreate the topic; a job that has never looked at the one before cannot know of its records."""
    size = len(world.topic.partitions)
    changed = world.with_fault("recreate topic", topics=(*world.topics, Topic(("",) * size, (0,) * size)))
    unknown = set() if f"{_CHECKPOINT}.topic" in dict(world.files) else _deleted(changed)
    return replace(changed, accepted=world.accepted | unknown)


_REMOVE_HISTORY: Final = "remove history"


def _without_history(world: World) -> World | None:
    """Compact the lake and remove its history, as maintenance does while the job runs and finishes its batches."""
    started, committed = (_latest(world, folder) for folder in ("offsets", "commits"))
    is_unfinished = started is not None and (committed is None or _number(committed) < _number(started))
    servers = Servers()
    servers.world = world
    kept = servers.lake.first_version_to_keep()
    if is_unfinished or kept is None or _REMOVE_HISTORY in world.faults:
        return None
    return world.with_fault(_REMOVE_HISTORY, lake=(*world.lake, Commit()), history=kept)


_FAULTS: Final[dict[str, Callable[[World], World | None]]] = {
    "copy": lambda world: world.with_fault(
        "copy", copy=(world.lake, world.history, world.files, len(world.topics) - 1, world.topic)
    ),
    "restore topic": _restore_topic,
    "restore checkpoint": _restore_checkpoint,
    "restore lake": _restore_lake,
    "lose checkpoint": lambda world: _with_files("lose checkpoint", world, _without(world, f"{_CHECKPOINT}/")),
    "lose commit": _lose_commit,
    "damage offsets": lambda world: _damage("damage offsets", world, _latest(world, "offsets")),
    "damage commit": lambda world: _damage("damage commit", world, _latest(world, "commits")),
    "damage metadata": lambda world: _damage("damage metadata", world, f"{_CHECKPOINT}/metadata"),
    "delete lake": lambda world: world.with_fault("delete lake", lake=(Commit(),), history=0),
    "retention": lambda world: _delete_records("retention", world, 1),
    "full retention": lambda world: _delete_records("full retention", world, 9),
    "add partition": _added_partition,
    "recreate topic": _recreated,
}
FAULTS: Final = (*_FAULTS, _REMOVE_HISTORY)
"""The names of all faults."""
