"""A declaration that changes over existing data: computed anew, or refused before anything is touched."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from mirakuru.exceptions import ProcessExitedWithError

from local_stack.services import STREAM
from tests.interaction import INTERACTION_TYPES, Interaction
from tests.pipeline import Pipeline, assert_equal, eventually

DECLARATION = Path(__file__).parents[1] / "declarations" / "changed.py"


def _interactions(count: int) -> list[Interaction]:
    return [
        Interaction(f"user_{n % 7}", f"item_{n % 5}", INTERACTION_TYPES[n * n % 4], 1_700_000_000 + n)
        for n in range(count)
    ]


def _rows(pipeline: Pipeline, table: str, column: str) -> dict[str, int]:
    """Return a column of the latest rows in the aggregated topic, by id."""
    found = {}
    for message in pipeline.read(pipeline.settings.aggregated_topic):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if key.decode().startswith(f"{table}-"):
            row = orjson.loads(value or b"{}")
            found[key.decode().removeprefix(f"{table}-")] = row.get(column, -1)
    return found


def _stored(pipeline: Pipeline) -> dict[Path, bytes]:
    """Return the content of each file of lake and checkpoints."""
    folders = (pipeline.data / "warehouse", pipeline.data / "checkpoints")
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {file: file.read_bytes() for file in files}


def _rejection(pipeline: Pipeline, change: str, **settings: str) -> str:
    with pytest.raises(ProcessExitedWithError):
        pipeline.service(STREAM, PIPELINE=DECLARATION, CHANGE=change, **settings).start()
    return pipeline.log(STREAM).splitlines()[-1]


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_a_new_field_with_a_table_by_it_counts_old_rows_by_its_default(pipeline: Pipeline, store: str) -> None:
    sent = _interactions(300)
    with pipeline.running(STREAM, STATE_STORE=store):
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
    # Records of before that are read later lack it too.
    pipeline.send_interactions(_interactions(20))
    settings: dict[str, Any] = {"PIPELINE": str(DECLARATION), "CHANGE": "new field", "STATE_STORE": store}
    assert "run `python -m stream_processing rebuild`" in _rejection(pipeline, "new field", STATE_STORE=store)
    pipeline.command(STREAM, "rebuild", **settings)
    with pipeline.running(STREAM, **settings):
        eventually(lambda: assert_equal(_rows(pipeline, "interactions_per_channel", "total"), {"web": 320}))
        new = [{"user_id": "u", "item_id": "i", "interaction_type": "like", "channel": "app", "timestamp": 1}] * 7
        pipeline.send(pipeline.topic, [(b"u", orjson.dumps(each)) for each in new])
        eventually(lambda: assert_equal(_rows(pipeline, "interactions_per_channel", "total"), {"web": 320, "app": 7}))
    # The counts are computed again from files with and without the column.
    pipeline.command(STREAM, "rebuild", **settings)
    with pipeline.running(STREAM, **settings):
        users = Counter(each.user_id for each in [*sent, *_interactions(20)]) + Counter(u=7)
        eventually(lambda: assert_equal(_rows(pipeline, "agg_interactions_user", "total_interactions"), dict(users)))
    rows = pipeline.lake_rows("SELECT channel, count(*) AS n FROM interactions GROUP BY channel")
    assert {row["channel"]: row["n"] for row in rows} == {None: 300, "web": 20, "app": 7}


def test_a_choice_with_a_new_value_is_counted_after_a_rebuild(pipeline: Pipeline) -> None:
    sent = _interactions(100)
    with pipeline.running(STREAM):
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
    assert "total_share" in _rejection(pipeline, "new choice")
    settings: dict[str, Any] = {"PIPELINE": str(DECLARATION), "CHANGE": "new choice"}
    pipeline.command(STREAM, "rebuild", **settings)
    with pipeline.running(STREAM, **settings):
        shared = {"user_id": "u", "item_id": "i", "interaction_type": "share", "timestamp": 1}
        pipeline.send(pipeline.topic, [(b"u", orjson.dumps(shared))] * 3)
        eventually(lambda: assert_equal(_rows(pipeline, "agg_interactions_user", "total_share").get("u"), 3))
    totals = _rows(pipeline, "agg_interactions_user", "total_interactions")
    assert totals == dict(Counter(each.user_id for each in sent) + Counter(u=3))


_REFUSED = {
    "new required field": "field size is new, and rows that exist lack it: declare it with optional=True",
    "choice removed": "field interaction_type no longer has purchase, which rows that exist can have",
    "type changed": "field timestamp was a epoch_seconds, and is a whole",
    "renamed": "field timestamp was removed or renamed",
}


def test_a_change_that_does_not_fit_the_data_is_refused_and_touches_nothing(pipeline: Pipeline) -> None:
    sent = _interactions(50)
    with pipeline.running(STREAM):
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent))
    before = _stored(pipeline)
    for change, reason in _REFUSED.items():
        assert reason in _rejection(pipeline, change)
        assert _stored(pipeline) == before, change
        refused = pipeline.command(STREAM, "rebuild", expected_status=1, PIPELINE=str(DECLARATION), CHANGE=change)
        assert reason in refused
        assert _stored(pipeline) == before, change
    with pipeline.running(STREAM):
        pipeline.send_interactions(sent)
        eventually(lambda: pipeline.assert_published(sent * 2))
    assert pipeline.lake_count() == 100
