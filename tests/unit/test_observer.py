"""What a snapshot reads from the lake and from dead letters, without a server."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table
from deltalake import CommitProperties, DeltaTable, write_deltalake
from elasticsearch import Elasticsearch

from contract.dead_letters import OFFSET, PARTITION, SERVICE, TOPIC
from contract.declared import EVENT
from observer import malformed_records
from observer.lake_cuts import Cut, read_cuts
from observer.malformed_records import MalformedRecords
from observer.snapshot import Observer, _unread
from runtime.settings import Settings


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    settings = Settings(kafka_broker="127.0.0.1:1")
    created = Observer(settings, Elasticsearch(["http://127.0.0.1:1"]), str(tmp_path), {}, "group")
    yield created
    created.close()


def test_unread_offsets_follow_from_the_last_append(observer: Observer, tmp_path: Path) -> None:
    metadata = {"batch": 4, "topic_id": "id", "offsets": {"avroic": {"0": 10, "1": 7}}}
    rows = Table.from_pydict({"user_id": Array(["a"], DataType.string())})
    for properties in (CommitProperties(custom_metadata={"userMetadata": json.dumps(metadata)}), None):
        write_deltalake(tmp_path / EVENT.name, rows, mode="append", commit_properties=properties)
    ends, cuts = {0: 12, 1: 7, 2: 3}, observer._read_cuts()
    assert _unread(cuts, ends, {"stream_finished_batch_id": 4}) == 5
    assert _unread(cuts, ends, {"stream_finished_batch_id": 3}) is None, "the batch is not finished"


def test_unread_offsets_are_unknown_without_a_lake(observer: Observer) -> None:
    assert _unread(observer._read_cuts(), {0: 12}, {"stream_finished_batch_id": 4}) is None


def _append(lake: Path, batch: int, rows: int, offset: int | None) -> None:
    """Append rows as the stream job does, or as another writer if there is no offset."""
    metadata = {"batch": batch, "topic_id": "id", "offsets": {"avroic": {"0": offset}}}
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps(metadata)})
    data = Table.from_pydict({"user_id": Array(["a"] * rows, DataType.string())})
    write_deltalake(lake, data, mode="append", commit_properties=None if offset is None else properties)


def test_each_version_of_the_lake_has_the_rows_and_the_offsets_of_its_append(tmp_path: Path) -> None:
    for batch, (rows, offset) in enumerate([(3, 3), (2, 6), (0, 7)]):
        _append(tmp_path, batch, rows, offset)
    cuts = [Cut(3, {0: 3}, "id", 0), Cut(5, {0: 6}, "id", 1), Cut(5, {0: 7}, "id", 2)]
    assert read_cuts(DeltaTable(tmp_path), "avroic") == cuts
    DeltaTable(tmp_path).optimize.compact()
    assert read_cuts(DeltaTable(tmp_path), "avroic") == cuts
    # An older version is brought to the current one first.
    assert read_cuts(DeltaTable(tmp_path, version=1), "avroic") == cuts
    assert read_cuts(DeltaTable(tmp_path), "another") == []


class _TableBeingWritten(DeltaTable):
    """One to which the stream job appends just after its history was read for the first time."""

    looks = 0

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        commits = super().history(limit)
        if not self.looks:
            _append(Path(self.table_uri.removeprefix("file://")), 1, 2, 5)
        self.looks += 1
        return commits


def test_an_append_while_the_lake_is_read_is_not_attributed_to_the_version_before(tmp_path: Path) -> None:
    _append(tmp_path, 0, 3, 3)
    assert read_cuts(_TableBeingWritten(tmp_path), "avroic") == [Cut(3, {0: 3}, "id", 0), Cut(5, {0: 5}, "id", 1)]


def test_rows_of_another_writer_are_in_the_version_after_them(tmp_path: Path) -> None:
    _append(tmp_path, 0, 3, 3)
    _append(tmp_path, 0, 2, None)
    assert read_cuts(DeltaTable(tmp_path), "avroic") == [Cut(5, {0: 3}, "id", 0)]
    _append(tmp_path, 1, 1, 4)
    assert read_cuts(DeltaTable(tmp_path), "avroic") == [Cut(3, {0: 3}, "id", 0), Cut(6, {0: 4}, "id", 1)]


def test_a_lake_without_rows_is_made_of_nothing(tmp_path: Path) -> None:
    write_deltalake(tmp_path, Table.from_pydict({"user_id": Array([], DataType.string())}))
    assert read_cuts(DeltaTable(tmp_path), "avroic") == [Cut(0, {})]


@dataclass
class _Letter:
    """A record of the dead letter topic, with the offset of the malformed record."""

    at: int
    malformed: int
    service: bytes = b"stream-processing"
    topic: bytes = b"avroic"
    extra: dict[str, bytes] = field(default_factory=dict)

    def headers(self) -> list[tuple[str, bytes]]:
        malformed = str(self.malformed).encode()
        headers = {SERVICE: self.service, TOPIC: self.topic, PARTITION: b"0", OFFSET: malformed}
        return list({**headers, **self.extra}.items())

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at


class _Topic:
    """The dead letter topic; counts how often it is read."""

    def __init__(self, *letters: _Letter) -> None:
        self.letters = list(letters)
        self.readings = 0
        self.clock, self.seconds_of_connection, self.seconds_of_reading = 100.0, 0.0, 0.0

    def monotonic(self) -> float:
        self.clock += self.seconds_of_reading
        return self.clock

    def read_to_end(self, *_: Any, start: Mapping[int, int], **__: Any) -> Iterator[_Letter]:
        self.readings += 1
        self.clock += self.seconds_of_connection
        yield from (letter for letter in self.letters if letter.at >= start.get(0, 0))


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> _Topic:
    topic = _Topic(_Letter(0, 4), _Letter(1, 2), _Letter(2, 9))
    monkeypatch.setattr(malformed_records, "read_to_end", topic.read_to_end)
    monkeypatch.setattr("observer.malformed_records.time.monotonic", topic.monotonic)
    return topic


def _malformed() -> MalformedRecords:
    return MalformedRecords({}, "avroic", "avroic_dead_letter")


def test_malformed_records_are_counted_before_any_offset_and_each_dead_letter_is_read_once(letters: _Topic) -> None:
    malformed = _malformed()
    assert malformed.read({0: (0, 3)}, 1.0)
    assert [malformed.before({0: offset, 1: 5}) for offset in (2, 3, 5, 9, 10)] == [0, 1, 2, 2, 3]
    assert malformed.read({0: (0, 3)}, 1.0)
    assert letters.readings == 1
    letters.letters.append(_Letter(3, 10))
    assert malformed.read({0: (0, 4)}, 1.0)
    assert malformed.before({0: 100}) == 4


def test_a_dead_letter_that_is_there_twice_or_of_another_service_topic_or_program_does_not_count(
    letters: _Topic,
) -> None:
    letters.letters += [
        _Letter(3, 9),
        _Letter(4, 11, service=b"elasticsearch-sink"),
        _Letter(5, 12, topic=b"another"),
        _Letter(6, 13, extra={OFFSET: b"\xff"}),
    ]
    malformed = _malformed()
    # The last offset is that of a marker.
    assert malformed.read({0: (0, 8)}, 1.0)
    assert malformed.before({0: 100}) == 3
    assert malformed.read({0: (0, 8)}, 1.0)
    assert letters.readings == 1


def test_many_dead_letters_are_read_in_several_turns(letters: _Topic) -> None:
    letters.seconds_of_reading = 2.0
    malformed = _malformed()
    assert [malformed.read({0: (0, 3)}, 1.0) for _ in range(3)] == [False, False, True]
    assert malformed.before({0: 100}) == 3


def test_a_slow_broker_does_not_delay_few_dead_letters(letters: _Topic) -> None:
    letters.seconds_of_connection = 10.0
    assert _malformed().read({0: (0, 3)}, 1.0)


def test_dead_letters_that_were_deleted_are_never_known(letters: _Topic) -> None:
    malformed = _malformed()
    assert not malformed.read({0: (1, 3)}, 1.0)
    assert not malformed.read({0: (1, 3)}, 1.0)
    # Those that were read before they were deleted are.
    known = _malformed()
    assert known.read({0: (0, 3)}, 1.0)
    assert known.read({0: (3, 3)}, 1.0)
    assert known.before({0: 100}) == 3


def test_a_dead_letter_topic_that_was_recreated_is_read_again(letters: _Topic) -> None:
    malformed = _malformed()
    assert malformed.read({0: (0, 3)}, 1.0)
    letters.letters = [_Letter(0, 70)]
    assert malformed.read({0: (0, 1)}, 1.0)
    assert malformed.before({0: 100}) == 1
