"""A model of the sink: topic, consumer group and Elasticsearch in memory, and the sink's own code between them.

Real: `Sink`, `GroupConsumer`, `OffsetCommits`, `VersionClock`, `latest_rows`, `BulkWriter`, `RowIndex`, `AlertEngine`,
`AlertStore`, the alert rules. Stand-ins: the consumer's client, the thread pool, whose requests are delivered one by
one, and Elasticsearch with external versions. A sink can be killed before each durable write, and its requests can
arrive after its death. Two sinks can share the group; one that has lost its partition notices at its next poll.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, cast

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from elasticsearch_sink_alert.alerting import alert_lifecycle
from elasticsearch_sink_alert.alerting.alert_lifecycle import Alert, alert_from
from elasticsearch_sink_alert.alerting.engine import AlertEngine
from elasticsearch_sink_alert.alerting.rules import Rule
from elasticsearch_sink_alert.alerting.store import AlertStore
from elasticsearch_sink_alert.indexing import bulk
from elasticsearch_sink_alert.indexing.bulk import BulkRequest, BulkWriter, Response
from elasticsearch_sink_alert.indexing.retrier import Retrier
from elasticsearch_sink_alert.indexing.row_index import RowIndex
from elasticsearch_sink_alert.kafka import group_consumer, offset_commits
from elasticsearch_sink_alert.kafka.group_consumer import GroupConsumer
from elasticsearch_sink_alert.sink import Sink

from contract.alerts import FIRING
from contract.fields import ColumnType
from runtime.health import Health
from tests.models.exploration import ViolationError

TOPIC: Final = "t_aggregated"
ITEMS: Final = "agg_interactions_item"
RULE: Final = Rule(ITEMS, "max_interactions", ">", 12, ColumnType.LONG)
MALFORMED: Final = "malformed"

Value = int | str | None
"""A row's field, `MALFORMED`, or None for a deleted row."""
Records = Sequence[tuple[Value, int]]
"""The values of one row in the order of their records, with their append times."""


class Killed(BaseException):
    """The sink is killed before a durable write."""


def _number(source: dict[str, Any]) -> int:
    """Return the number of the record that a document is from."""
    return int(source["min_interactions"])


@dataclass
class Document:
    """A document; a deleted one keeps its version."""

    version: int
    source: dict[str, Any] | None


@dataclass
class Member:
    """A sink of the group."""

    sink: Sink
    client: "_Client"
    consumer: GroupConsumer
    store: "_Store"
    pool: "_Pool"


class _Message:
    """A record as the client returns it."""

    def __init__(self, offset: int, value: Value, timestamp: int) -> None:
        self._offset, self._value, self._timestamp = offset, value, timestamp

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp

    def key(self) -> bytes:
        return f"{ITEMS}-a".encode()

    def value(self) -> bytes | None:
        if self._value == MALFORMED:
            return b"not JSON"
        row = {"item_id": "a", "max_interactions": self._value, "min_interactions": self._offset}
        return None if self._value is None else orjson.dumps(row)

    def headers(self) -> None:
        return None


