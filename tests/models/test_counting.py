"""Counts, rows and tables equal the lake once nothing is left to do, wherever the job was killed."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from stream_processing import published_topic
from stream_processing.aggregator import Aggregator
from stream_processing.counts import CountedVersion, Counts
from stream_processing.lake_log import LakeLog
from stream_processing.published_topic import PublishedTopic
from stream_processing.snapshots import Snapshots
from stream_processing.table_writer import TableWriter

from tests.models.counting_model import FAULTS, USERS, CountingModel, State
from tests.models.exploration import ViolationError, explore


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_job_that_is_killed_between_any_two_writes_publishes_the_counts_of_the_lake(
    monkeypatch: pytest.MonkeyPatch, deeper: int
) -> None:
    model = CountingModel(monkeypatch)
    assert explore(model.start, model.steps, model.check, 6 + deeper).states > 100


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.startswith("restore")])
def test_after_a_fault_and_kills_at_any_step_the_counts_are_those_of_the_lake(
    monkeypatch: pytest.MonkeyPatch, fault: str, deeper: int
) -> None:
    model = CountingModel(monkeypatch, faults=(fault,))
    assert explore(model.start, model.steps, model.check, 4 + deeper).states > 20


COPIED: Final = "start, append, count, materialise, kill, copy, start, append, count, materialise, kill"


@pytest.mark.parametrize("fault", ["restore lake", "restore snapshot", "restore topic"])
def test_after_an_older_copy_is_restored_the_counts_are_those_of_the_lake(
    monkeypatch: pytest.MonkeyPatch, fault: str, deeper: int
) -> None:
    model = CountingModel(monkeypatch, faults=("copy", fault), appends=3)
    assert explore(_after(model, COPIED), model.steps, model.check, 4 + deeper).states > 20


def _after(model: CountingModel, steps: str) -> State:
    state = model.start
    for name in filter(None, steps.split(", ")):
        state = dict(model.steps(state))[name]
    return state


def _snapshot_first(self: Any, counted: CountedVersion, flush: Callable[[], None]) -> bool:
    flush()
    for key, rows in counted.rows.items():
        self._snapshots.save(key, rows, counted.version)
    self._merge(counted)
    return True


def _forget_what_is_not_published(self: Counts, *arguments: Any) -> None:
    restore(self, *arguments)
    self._unpublished[USERS].take()


def _take_the_latest_version(self: Counts) -> CountedVersion:
    return replace(take_unwritten(self), version=self._lake.version())


restore, take_unwritten = Counts.restore, Counts.take_unwritten


@dataclass(frozen=True)
class Mutation:
    """A job that lacks a guard."""

    owner: Any
    name: str
    value: Any
    faults: tuple[str, ...] = ()
    after: str = ""


MUTATIONS: Final = {
    "a snapshot is stored before Kafka has its rows": Mutation(Aggregator, "_flush", lambda _: None),
    "a snapshot is stored before its rows are merged": Mutation(TableWriter, "write", _snapshot_first),
    "a snapshot has the version of the lake and not of the counts": Mutation(
        Counts, "take_unwritten", _take_the_latest_version
    ),
    "a start does not publish what it has counted": Mutation(Counts, "restore", _forget_what_is_not_published),
    "a start takes every snapshot": Mutation(
        Snapshots, "_require_same_lake", lambda *_: None, ("copy", "restore lake"), COPIED
    ),
    "versions are compared without their entries": Mutation(
        LakeLog, "digest", lambda *_: None, ("copy", "restore lake"), f"{COPIED}, restore lake, start"
    ),
    "a recreated topic is not filled": Mutation(PublishedTopic, "has_all_rows", lambda _: True, ("recreate topic",)),
    "an older topic is not filled": Mutation(
        published_topic, "parse_published", lambda text: (json.loads(text)["id"], {}), ("copy", "restore topic"), COPIED
    ),
    "an older topic that got some rows is not filled": Mutation(
        published_topic, "forget_published", lambda *_: None, ("copy", "restore topic"), f"{COPIED}, restore topic"
    ),
    "a compaction counts as an append": Mutation(
        LakeLog, "added_files", lambda _, versions: [str(version) for version in versions], ("compact",)
    ),
    "an append is taken for a compaction": Mutation(
        LakeLog, "without_data", lambda self, version: self.read_text(self.entry(version)) is not None
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_the_model_finds_a_job_that_lacks_a_guard(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    model = CountingModel(monkeypatch, faults=mutation.faults, appends=3)
    start = _after(model, mutation.after)
    monkeypatch.setattr(mutation.owner, mutation.name, mutation.value)
    with pytest.raises(ViolationError):
        explore(start, model.steps, model.check, 6)
