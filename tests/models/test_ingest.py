"""Ingest, killed at any step and after any two faults, appends each record once, and misses none silently."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from stream_processing import commands, ingest, start_position
from stream_processing.checkpoint import Checkpoint
from stream_processing.lake import AppendInfo
from stream_processing.partition_gap import PartitionGap

from tests.models.exploration import ViolationError, explore
from tests.models.ingest_model import FAULTS, TOPIC, IngestModel, ModelLake


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _explore(monkeypatch: pytest.MonkeyPatch, *faults: str, depth: int, by_spark: bool = False) -> int:
    model = IngestModel(monkeypatch, by_spark=by_spark, faults=faults)
    return explore(model.start, model.steps, model.check, depth).states


@pytest.mark.parametrize("by_spark", [False, True], ids=["small batches", "large batches"])
def test_a_job_that_is_killed_between_any_two_writes_appends_and_rejects_each_record_once(
    monkeypatch: pytest.MonkeyPatch, by_spark: bool, deeper: int
) -> None:
    assert _explore(monkeypatch, depth=9 + deeper, by_spark=by_spark) > 250


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_and_kills_at_any_step_no_record_is_missed_silently(
    monkeypatch: pytest.MonkeyPatch, fault: str, deeper: int
) -> None:
    assert _explore(monkeypatch, fault, depth=6 + deeper, by_spark=FAULTS.index(fault) % 2 == 0) > 80


@pytest.mark.parametrize("faults", list(itertools.combinations(FAULTS, 2)), ids=" and ".join)
def test_after_two_faults_and_kills_at_any_step_no_record_is_missed_silently(
    monkeypatch: pytest.MonkeyPatch, faults: tuple[str, str], deeper: int
) -> None:
    assert _explore(monkeypatch, *faults, depth=5 + deeper) > 60


@pytest.mark.parametrize(
    "steps",
    [
        "send, start, batch, kill, copy, send, start, batch, kill, restore topic",
        "send, start, batch, kill, copy, send, start, batch killed before write 1, restore topic",
        "send, start, batch, kill, copy, send, start, batch killed before write 2, restore topic",
        "send, start, batch, kill, copy, send, start, batch killed before write 3, restore topic",
        "start, kill, copy, send, start, batch killed before write 1, restore topic",
        "start, kill, copy, send, start, batch killed before write 2, restore topic",
    ],
)
def test_after_an_older_copy_of_the_topic_is_restored_no_record_counts_twice(
    monkeypatch: pytest.MonkeyPatch, steps: str, deeper: int
) -> None:
    model = IngestModel(monkeypatch, by_spark=False, faults=_RESTORED_TOPIC, sends=4)
    state = model.start
    for name in steps.split(", "):
        state = dict(model.steps(state))[name]
    assert explore(state, model.steps, model.check, 5 + deeper).states > 20


FOUND = {
    "retention deleted records of a batch that was appended and not committed": (
        "send, start, batch killed before write 3, retention"
    ),
    "retention deleted records of the first batch before it was appended": (
        "send, start, batch killed before write 2, retention"
    ),
    "records of a partition that was added are deleted before they are read": (
        "send, start, batch, kill, add partition, full retention"
    ),
    "accept-gap after the dead letters of the last batch were interrupted": (
        "send, send, start, batch killed before write 3, add partition, retention"
    ),
    "the topic was recreated before it was read": "start, kill, recreate topic",
    "a checkpoint was lost after partitions were added": "send, start, batch, kill, add partition, lose checkpoint",
    "the first commit was lost, and then the lake": (
        "send, start, batch, send, batch killed before write 1, lose commit, delete lake"
    ),
    "an older checkpoint after the history was removed": (
        "send, start, batch, kill, copy, send, start, batch, remove history, kill, restore checkpoint"
    ),
    "the dead letters of a batch after the history was removed": (
        "send, start, batch, send, remove history, batch killed before write 2, lose checkpoint"
    ),
    "the lake as of an accept-gap that replaced no checkpoint": (
        "send, start, batch, send, kill, full retention, lose checkpoint, accept-gap, copy, send, start, batch, kill,"
        " restore lake"
    ),
    "the file of a committed batch is damaged": "send, start, batch, kill, damage offsets",
}


@pytest.mark.parametrize("steps", FOUND.values(), ids=FOUND)
def test_a_start_after_what_the_model_found_continues_or_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    model = IngestModel(monkeypatch, by_spark=False, faults=FAULTS, sends=9)
    state = model.start
    for name in steps.split(", "):
        state = dict(model.steps(state))[name]
        model.check(state)


def _append_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not look for a repeated batch in the lake."""
    monkeypatch.setattr(ModelLake, "has_append", lambda *_: False)