class _Client:
    """The consumer's client: learns of changes of the group when it is polled."""

    def __init__(self, world: "World", name: str) -> None:
        self._world, self._name = world, name
        self._assigned = False
        self.next_offset = 0
        self.is_answered = True
        """Whether the broker answers in time which offset is committed."""
        self.generation = -1
        """That of the group when the partition was assigned."""
        self._callbacks: list[Callable[[], None]] = []
        self._on: dict[str, Callable[..., None]] = {}
        self.on_commit: Callable[[KafkaError | None, list[TopicPartition]], None] = lambda *_: None

    def subscribe(self, _: object, on_assign: Callable[..., None], on_revoke: Callable[..., None]) -> None:
        self._on = {"assign": on_assign, "revoke": on_revoke}

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        (partition,) = partitions
        self._assigned = True
        self.next_offset = partition.offset if partition.offset >= 0 else self._world.committed[0]

    def incremental_unassign(self, _: Sequence[TopicPartition]) -> None:
        self._assigned = False

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, 0)] if self._assigned else []

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout
        if not self.is_answered:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        offset, metadata = self._world.committed
        return [TopicPartition(TOPIC, each.partition, offset, metadata) for each in partitions]

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        (committed,) = offsets
        is_owner = self._is_owner
        if is_owner:
            self._world.write(lambda: self._world.commit(committed))
        error = None if is_owner else KafkaError(KafkaError.ILLEGAL_GENERATION)
        self._callbacks.append(lambda: self.on_commit(error, list(offsets)))

    def poll(self, _: float) -> _Message | None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        if self._is_revoked():
            return None
        if self._world.owner == self._name and not self._assigned:
            self.generation = self._world.generation
            self._on["assign"](self, [TopicPartition(TOPIC, 0)])
            return None
        return next(iter(self._read(1)), None)

    def _is_revoked(self) -> bool:
        if not self._assigned or self._is_owner:
            return False
        self._on["revoke"](self, [TopicPartition(TOPIC, 0)])
        self._assigned = False
        return True

    @property
    def _is_owner(self) -> bool:
        return self._world.owner == self._name and self._world.generation == self.generation

    def consume(self, number: int, timeout: float = 0) -> list[_Message]:
        assert timeout >= 0
        return [] if self._is_revoked() else self._read(number)

    def _read(self, number: int) -> list[_Message]:
        end = min(self.next_offset + number, self._world.published) if self._assigned else self.next_offset
        start, self.next_offset = self.next_offset, end
        return [_Message(offset, *self._world.records[offset]) for offset in range(start, end)]

    def position(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, each.partition, self.next_offset) for each in partitions]

    def get_watermark_offsets(self, _: object, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self._world.published


class _Pool:
    """A thread pool whose calls happen when the model says."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.pending: list[tuple[Future[None], BulkRequest]] = []

    def submit(self, attempt: Callable[..., None], _: object) -> Future[None]:
        future: Future[None] = Future()
        self.pending.append((future, cast(BulkRequest, attempt.__self__)))  # type: ignore[attr-defined]
        return future

    def deliver(self, future: Future[None]) -> None:
        """Let Elasticsearch process a request, and answer."""
        request = next(request for pending, request in self.pending if pending is future)
        self._world.write(lambda: request.attempt(self._world.index))
        self.pending = [(pending, request) for pending, request in self.pending if pending is not future]
        future.set_result(None)


class _Store(AlertStore):
    """The alerts in Elasticsearch, without its client's scans."""

    world: "World"

    def _read(self, index: str, query: dict[str, Any]) -> Iterator[Alert]:
        status = query.get("term", {}).get("status")
        for (of, id_), document in sorted(self.world.documents.items()):
            if of == index and document.source is not None and status in (None, document.source["status"]):
                yield alert_from(id_, document.source)


class World:
    """All servers, and the sinks."""

    def __init__(self, records: Records, batch_size: int) -> None:
        self.records = records
        self._batch_size = batch_size
        self.published = 0
        self.committed = (0, "")
        self.owner, self.generation = "", 0
        """The sink that the partition is assigned to, and a number for the assignment."""
        self.documents: dict[tuple[str, str], Document] = {}
        self.dead_letters: list[int] = []
        self.members: dict[str, Member] = {}
        self.late: list[list[bytes]] = []
        """Requests of sinks that were killed, which have not arrived yet."""
        self.writes_left: int | None = None
        self.kills, self.moves = 0, 0

    def write(self, write: Callable[[], None]) -> None:
        """Write durably, in one step, or be killed before."""
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Killed
            self.writes_left -= 1
        write()

    def commit(self, offset: TopicPartition) -> None:
        """Commit an offset."""
        self.committed = (offset.offset, offset.metadata or "")

    def index(self, actions: Sequence[bytes]) -> Response:
        """Process a bulk request, as Elasticsearch does with the versions that it names."""
        return Response([self._index(action) for action in actions])

    def _index(self, action: bytes) -> dict[str, Any]:
        lines = action.split(b"\n")
        ((operation, metadata),) = orjson.loads(lines[0]).items()
        place = metadata["_index"].removesuffix("-sink"), metadata["_id"]
        known, version = self.documents.get(place), metadata["version"]
        source = None if operation == "delete" else orjson.loads(lines[1])
        is_older = {"external_gte": lambda v: v > version, "external": lambda v: v >= version}
        if known is not None and is_older[metadata["version_type"]](known.version):
            return {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": ""}}
        if (
            place[0] == ITEMS
            and source
            and known is not None
            and known.source
            and _number(source) < _number(known.source)
        ):
            raise ViolationError(f"row {_number(source)} replaces row {_number(known.source)}")
        self.documents[place] = Document(version, source)
        return {"status": 200}

    # Sinks.

    def start(self, name: str) -> None:
        """Start a sink, which joins the group."""
        settings = SimpleNamespace(
            aggregated_topic=TOPIC,
            loop_sleep=0.0,
            sink_batch_size=self._batch_size,
            kafka_client={},
            kafka_group_id="g",
        )
        health = Health("")
        client = _Client(self, name)
        consumer = GroupConsumer(cast(Any, settings), health, cast(Any, None))
        cast(Any, consumer)._consumer = client
        client.on_commit = consumer._commits.on_commit
        retrier = Retrier(health, lambda _: None)
        writer = BulkWriter(self.index, retrier, lambda: None)
        pool = cast(Any, writer)._pool = _Pool(self)
        cluster: Any = SimpleNamespace(identity="cluster", require_same=lambda: None)
        store = _Store(cast(Any, self._elasticsearch()), writer, retrier)
        store.world = self
        rules = SimpleNamespace(rules={ITEMS: (RULE,)}, by_name={RULE.name: RULE}, all_rules=(RULE,))
        engine = AlertEngine(
            cast(Any, SimpleNamespace(current=rules, reload=lambda: False)),
            cast(Any, SimpleNamespace(add=lambda *_: {}, clear_cache=lambda: None)),
            store,
            lambda _: None,
            health,
        )
        dead_letters: Any = SimpleNamespace(write=self._write_dead_letters)
        sink = Sink(consumer, RowIndex(cluster, writer, retrier), engine, dead_letters)
        consumer.subscribe("cluster")
        self.members[name] = Member(sink, client, consumer, store, pool)
        if not self.owner:
            self.move_to(name)

    def move_to(self, name: str) -> None:
        """Assign the partition to a sink; another one that has it notices later."""
        self.owner, self.generation = name, self.generation + 1

    def _elasticsearch(self) -> SimpleNamespace:
        def count_alerts(index: str) -> dict[str, Any]:
            number = sum(of == index and d.source is not None for (of, _), d in self.documents.items())
            return {"count": number, "_shards": {"failed": 0}}

        return SimpleNamespace(count=count_alerts)

    def _write_dead_letters(self, rejected: Sequence[Any]) -> None:
        for each in rejected:
            self.write(lambda offset=each.record.offset: self.dead_letters.append(offset))  # type: ignore[misc]

    def kill(self, name: str) -> None:
        """Kill a sink; its requests with rows arrive later, or never.

        One with alerts, which the sink waits for, has arrived, or does not: `docs/models.md` has the reason.
        """
        pending = [list(request.actions) for _, request in self.members.pop(name).pool.pending]
        self.late += [actions for actions in pending if ITEMS.encode() in actions[0].split(b"\n")[0]]

    def run_once(self, name: str, writes: int | None) -> bool:
        """Let a sink run once, and kill it before a write; return false if it lived."""
        self.writes_left = writes
        try:
            self.members[name].sink.run_once()
        except Killed:
            self.writes_left = None
            self.kill(name)
            return True
        self.writes_left = None
        return False

    def state(self) -> tuple[Any, ...]:
        """Return everything that later steps depend on."""
        documents = tuple(
            (place, document.version, document.source and document.source.get("status"), document.source is None)
            for place, document in sorted(self.documents.items())
        )
        return (
            (self.published, self.committed, self.owner, self.kills, self.moves),
            documents,
            tuple(sorted(self.dead_letters)),
            tuple(b"".join(actions) for actions in self.late),
            tuple((name, self._memory(member)) for name, member in sorted(self.members.items())),
        )

    @staticmethod
    def _memory(member: Member) -> tuple[Any, ...]:
        consumer: Any = member.consumer
        client, commits = member.client, consumer._commits
        batches = [
            (
                *(row.version for row in batch.rows),
                *(len(request.outcomes) for request in batch.requests),
                batch.assignments is consumer.assignments,
            )
            for batch in member.sink._in_flight
        ]
        return (
            (client._assigned, client._is_owner, client.next_offset, len(client._callbacks)),
            (tuple(consumer._awaiting_offsets), consumer.has_new_partitions),
            tuple(sorted(consumer.clock._last.items())),
            tuple(message.offset() for message in consumer._buffered),
            (commits._is_committing, tuple(sorted((p, each.offset) for p, each in commits._uncommitted.items()))),
            tuple(batches),
            tuple(sorted((alert.alert_id, alert.version) for alert in member.store.firing.values())),
            (len(member.pool.pending), member.store._replayed_until > 0),
        )


@dataclass(frozen=True)
class State:
    """A state by what was done to reach it; equal by what later steps depend on."""

    now: tuple[Any, ...]
    path: tuple[str, ...] = field(compare=False)


class SinkModel:
    """The steps of the model, and its promises."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        records: Records,
        *,
        sinks: str = "A",
        kills: int = 1,
        moves: int = 0,
        batch_size: int = 0,
    ) -> None:
        """Model these records, sinks, kills, and moves of the partition between sinks.

        A batch has one record more than `batch_size`.
        """
        self._records, self._sinks, self._kills, self._moves, self._size = records, sinks, kills, moves, batch_size
        monkeypatch.setattr(group_consumer, "Consumer", lambda *_, **__: None)
        # Any pause has passed.
        seconds = count(step=10)
        monkeypatch.setattr(offset_commits, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        monkeypatch.setattr(bulk, "ThreadPoolExecutor", lambda *_, **__: None)
        monkeypatch.setattr(bulk, "wait", self._wait)
        self._world = self._replay(())
        self.start = State(self._world.state(), ())

    def _wait(self, futures: Sequence[Future[None]], timeout: float) -> SimpleNamespace:
        assert timeout
        for future in futures:
            for member in self._world.members.values():
                if any(pending is future for pending, _ in member.pool.pending):
                    member.pool.deliver(future)
        return SimpleNamespace(not_done=[])

    def _replay(self, path: Sequence[str]) -> World:
        self._world = world = World(self._records, self._size)
        for name in self._sinks:
            world.start(name)
        for step in path:
            self._take(step)
        return world

    def _take(self, step: str) -> None:
        world = self._world
        match step.split():
            case ["publish"]:
                world.published += 1
            case ["run", name]:
                world.run_once(name, None)
            case ["run", name, "until", "write", writes]:
                world.kills += world.run_once(name, int(writes))
            case ["run", name, "without", "an", "answer"]:
                world.members[name].client.is_answered = False
                world.run_once(name, None)
                world.members[name].client.is_answered = True
            case ["kill", name]:
                world.kills += 1
                world.kill(name)
            case ["start", name]:
                world.start(name)
            case ["move", "to", name]:
                world.moves += 1
                world.move_to(name)
            case ["deliver", name, number]:
                pool = world.members[name].pool
                pool.deliver(pool.pending[int(number)][0])
            case ["late", number]:
                world.index(world.late.pop(int(number)))
            case _:
                raise ValueError(step)

    def _possible(self, world: World) -> Iterator[str]:
        if world.published < len(world.records):
            yield "publish"
        for name in self._sinks:
            if name not in world.members:
                yield f"start {name}"
                continue
            yield f"run {name}"
            if world.members[name].consumer._awaiting_offsets and self._moves:
                yield f"run {name} without an answer"
            yield from (f"deliver {name} {n}" for n in range(len(world.members[name].pool.pending)))
            if world.kills < self._kills:
                yield f"kill {name}"
            if world.owner != name and (world.moves < self._moves or world.owner not in world.members):
                yield f"move to {name}"
        yield from (f"late {n}" for n in range(len(world.late)))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step that is possible, and the state that it leads to."""
        for step in list(self._possible(self._replay(state.path))):
            yield step, self._reached(state, step)
            if step == f"run {step[-1]}" and self._world.kills < self._kills:
                for writes in count(1):
                    killed = self._reached(state, f"{step} until write {writes}")
                    if step.split()[1] in self._world.members:
                        break
                    yield f"{step} until write {writes}", killed

    def _reached(self, state: State, step: str) -> State:
        path = (*state.path, step)
        return State(self._replay(path).state(), path)

    def check(self, state: State) -> None:
        """Raise `ViolationError` unless all is indexed, and the alerts are right, once no sink has work left."""
        world = self._replay(state.path)
        if world.owner not in world.members:
            name = self._sinks[0]
            if name not in world.members:
                world.start(name)
            world.move_to(name)
        for _ in range(20):
            before = world.state()
            for each in sorted(world.members):
                world.run_once(each, None)
            if world.state() == before:
                break
        else:
            raise ViolationError("the sink does not come to rest")
        while world.late:
            world.index(world.late.pop())
        _require_right(world)


def _require_right(world: World) -> None:
    """Raise `ViolationError` unless document and alerts are those of the last record."""
    rows = [(n, value) for n, (value, _) in enumerate(world.records[: world.published]) if value != MALFORMED]
    last, value = rows[-1] if rows else (-1, None)
    document = world.documents.get((ITEMS, "a"))
    source = None if document is None else document.source
    found = None if source is None else (source["min_interactions"], source["max_interactions"])
    if found != (None if value is None else (last, value)):
        raise ViolationError(f"the document is that of record and value {found}, not of {last, value}")
    malformed = {n for n, (value, _) in enumerate(world.records[: world.published]) if value == MALFORMED}
    if malformed != set(world.dead_letters):
        raise ViolationError(f"{world.dead_letters} are the dead letters of {malformed}")
    if max(Counter(world.dead_letters).values(), default=0) > 1 + world.kills + world.moves:
        raise ViolationError("more than one dead letter for each kill")
    alerts = [d.source for (index, _), d in world.documents.items() if index == alert_lifecycle.INDEX and d.source]
    firing = [alert for alert in alerts if alert["status"] == FIRING]
    is_true = isinstance(value, int) and value > RULE.threshold  # type: ignore[operator]
    if len(firing) != is_true:
        raise ViolationError(f"{len(firing)} alerts are firing while the value is {value}")
    if len({alert["version"] for alert in alerts}) < len(alerts):
        raise ViolationError("two alerts of one row")
    if world.committed[0] != world.published:
        raise ViolationError(f"the offset {world.committed[0]} is committed, of {world.published}")
