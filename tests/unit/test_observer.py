"""What a snapshot reads from the lake, without a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from arro3.core import Array, DataType, Table
from deltalake import CommitProperties, write_deltalake
from elasticsearch import Elasticsearch

from contract.declared import EVENT
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
    assert _unread(cuts, ends, {"stream_batches": 5}) == 5
    assert _unread(cuts, ends, {"stream_batches": 4}) is None, "the batch is not finished"


def test_unread_offsets_are_unknown_without_a_lake(observer: Observer) -> None:
    assert _unread(observer._read_cuts(), {0: 12}, {"stream_batches": 5}) is None
