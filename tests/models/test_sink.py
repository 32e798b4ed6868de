"""Sinks that are killed at any step, or lose their partition, index the latest row and raise its alert."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from elasticsearch_sink_alert.alerting.engine import AlertEngine
from elasticsearch_sink_alert.indexing import bulk
from elasticsearch_sink_alert.indexing.row_index import split_by_outcome
from elasticsearch_sink_alert.kafka.group_consumer import GroupConsumer
from elasticsearch_sink_alert.kafka.rows import Row
from elasticsearch_sink_alert.kafka.versions import VersionClock
from elasticsearch_sink_alert.sink import Sink

from tests.models.exploration import ViolationError, explore
from tests.models.sink_model import MALFORMED, Records, SinkModel

RISES_AND_FALLS: Final = [(13, 2_000), (5, 2_000), (14, 1_000)]
"""Two records of one millisecond, and one after the broker's clock was set back."""
DELETED: Final = [(13, 2_000), (None, 1_000), (5, 1_000)]
REJECTED: Final = [(13, 2_000), (MALFORMED, 2_000), (5, 1_000)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("records", "batch_size"),
    [(RISES_AND_FALLS, 0), (RISES_AND_FALLS, 1), (DELETED, 1), (REJECTED, 0)],
    ids=["values", "values, two in a batch", "a deletion", "a dead letter"],
)
def test_a_sink_that_is_killed_at_any_step_indexes_the_latest_row_and_raises_its_alert(
    monkeypatch: pytest.MonkeyPatch, records: Records, batch_size: int, deeper: int
) -> None:
    model = SinkModel(monkeypatch, records, kills=2, batch_size=batch_size)
    assert explore(model.start, model.steps, model.check, 9 + deeper).states > 200


@pytest.mark.parametrize("records", [RISES_AND_FALLS, DELETED, REJECTED], ids=["values", "a deletion", "a dead letter"])
def test_a_sink_that_has_lost_its_partition_with_a_batch_in_flight_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, records: Records, deeper: int
) -> None:
    model = SinkModel(monkeypatch, records, sinks="AB", moves=2, kills=1, batch_size=1)
    assert explore(model.start, model.steps, model.check, 7 + deeper).states > 600


def _finish(*steps: str) -> Callable[..., None]:
    """Return a `Sink._finish` with another order of its steps."""

    def finish(self: Any, batch: Any) -> None:
        current: list[Row] = batch.rows
        for step in steps:
            match step:
                case "wait":
                    current, _ = split_by_outcome(batch.rows, batch.outcomes())
                case "alerts":
                    self._alert_engine.evaluate(current)
                case "dead letters":
                    self._write_dead_letters(batch.rejected)
                case "commit":
                    self._consumer.commit(batch.next_offsets)

    return finish


def _commit_when_polled(self: Any, batch: Any) -> None:
    batch.outcomes = self._row_index.start(batch.requests)
    self._in_flight.append(batch)
    self._consumer.commit(batch.next_offsets)


@dataclass(frozen=True)
class Mutation:
    """A sink that lacks a guard."""

    owner: Any
    name: str
    value: Any
    records: Sequence[Any] = tuple(RISES_AND_FALLS)
    world: dict[str, Any] = field(default_factory=lambda: {"kills": 1})


_TWO: Final = {"sinks": "AB", "moves": 1, "kills": 0, "batch_size": 1}
MUTATIONS: Final = {
    "a version is the append time alone": Mutation(VersionClock, "version", lambda _, __, time, ___: time << 20),
    "the clock of a partition is not restored": Mutation(
        VersionClock, "restore", lambda self, partition, _: self._last.pop(partition, None), [(13, 2_000), (5, 1_000)]
    ),
    "offsets are committed when records are polled": Mutation(Sink, "_start_indexing", _commit_when_polled),
    "offsets are committed before the rows are indexed": Mutation(
        Sink, "_finish", _finish("commit", "wait", "alerts", "dead letters")
    ),
    "offsets are committed before the alerts are saved": Mutation(
        Sink, "_finish", _finish("wait", "commit", "alerts", "dead letters")
    ),
    "offsets are committed before the dead letters are written": Mutation(
        Sink, "_finish", _finish("wait", "alerts", "commit", "dead letters"), REJECTED
    ),
    "offsets are not committed": Mutation(Sink, "_finish", _finish("wait", "alerts", "dead letters")),
    "a row that is written again is a conflict": Mutation(
        bulk, "_INDEX", bulk._INDEX.replace(b"external_gte", b"external")
    ),
    "alerts are not loaded when a partition is assigned": Mutation(AlertEngine, "load", lambda _: None),
    "rows of a revoked partition are evaluated": Mutation(
        GroupConsumer, "assignments", property(lambda _: _TWO, lambda *_: None), world=_TWO
    ),
    "records that were polled before the clock was restored are kept": Mutation(
        GroupConsumer, "_read_from", lambda *_: None, world=_TWO
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_the_model_finds_a_sink_that_lacks_a_guard(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    model = SinkModel(monkeypatch, mutation.records, **mutation.world)
    monkeypatch.setattr(mutation.owner, mutation.name, mutation.value, raising=False)
    with pytest.raises(ViolationError):
        explore(model.start, model.steps, model.check, 9)