def _commit_before_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a batch that is in the lake for done."""
    process = ingest._BatchWriter._process

    def mutated(self: Any, batch: Any, info: AppendInfo, size: int, *, is_repeated: bool) -> Any:
        if is_repeated and self._lake.has_append(info):
            return None
        return process(self, batch, info, size, is_repeated=is_repeated)

    monkeypatch.setattr(ingest._BatchWriter, "_process", mutated)


def _same_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take an append for that of the batch if only its number is the same."""
    monkeypatch.setattr(ModelLake, "has_append", lambda self, info: (self.last_append() or info).batch == info.batch)


def _checkpoint_deleted_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let accept-gap delete the checkpoint before it records the gap."""
    write_marker = ModelLake.write_marker

    def mutated(self: ModelLake, info: AppendInfo) -> None:
        self.servers.remove(None, "c/ingest")
        write_marker(self, info)

    monkeypatch.setattr(ModelLake, "write_marker", mutated)


def _replace(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


@dataclass(frozen=True)
class Mutation:
    """An ingest that lacks a guard."""

    mutate: Callable[[pytest.MonkeyPatch], None]
    faults: tuple[str, ...] = ()
    after: str = ""
    """Steps before the exploration."""


def _read_known_partitions(_: object, append: AppendInfo | None) -> str:
    return json.dumps({TOPIC: {"0": 0, "1": 0} if append is None else append.offsets[TOPIC]})


_RESTORED_LAKE: Final = ("copy", "restore lake")
_RESTORED_TOPIC: Final = ("copy", "restore topic")
_LOST: Final = ("lose checkpoint",)
_RECREATED: Final = ("recreate topic",)
MUTATIONS: Final = {
    "an append is not looked for in the lake": Mutation(_append_again),
    "an append is recognised by its number alone": Mutation(_same_offsets, _LOST),
    "a batch is done before its dead letters are sent": Mutation(_commit_before_dead_letters),
    "dead letters are sent again": Mutation(_replace(ingest, "without_sent", lambda malformed, _: malformed)),
    "the dead letters of the last append are not checked": Mutation(
        _replace(ingest, "_send_missing_dead_letters", lambda *_: None), _LOST
    ),
    "an older lake is accepted": Mutation(
        _replace(start_position, "_require_appended", lambda *_: None), ("delete lake",)
    ),
    "offsets are not compared": Mutation(
        _replace(start_position, "is_ahead", lambda *_: False),
        _RESTORED_LAKE,
        "send, start, batch, kill, copy, send, start, batch",
    ),
    "an older checkpoint is accepted": Mutation(
        _replace(start_position, "_is_behind", lambda *_: False),
        ("copy", "restore checkpoint"),
        "send, start, batch, kill, copy, send, start",
    ),
    "a recreated topic is accepted": Mutation(_replace(start_position, "known_topic_id", lambda *_: None), _RECREATED),
    "partitions that were added are not read": Mutation(
        _replace(start_position, "_starting_offsets", _read_known_partitions), ("add partition", *_LOST)
    ),
    "accept-gap records no gap": Mutation(_replace(ModelLake, "write_marker", lambda *_: None), _RECREATED),
    "accept-gap deletes the checkpoint before it records the gap": Mutation(_checkpoint_deleted_first, ("retention",)),
    "an older copy of the topic is read from its beginning": Mutation(
        _replace(PartitionGap, "resume_at", property(lambda gap: gap.earliest if gap.is_beyond_end else gap.position)),
        _RESTORED_TOPIC,
        "send, start, batch, kill, copy, send, start, batch, kill, restore topic",
    ),
    "a batch of records that an older copy lacks is repeated": Mutation(
        _replace(commands, "_is_batch_beyond_end", lambda *_: False),
        _RESTORED_TOPIC,
        "send, start, batch, kill, copy, send, start, batch killed before write 1, restore topic",
    ),
    "the unfinished batch is not known": Mutation(_replace(Checkpoint, "unfinished_batch", lambda _: None)),
    "the last append leaves the history": Mutation(
        _replace(ModelLake, "first_version_to_keep", lambda self: self.version() + 1),
        ("lose commit", "remove history"),
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_the_model_finds_an_ingest_that_lacks_a_guard(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    model = IngestModel(monkeypatch, by_spark=False, faults=mutation.faults)
    start = model.start
    for name in filter(None, mutation.after.split(", ")):
        start = dict(model.steps(start))[name]
    mutation.mutate(monkeypatch)
    with pytest.raises(ViolationError):
        explore(start, model.steps, model.check, 7)
